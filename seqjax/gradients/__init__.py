"""Ways to differentiate through time."""
