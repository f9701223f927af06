"""Ours: `sj.unroll`, with its defaults or with another `remat`."""

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


def prepare(problem: Problem, kind: str, remat: Any = "auto") -> Prepared:
    """A layer, or its gradient, under jit."""
    make, params = CELLS[problem.cell]
    cell = make(problem.features)
    forward = lambda params, xs: sj.unroll(cell, params, xs, remat=remat)[1]
    weights = params(*map(jnp.asarray, problem.weights))
    return prepared(
        forward, weights, problem.xs, kind, lambda found: [a for a in found if a is not None]
    )
