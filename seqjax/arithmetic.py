"""The few numerical conventions that every cell shares: accumulation, bias, choice along the batch."""

from typing import Any

import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from seqjax import checks


def compute_dtype(dtype: DTypeLike | None, param_dtype: DTypeLike) -> DTypeLike:
    """The dtype that matmuls run in: `dtype`, or that of the parameters where it is None."""
    return param_dtype if dtype is None else dtype


def accumulator(dtype: DTypeLike) -> Any:
    """The dtype of states and sums: `dtype`, but never narrower than float32."""
    return jnp.dtype(dtype) if jnp.dtype(dtype).itemsize >= 4 else jnp.dtype(jnp.float32)


def matmul(
    x: Float[Array, "*batch rows"], kernel: Float[Array, "rows columns"], dtype: DTypeLike
) -> Float[Array, "*batch columns"]:
    """`x @ kernel` with operands in `dtype`, summed and returned in at least float32."""
    return jnp.matmul(
        x.astype(dtype), kernel.astype(dtype), preferred_element_type=accumulator(dtype)
    )


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


def where_rows(condition: Bool[Array, "*batch"], a: Array, b: Array) -> Array:
    """`jnp.where` with one condition for each row: `a` and `b` are [*batch, ...]."""
    extra = (1,) * (a.ndim - condition.ndim)
    return jnp.where(jnp.broadcast_to(condition.reshape(condition.shape + extra), a.shape), a, b)


def scale_kept(x: Array, kept: Bool[Array, "..."], rate: float) -> Array:
    """X / (1 - rate) where `kept`, zero elsewhere; `kept` repeats over leading axes of `x`."""
    kept = jnp.broadcast_to(kept.reshape((1,) * (x.ndim - kept.ndim) + kept.shape), x.shape)
    return jnp.where(kept, x / (1 - rate), jnp.zeros_like(x))
