"""Models: pure init and apply pairs over any cell."""
