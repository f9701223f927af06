"""Which steps are real."""

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool

from seqjax import checks


def real_steps(
    name: str, shape: tuple[int, ...], lengths: ArrayLike | None
) -> Bool[Array, "time *batch"]:
    """True at the steps inside each length, of `shape` [time, *batch]; everywhere for None."""
    if lengths is None:
        return jnp.ones(shape, jnp.bool_)
    ends = checks.array(name, lengths)
    if ends.shape != shape[1:] or not jnp.issubdtype(ends.dtype, jnp.integer):
        raise ValueError(
            f"{name}: got {ends.dtype}{list(ends.shape)}; expected int[*batch], {list(shape[1:])}"
        )
    # Narrow lengths could not be compared with the steps, which would wrap.
    ends = ends if ends.dtype.itemsize >= 4 else ends.astype(jnp.int32)
    steps = jnp.arange(shape[0], dtype=ends.dtype).reshape(-1, *(1,) * ends.ndim)
    return jnp.broadcast_to(steps, shape) < jnp.broadcast_to(ends[None], shape)
