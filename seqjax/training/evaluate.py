"""A loss over data that is only looked at."""

import functools
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np

from seqjax.gradients import Loss, Metrics


class Totals:
    """Sums of `Mean`s over batches, on the host in float64; exact for counts."""

    def __init__(self, totals: dict[str, tuple[float, float]] | None = None) -> None:
        """Empty, or as `totals` was read from another."""
        self.totals = {name: (a, b) for name, (a, b) in (totals or {}).items()}

    def add(self, metrics: Metrics) -> None:
        """Add each metric; axes (one entry for each update) are summed."""
        for name, mean in metrics.items():
            total, count = self.totals.get(name, (0.0, 0.0))
            total += float(np.sum(np.asarray(mean.total, np.float64)))
            count += float(np.sum(np.asarray(mean.count, np.float64)))
            self.totals[name] = (total, count)

    def values(self) -> dict[str, float]:
        """The mean of each metric so far; NaN where nothing was counted."""
        return {
            name: total / count if count else float("nan")
            for name, (total, count) in self.totals.items()
        }

    def count(self) -> float:
        """The largest count of any metric: the tokens (or examples) seen."""
        return max((count for _, count in self.totals.values()), default=0.0)


@functools.partial(jax.jit, static_argnames="loss")
def _metrics(loss, params, carry, batch):
    _, (carry, metrics) = loss(params, carry, batch, None)
    return carry, metrics


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
        raise ValueError("evaluate: batches is empty, or the loss reports no metrics")
    return totals.values()
