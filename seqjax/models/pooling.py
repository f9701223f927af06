"""One vector for a whole sequence, from the outputs of its real steps."""

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from seqjax.cell import Cell
from seqjax.numerics import where_rows

POOLS = ("last", "mean", "max")


def pooled_features(pool: str, cell: Cell) -> int:
    """The width of `pooled_outputs`."""
    return cell.out_features * (1 if cell.causal or pool != "last" else 2)


def pooled_outputs(
    pool: str,
    cell: Cell,
    ys: Float[Array, "time *batch features"],
    lengths: ArrayLike | None = None,
) -> Float[Array, "*batch pooled"]:
    """y_T, Σ y_t / T, or max_t y_t entry by entry, over the real steps t = 1 … T.

    "last" of a cell that reads the future too is [y_T, y_1], where each direction has read all.

    ys: as `sj.unroll` gives them with these lengths, 0 at the padding. lengths: int[*batch], None where
    all steps are real. A sequence without steps gives 0.
    """
    time, batch_shape = ys.shape[0], ys.shape[1:-1]
    lengths = jnp.full(batch_shape, time) if lengths is None else jnp.asarray(lengths)
    some = lengths > 0
    if time == 0:
        return jnp.zeros((*batch_shape, pooled_features(pool, cell)), ys.dtype)
    if pool == "last":
        ends = last_step(ys, lengths)
        pooled = ends if cell.causal else jnp.concatenate([ends, ys[0]], axis=-1)
    elif pool == "mean":
        count = jnp.clip(lengths, 1, time)[..., None].astype(ys.dtype)
        pooled = jnp.sum(ys, axis=0) / jnp.broadcast_to(count, ys.shape[1:])
    else:
        steps = jnp.arange(time).reshape(time, *(1,) * len(batch_shape))
        real = jnp.broadcast_to(steps, (time, *batch_shape)) < lengths[None]
        pooled = jnp.max(where_rows(real, ys, jnp.full_like(ys, -jnp.inf)), axis=0)
    return where_rows(some, pooled, jnp.zeros_like(pooled))


def last_step(
    ys: Float[Array, "time *batch features"], lengths: ArrayLike | None = None
) -> Float[Array, "*batch features"]:
    """Y at the last real step, the first where there is none; `ys` has at least one step."""
    if lengths is None:
        return ys[-1]
    last = jnp.clip(jnp.asarray(lengths) - 1, 0, ys.shape[0] - 1)[None, ..., None]
    return jnp.take_along_axis(ys, jnp.broadcast_to(last, (1, *ys.shape[1:])), axis=0)[0]
