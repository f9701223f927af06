"""Measurements against peers; README.md says how each number is made."""
