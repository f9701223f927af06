"""Sums of metrics, and a loss over data that is only looked at."""

import functools
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import jax
import numpy as np

from seqjax.gradients import Loss, Metrics, with_loss

Record: TypeAlias = dict[str, Any]
"""A line of the log: numbers by name; in a sweep lists of them, one for each setting."""


class Totals:
    """Sums of `Mean`s over batches, on the host in float64, where counts are exact.

    totals: for each metric its total and its count, two numbers, or [2, settings] in a sweep.
    """

    def __init__(self, totals: Mapping[str, Any] | None = None) -> None:
        """Start empty, or from `totals` of another."""
        self.totals = {n: np.asarray(pair, np.float64) for n, pair in (totals or {}).items()}

    def add(self, metrics: Metrics) -> None:
        """Add each metric, summed over its axes (one entry for each update)."""
        pairs = {
            n: [np.sum(np.asarray(m, np.float64)) for m in mean] for n, mean in metrics.items()
        }
        self.merge(Totals(pairs))

    def merge(self, other: "Totals") -> None:
        """Add what another has summed."""
        for name, pair in other.totals.items():
            self.totals[name] = self.totals.get(name, 0.0) + pair

    def means(self) -> dict[str, Any]:
        """The mean of each metric, a number or a list of them; NaN where nothing was counted."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return {n: np.divide(*pair).tolist() for n, pair in self.totals.items()}

    def count(self) -> float:
        """The largest count of any metric: the tokens, or the examples."""
        return max((float(np.max(pair[1])) for pair in self.totals.values()), default=0.0)


def evaluate(loss: Loss, params: Any, carry: Any, batches: Iterable[Any]) -> dict[str, float]:
    """The metrics of a loss over all batches, each the mean over all valid tokens.

    The carry of one batch enters the next; the key is None, so nothing is random. `loss` is a static
    argument: a function, or a method of a frozen dataclass, such as `model.loss`.

    Raises a ValueError for no batches.
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
