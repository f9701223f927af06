"""Pages that the code writes: `python -m docs.cells`."""
