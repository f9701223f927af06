"""What models share: a run over a batch, real steps, pooling, and the loss of a choice."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int

from seqjax import checks, losses
from seqjax.cell import Cell
from seqjax.engines import unroll
from seqjax.gradients import Metrics
from seqjax.numerics import where_rows
from seqjax.plan import length_mask

POOLS = ("last", "mean", "max")


def check_predictor(model: str, argument: str, cell: Cell) -> None:
    """Validate a cell that predicts what it reads next, and so must not read it before."""
    checks.instance(f"{model}: {argument}", cell, Cell)
    if not cell.causal:
        raise ValueError(
            f"{model}: {argument} is {cell!r}, whose outputs read what is to be predicted; "
            "expected a cell without Bidirectional"
        )


def real_steps(
    name: str, lengths: ArrayLike | None, shape: tuple[int, ...]
) -> Bool[Array, "time *batch"]:
    """Return True at the steps inside each length, of `shape` [time, *batch]; everywhere for None."""
    if lengths is None:
        return jnp.ones(shape, jnp.bool_)
    ends = checks.array(name, lengths)
    if ends.shape != shape[1:] or not jnp.issubdtype(ends.dtype, jnp.integer):
        raise ValueError(
            f"{name}: got {ends.dtype}{list(ends.shape)}; expected int[*batch], {list(shape[1:])}"
        )
    return length_mask(ends, shape[0])


def outputs(
    model: Any, params: Any, inputs: Any, lengths: ArrayLike | None, key: Array | None
) -> tuple[Cell, Float[Array, "time *batch features"], Array | None]:
    """The cell that has run, its outputs, and the key for what is dropped of them.

    model: with the fields inputs, cell and remat, and params with the first two.
    Without a key nothing is: neither of the inputs, nor in the cell, nor after it.
    """
    cell = model.cell if key is not None else model.cell.deterministic()
    keys = (None, None, None) if key is None else jax.random.split(key, 3)
    xs = model.inputs.apply(params.inputs, inputs, keys[0])
    _, ys = unroll(cell, params.cell, xs, key=keys[1], lengths=lengths, remat=model.remat)
    return cell, ys, keys[2]


def choice(
    logits: Float[Array, "*any classes"],
    targets: Int[Array, "*any"],
    real: Bool[Array, "*any"],
    label_smoothing: float,
) -> tuple[Float[Array, ""], Metrics]:
    """-mean log p(target), smoothed, over what is real; "nats", the same unsmoothed, and "accuracy"."""
    smoothed = losses.cross_entropy(logits, targets, mask=real, label_smoothing=label_smoothing)
    nats = losses.token_cross_entropy(logits, targets, mask=real)
    right = losses.token_accuracy(logits, targets, mask=real)
    metrics = {"nats": losses.mean_over(nats, real), "accuracy": losses.mean_over(right, real)}
    return smoothed, metrics


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
        real = length_mask(lengths, time)
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
