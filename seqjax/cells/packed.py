"""Initial values of packed gates: kernels that stand side by side, each drawn by itself."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from seqjax import checks
from seqjax.initializers import Chrono, Initializer, draw_gates

Rule = Initializer | str | float


def draw_kernels(
    cell: Any, key: Array, in_features: int, biases: Sequence[Rule], rows: int | None = None
) -> tuple[Array, Array, Array]:
    """W [in_features, gates · features], U [rows, gates · features] and b, a gate for each bias.

    cell: with the fields features, input_init, recurrent_init and param_dtype.
    rows: how many entries U multiplies; None is `features`.
    """
    checks.size(f"{type(cell).__name__}: in_features", in_features)
    input_key, recurrent_key, bias_key = jax.random.split(key, 3)
    gates, size, dtype = len(biases), cell.features, cell.param_dtype
    return (
        draw_gates((cell.input_init,) * gates, input_key, (in_features, size), dtype),
        draw_gates((cell.recurrent_init,) * gates, recurrent_key, (rows or size, size), dtype),
        draw_gates(biases, bias_key, (size,), dtype),
    )


def oppose_input_gate(forget_bias: Rule, bias: Array, gates: int = 4) -> Array:
    """b_i = -b_f where the forget gate's bias is `Chrono`: what is kept long is written slowly.

    bias: packed i, f, …. With any other rule it is returned as it came.
    Reference: Tallec, Ollivier 2018, equation 16.
    """
    if not isinstance(forget_bias, Chrono):
        return bias
    blocks = jnp.split(bias, gates)
    return jnp.concatenate([-blocks[1], *blocks[1:]])
