"""A readout and what it has to say: the numbers that all contestants are given.

NumPy alone: the process of PyTorch has no JAX in it.
"""

import math
from typing import NamedTuple

import numpy as np


class Sizes(NamedTuple):
    """Steps T, sequences B, units H, classes V."""

    time: int
    batch: int
    features: int
    classes: int

    def __str__(self) -> str:
        """As tables have it."""
        return f"{self.time}, {self.batch}, {self.features}, {self.classes:,}"


class Problem(NamedTuple):
    """ys [T, B, H], V turned as an embedding is, [V, H], b [V], and the targets [T, B]."""

    ys: np.ndarray
    kernel: np.ndarray
    bias: np.ndarray
    targets: np.ndarray


def drawn(sizes: Sizes) -> Problem:
    """Ys from N(0, 1), V from N(0, 1 / H), b from N(0, 1), targets all alike."""
    random = np.random.default_rng(0)
    normal = lambda *shape: random.standard_normal(shape, np.float32)
    T, B, H, V = sizes
    return Problem(
        ys=normal(T, B, H),
        kernel=normal(V, H) * np.float32(1 / math.sqrt(H)),
        bias=normal(V),
        targets=random.integers(V, size=(T, B), dtype=np.int32),
    )
