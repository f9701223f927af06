"""The few numerical conventions that every cell shares: accumulation, bias, choice along the batch."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_batching import sequential_vmap
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from seqjax import checks


def compute_dtype(of: Any) -> DTypeLike:
    """The dtype that the matmuls of a cell or model run in, and that its outputs have.

    Its `dtype`, or its `param_dtype` where that is None.
    """
    return of.param_dtype if of.dtype is None else of.dtype


def state_dtype(of: Any) -> Any:
    """The dtype of states: the compute dtype, but never narrower than float32."""
    return accumulator(compute_dtype(of))


def accumulator(dtype: DTypeLike) -> Any:
    """The dtype of states and sums: `dtype`, but never narrower than float32."""
    return jnp.dtype(dtype) if jnp.dtype(dtype).itemsize >= 4 else jnp.dtype(jnp.float32)


def widened(tree: Any) -> tuple[Any, Callable[[Any], Any]]:
    """`tree` with its narrow floats in float32, and the function that makes them narrow again.

    Weights that a loop over time closes over have the gradients of all steps added up in their own
    dtype, and bfloat16 adds nothing to 256 but what is at least 1. Widened outside the loop and made
    narrow inside, they have the same values, and gradients that are added up in float32.
    """
    tree = jax.tree.map(jnp.asarray, tree)
    dtypes = jax.tree.map(lambda leaf: leaf.dtype, tree)

    def wide(leaf: Array) -> Array:
        is_float = jnp.issubdtype(leaf.dtype, jnp.inexact)
        return leaf.astype(accumulator(leaf.dtype)) if is_float else leaf

    def narrow(wide: Any) -> Any:
        return jax.tree.map(lambda leaf, dtype: leaf.astype(dtype), wide, dtypes)

    return jax.tree.map(wide, tree), narrow


def matmul(
    x: Float[Array, "*batch rows"], kernel: Float[Array, "rows columns"], dtype: DTypeLike
) -> Float[Array, "*batch columns"]:
    """`x @ kernel` with operands in `dtype`, summed and returned in at least float32."""
    return jnp.matmul(
        x.astype(dtype), kernel.astype(dtype), preferred_element_type=accumulator(dtype)
    )


def recurrent_matmul(
    x: Float[Array, "*batch rows"], kernel: Array
) -> Float[Array, "*batch columns"]:
    """R = x @ U with operands in the dtype of U, summed and returned in at least float32.

    kernel: U [rows, gates · features], or one matrix for each head, [heads, rows, gates, features] of
    that head: r_{g,h,j} = Σ_k x_{h,k} U_{h,k,g,j}, packed gate by gate, and head by head inside each
    gate. A diagonal U has as many heads as features, each of one row.
    """
    if kernel.ndim == 2:
        return matmul(x, kernel, kernel.dtype)
    heads, rows, gates, columns = kernel.shape
    batch_shape, wide = x.shape[:-1], accumulator(kernel.dtype)
    x = x.astype(kernel.dtype)
    if rows == columns == 1:  # a product of rows: matmuls of one by one would be far slower
        x = jnp.broadcast_to(x[..., None, :], (*batch_shape, gates, heads)).astype(wide)
        r = x * jnp.broadcast_to(kernel[:, 0, :, 0].T.astype(wide), x.shape)
    else:
        x = x.reshape(*batch_shape, heads, rows)
        r = jnp.einsum("...hk,hkgj->...ghj", x, kernel, preferred_element_type=wide)
    return r.reshape(*batch_shape, gates * heads * columns)


def affine(
    name: str, x: Array, kernel: Array, bias: Array, dtype: DTypeLike
) -> Float[Array, "*batch columns"]:
    """`x @ kernel + bias`; a ValueError that names `name` where x has another width than kernel."""
    checks.trailing(name, x, kernel.shape[0])
    return add_vector(matmul(x, kernel, dtype), bias)


def add_vector(
    x: Float[Array, "*batch features"], vector: Float[Array, " features"]
) -> Float[Array, "*batch features"]:
    """`x + vector` with the vector repeated over the batch, in the dtype of `x`."""
    return x + jnp.broadcast_to(vector.astype(x.dtype), x.shape)


def one_by_one(function: Callable[[Array], Any]) -> Callable[[Array], Any]:
    """`function`, a decomposition of one matrix, that `vmap` runs for one after another.

    On a CPU a decomposition of many matrices at once gives them to the threads that run the program, and
    waits for them on one of these: two such at the same time wait for ever (seen in jaxlib 0.10.2).
    """
    return sequential_vmap(lambda matrix: function(matrix))


def where_rows(condition: Bool[Array, "*batch"], a: Array, b: Array) -> Array:
    """`jnp.where` with one condition for each row: `a` and `b` are [*batch, ...]."""
    extra = (1,) * (a.ndim - condition.ndim)
    return jnp.where(jnp.broadcast_to(condition.reshape(condition.shape + extra), a.shape), a, b)


def scale_kept(x: Array, kept: Bool[Array, "..."], rate: float) -> Array:
    """X / (1 - rate) where `kept`, zero elsewhere; `kept` repeats over leading axes of `x`."""
    kept = jnp.broadcast_to(kept.reshape((1,) * (x.ndim - kept.ndim) + kept.shape), x.shape)
    return jnp.where(kept, x / (1 - float(rate)), jnp.zeros_like(x))
