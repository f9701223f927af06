"""One layer to run: the cell, its sizes, and the numbers that every contestant is given.

NumPy alone: the process of a peer that is not on JAX has no JAX in it.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

GATES = {"LSTM": ("i", "f", "g", "o"), "GRU": ("r", "z", "n"), "Elman": ("",)}
"""The cells, and their gates in the order in which our kernels are packed."""

KINDS = ("forward", "forward+backward")
"""Outputs; or the gradients of their mean square with respect to the weights."""

SAMPLED = 256
"""About so many entries of each array go into a sample."""


class Shape(NamedTuple):
    """Sequences B, steps T, inputs D, units H."""

    batch: int
    time: int
    inputs: int
    features: int

    def __str__(self) -> str:
        """As tables have it."""
        return ", ".join(map(str, self))


class Problem(NamedTuple):
    """W, U and b packed gate by gate, the inner bias c_n of a GRU (None elsewhere), and xs [T, B, D]."""

    cell: str
    input_kernel: np.ndarray
    recurrent_kernel: np.ndarray
    bias: np.ndarray
    inner_bias: np.ndarray | None
    xs: np.ndarray

    @property
    def weights(self) -> list[np.ndarray]:
        """What there is of W, U, b and c_n."""
        found = (self.input_kernel, self.recurrent_kernel, self.bias, self.inner_bias)
        return [array for array in found if array is not None]

    @property
    def features(self) -> int:
        """Units H."""
        return self.recurrent_kernel.shape[0]


class Prepared(NamedTuple):
    """A call that runs once and waits, and what reads its result as arrays of NumPy in our order.

    Of a forward run [ys], ys [T, B, H]; of a backward one the gradients by W, U, b and, where there is
    one, c_n.
    """

    run: Callable[[], Any]
    read: Callable[[Any], list[np.ndarray]]


def drawn(cell: str, shape: Shape, seed: int = 0) -> Problem:
    """Weights from U(-1/√H, 1/√H), biases too, so that none is zero; xs from N(0, 1)."""
    random = np.random.default_rng(seed)
    batch, time, inputs, features = shape
    packed = len(GATES[cell]) * features

    def uniform(*sizes: int) -> np.ndarray:
        return (random.uniform(-1, 1, sizes) / math.sqrt(features)).astype(np.float32)

    return Problem(
        cell,
        uniform(inputs, packed),
        uniform(features, packed),
        uniform(packed),
        uniform(features) if cell == "GRU" else None,
        random.standard_normal((time, batch, inputs), np.float32),
    )


def split(packed: np.ndarray, names: Sequence[str]) -> dict[str, np.ndarray]:
    """The blocks along the last axis, by name."""
    return dict(zip(names, np.split(packed, len(names), axis=-1), strict=True))


def join(blocks: dict[str, np.ndarray], names: Sequence[str]) -> np.ndarray:
    """The blocks side by side, in the order of `names`."""
    return np.concatenate([blocks[name] for name in names], axis=-1)


def sample(arrays: Sequence[np.ndarray]) -> list[list[float]]:
    """Entries of each array, evenly spread: what two processes compare their results by."""
    return [array.ravel()[:: 1 + array.size // SAMPLED].tolist() for array in arrays]


def deviation(came: Sequence[Sequence[float]], expected: Sequence[Sequence[float]]) -> float:
    """The largest difference of two samples, each array in units of its own largest entry."""
    if [len(array) for array in came] != [len(array) for array in expected]:
        return math.inf
    worst = [
        np.abs(np.subtract(a, b)).max() / np.abs(b).max()
        for a, b in zip(came, expected, strict=True)
    ]
    return float(np.max(worst))  # NaN where any of them is


def flops(cell: str, shape: Shape, kind: str) -> int:
    """Multiplications and additions in the matmuls of a layer.

    Forward, W x_t and U h_{t-1}: 2 T B (D + H) G H, G the number of gates. Backward as many for the
    gradients by W and U, and 2 T B H G H for that by h_{t-1}. The xs are data: no gradient by them.
    """
    batch, time, inputs, features = shape
    each = 2 * time * batch * len(GATES[cell]) * features
    if kind == "forward":
        return each * (inputs + features)
    return each * (2 * (inputs + features) + features)


def bytes_needed(shape: Shape) -> int:
    """About what the hungriest contestant holds: xs and fourteen arrays of H a step, twice."""
    batch, time, inputs, features = shape
    return time * batch * (inputs + 14 * features) * 4 * 2
