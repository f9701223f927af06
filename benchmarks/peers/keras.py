"""Keras on JAX: a layer's `stateless_call` under jit; batch-major, as it wants its data."""

import os
from typing import Any

os.environ["KERAS_BACKEND"] = "jax"  # read when Keras is imported, and only then

import keras
import numpy as np

from benchmarks.peers.on_jax import prepared
from benchmarks.peers.problem import GATES, Prepared, Problem, join, split

CELLS: dict[str, Any] = {
    "LSTM": keras.layers.LSTM,
    "GRU": keras.layers.GRU,
    "Elman": keras.layers.SimpleRNN,
}
ORDER = GATES | {"GRU": ("z", "r", "n")}


def prepare(problem: Problem, kind: str) -> Prepared:
    """A layer, or its gradient, under jit.

    Raises a RuntimeError where something has imported Keras with another backend before.
    """
    if keras.backend.backend() != "jax":
        raise RuntimeError(f"Keras runs on {keras.backend.backend()}; expected jax")
    xs = np.ascontiguousarray(np.swapaxes(problem.xs, 0, 1))
    layer = CELLS[problem.cell](problem.features, return_sequences=True)
    layer.build(xs.shape)
    unused = [variable.value for variable in layer.non_trainable_variables]  # a seed of its dropout
    forward = lambda params, xs: layer.stateless_call(params, unused, xs)[0]
    return prepared(
        forward,
        packed(problem),
        xs,
        kind,
        lambda grads: unpacked(problem.cell, grads),
        outputs=lambda ys: np.swapaxes(np.asarray(ys), 0, 1),
    )


def packed(problem: Problem) -> list[np.ndarray]:
    """Ours in its order; a GRU has a second bias, at U h."""
    names, order = GATES[problem.cell], ORDER[problem.cell]
    W, U, b = (join(split(array, names), order) for array in problem.weights[:3])
    if problem.inner_bias is None:
        return [W, U, b]
    inner = {"r": 0 * problem.inner_bias, "z": 0 * problem.inner_bias, "n": problem.inner_bias}
    return [W, U, np.stack([b, join(inner, order)])]


def unpacked(cell: str, grads: list[np.ndarray]) -> list[np.ndarray]:
    """Gradients back in our order."""
    names, order = GATES[cell], ORDER[cell]
    W, U, b = grads
    biases = [b] if cell != "GRU" else [b[0]]
    found = [join(split(array, order), names) for array in (W, U, *biases)]
    return found if cell != "GRU" else [*found, split(b[1], order)["n"]]
