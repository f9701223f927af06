"""What the models over `Padded` batches share: the run of the cell, and the loss of a choice."""

from typing import Any

import jax
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int

from seqjax import losses
from seqjax.cell import Cell
from seqjax.engines import unroll
from seqjax.gradients import Metrics


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
