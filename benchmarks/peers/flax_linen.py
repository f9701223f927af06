"""Flax, linen: `nn.RNN` around a cell, `apply` under jit."""

from typing import Any

import numpy as np
from flax import linen as nn

from benchmarks.peers.on_jax import prepared
from benchmarks.peers.problem import GATES, Prepared, Problem, join, split

CELLS: dict[str, Any] = {
    "LSTM": nn.OptimizedLSTMCell,
    "GRU": nn.GRUCell,
    "Elman": nn.SimpleCell,
}


def prepare(problem: Problem, kind: str) -> Prepared:
    """A layer, or its gradient, under jit."""
    layer = nn.RNN(CELLS[problem.cell](problem.features), time_major=True)
    weights = lambda found: packed(problem.cell, found["params"]["cell"])
    params = {"params": {"cell": unpacked(problem)}}
    return prepared(layer.apply, params, problem.xs, kind, weights)


def unpacked(problem: Problem) -> dict[str, Any]:
    """A dense layer for each gate, `i_` of x and `h_` of h; the bias of an LSTM stands beside U."""
    names = GATES[problem.cell]
    beside = "h" if problem.cell == "LSTM" else "i"
    params: dict[str, Any] = {}
    for where, kernel in (("i", problem.input_kernel), ("h", problem.recurrent_kernel)):
        params |= {f"{where}{gate}": {"kernel": w} for gate, w in split(kernel, names).items()}
    for gate, bias in split(problem.bias, names).items():
        params[f"{beside}{gate}"]["bias"] = bias
    if problem.inner_bias is not None:
        params["hn"]["bias"] = problem.inner_bias
    return params


def packed(cell: str, params: dict[str, Any]) -> list[np.ndarray]:
    """Gradients back in our order."""
    names, beside = GATES[cell], "h" if cell == "LSTM" else "i"
    kernels = [
        join({gate: params[f"{where}{gate}"]["kernel"] for gate in names}, names)
        for where in ("i", "h")
    ]
    bias = join({gate: params[f"{beside}{gate}"]["bias"] for gate in names}, names)
    return [*kernels, bias, *([params["hn"]["bias"]] if cell == "GRU" else [])]
