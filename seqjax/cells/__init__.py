"""Recurrent cells: one file for each idea, exported in `seqjax/__init__.py`."""
