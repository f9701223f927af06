"""Flax, nnx: `nnx.RNN` around a cell, split into weights and the rest, merged inside jit.

So its guide to performance has it: `nnx.jit` itself costs about a millisecond of Python a call, which is
more than a small layer. Its GRUCell has no bias beside U, so that c_n is 0 there.
"""

from typing import Any

import numpy as np
from flax import nnx

from benchmarks.peers.on_jax import prepared
from benchmarks.peers.problem import Prepared, Problem

CELLS: dict[str, Any] = {
    "LSTM": nnx.OptimizedLSTMCell,
    "GRU": nnx.GRUCell,
    "Elman": nnx.SimpleCell,
}


def prepare(problem: Problem, kind: str) -> Prepared:
    """A layer, or its gradient, under jit."""
    cell = CELLS[problem.cell](problem.xs.shape[-1], problem.features, rngs=nnx.Rngs(0))
    graph, params, rest = nnx.split(nnx.RNN(cell, time_major=True), nnx.Param, ...)
    beside = "dense_h" if problem.cell == "LSTM" else "dense_i"  # where the bias is
    W, U, b = problem.weights[:3]
    values: dict[str, Any] = {"dense_i": {"kernel": W}, "dense_h": {"kernel": U}}
    values[beside]["bias"] = b
    nnx.replace_by_pure_dict(params, {"cell": values})

    def weights(grads: Any) -> list[np.ndarray]:
        found = nnx.to_pure_dict(grads)["cell"]
        return [found["dense_i"]["kernel"], found["dense_h"]["kernel"], found[beside]["bias"]]

    # Copied, as the layer counts the keys that it draws for its first state, of zeros.
    forward = lambda params, xs: nnx.merge(graph, params, rest, copy=True)(xs)
    return prepared(forward, params, problem.xs, kind, weights)
