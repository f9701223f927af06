"""A loss over data that is only looked at."""

import functools
from collections.abc import Iterable
from typing import Any

import jax

from seqjax.gradients import Loss, with_loss
from seqjax.training.totals import Totals


def evaluate(loss: Loss, params: Any, carry: Any, batches: Iterable[Any]) -> dict[str, float]:
    """The metrics of the loss over all batches, each the mean over all its real tokens.

    The carry of one batch enters the next; the key is None, so nothing is random. `loss` is a static
    argument: a function, or a method of a frozen dataclass, such as `model.loss`.

    Raises a ValueError where there is no batch.
    """
    totals = Totals()
    for batch in batches:
        carry, metrics = _metrics(loss, params, carry, batch)
        totals.add(metrics)
    if not totals.totals:
        raise ValueError("evaluate: batches is empty")
    return totals.means()


@functools.partial(jax.jit, static_argnames="loss")
def _metrics(loss, params, carry, batch):
    value, (carry, metrics) = loss(params, carry, batch, None)
    return carry, with_loss(value, metrics)
