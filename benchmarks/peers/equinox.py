"""Equinox: `lax.scan` over a cell for one sequence, `vmap` over the batch; a cell is a pytree of arrays.

It has no Elman network.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.peers.on_jax import prepared
from benchmarks.peers.problem import Prepared, Problem

CELLS: dict[str, Any] = {"LSTM": eqx.nn.LSTMCell, "GRU": eqx.nn.GRUCell}


def prepare(problem: Problem, kind: str) -> Prepared:
    """A layer, or its gradient, under jit; kernels are transposed there."""
    cell = CELLS[problem.cell](problem.xs.shape[-1], problem.features, key=jax.random.key(0))
    cell = eqx.tree_at(weights_of, cell, transposed(problem.weights))
    return prepared(forward, cell, problem.xs, kind, lambda grads: transposed(weights_of(grads)))


def weights_of(cell: Any) -> list[Any]:
    """The arrays of a cell: kernels, bias, and the inner one of a GRU."""
    inner = [cell.bias_n] if isinstance(cell, eqx.nn.GRUCell) else []
    return [cell.weight_ih, cell.weight_hh, cell.bias, *inner]


def transposed(weights: list[np.ndarray]) -> list[np.ndarray]:
    """From ours to its own order, and back."""
    W, U, *biases = weights
    return [np.ascontiguousarray(W.T), np.ascontiguousarray(U.T), *biases]


def forward(cell: Any, xs: Any) -> Any:
    """All sequences; the batch stays the second axis, so that nothing is transposed."""
    return jax.vmap(lambda xs: one_sequence(cell, xs), in_axes=1, out_axes=1)(xs)


def one_sequence(cell: Any, xs: Any) -> Any:
    """All h_t, [time, features], of xs [time, inputs]."""
    is_lstm = isinstance(cell, eqx.nn.LSTMCell)

    def step(state: Any, x: Any) -> tuple[Any, Any]:
        state = cell(x, state)
        return state, state[0] if is_lstm else state

    zero = jnp.zeros(cell.hidden_size)
    return jax.lax.scan(step, (zero, zero) if is_lstm else zero, xs)[1]
