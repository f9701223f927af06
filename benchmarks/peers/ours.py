"""Ours: `sj.unroll`, with its defaults or in another way."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

import seqjax as sj
from benchmarks.peers.on_jax import prepared
from benchmarks.peers.problem import Prepared, Problem
from seqjax.cells.elman import ElmanParams
from seqjax.cells.gru import GRUParams
from seqjax.cells.lstm import LSTMParams

CELLS: dict[str, tuple[Any, Any]] = {
    "LSTM": (sj.LSTM, LSTMParams),
    "GRU": (sj.GRU, GRUParams),
    "Elman": (sj.Elman, ElmanParams),
}


WAYS: dict[str, dict[str, Any]] = {
    "ours": {},
    "ours, state": {"remat": "state"},
    "ours, scan": {"engine": "scan"},
}
"""Of how it runs; the others are set beside the first."""


def prepare(problem: Problem, kind: str, way: str = "ours") -> Prepared:
    """A layer, or its gradient, under jit."""
    forward, weights = layer(problem, way)
    return prepared(
        forward, weights, problem.xs, kind, lambda found: [a for a in found if a is not None]
    )


def layer(
    problem: Problem, way: str = "ours", dtype: Any = None
) -> tuple[Callable[[Any, Any], Any], Any]:
    """`forward(params, xs) -> ys`, and params; the matmuls of the cell in `dtype`."""
    make, params = CELLS[problem.cell]
    cell = make(problem.features, dtype=dtype)
    forward = lambda params, xs: sj.unroll(cell, params, xs, **WAYS[way])[1]
    return forward, params(*map(jnp.asarray, problem.weights))
