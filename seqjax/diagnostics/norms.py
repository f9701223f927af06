"""Norms of what may be very large or very small: the matter of this package."""

import jax.numpy as jnp
from jaxtyping import Array

from seqjax.arithmetic import accumulator


def norm(x: Array, axes: int | tuple[int, ...] | None = None) -> Array:
    """√Σ x² over `axes`, all of them by default, in at least float32.

    The largest entry is taken out of the root: squares of float32 overflow from 2⁶⁴ on and vanish below
    2⁻⁷⁵, and a gradient that explodes or vanishes soon comes there.
    """
    x = jnp.abs(x).astype(accumulator(x.dtype))
    largest = jnp.max(x, axis=axes, keepdims=True, initial=0)
    scale = jnp.where((largest > 0) & jnp.isfinite(largest), largest, 1)
    sums = jnp.sum(jnp.square(x / jnp.broadcast_to(scale, x.shape)), axis=axes)
    return scale.reshape(sums.shape) * jnp.sqrt(sums)
