"""What optax lacks: halving by global norm, clipping statistics, and one ready chain."""
