"""Sums of metrics over batches, and what a run has seen so far."""

import time
from typing import Any

import jax
import numpy as np

from seqjax.gradients import Metrics
from seqjax.optim import statistics
from seqjax.training.display import describe

Record = dict[str, Any]


class Totals:
    """Sums of `Mean`s over batches, on the host in float64, where counts are exact."""

    def __init__(self, totals: dict[str, tuple[float, float]] | None = None) -> None:
        """Empty, or what `totals` of another was."""
        self.totals = {name: (a, b) for name, (a, b) in (totals or {}).items()}

    def add(self, metrics: Metrics) -> None:
        """Add each metric; its axes (one entry for each update) are summed."""
        for name, mean in metrics.items():
            total, count = self.totals.get(name, (0.0, 0.0))
            total += float(np.sum(np.asarray(mean.total, np.float64)))
            count += float(np.sum(np.asarray(mean.count, np.float64)))
            self.totals[name] = (total, count)

    def means(self) -> dict[str, float]:
        """The mean of each metric; NaN where nothing was counted."""
        return {
            name: total / count if count else float("nan")
            for name, (total, count) in self.totals.items()
        }

    def count(self) -> float:
        """The largest count of any metric: the tokens, or the examples."""
        return max((count for _, count in self.totals.values()), default=0.0)


class Progress:
    """What a run has seen: tokens, seconds, and the metrics since the last line of its log."""

    def __init__(self, facts: dict[str, Any] | None = None) -> None:
        """At the start, or where `facts` of an earlier one says."""
        facts = facts or {"totals": {}, "tokens": 0.0, "seconds": 0.0}
        self.tokens = facts["tokens"]
        self._totals = Totals(facts["totals"])
        self._newest = Totals()
        self._start = time.monotonic() - facts["seconds"]
        self._rate_from = (self.seconds, self.tokens)

    def facts(self) -> dict[str, Any]:
        """What a later one needs to go on from here; JSON values."""
        return {"totals": self._totals.totals, "tokens": self.tokens, "seconds": self.seconds}

    @property
    def seconds(self) -> float:
        """Seconds of the run, those before a resume included."""
        return time.monotonic() - self._start

    def add(self, metrics: Metrics) -> None:
        """Count the metrics of one batch."""
        self._newest = Totals()
        self._newest.add(metrics)
        self._totals.add(metrics)
        self.tokens += self._newest.count()

    def record(self, step: int, opt_state: Any) -> Record:
        """A line of the log: the means since the last one, and what the optimizer counted."""
        means = {f"train/{name}": value for name, value in self._totals.means().items()}
        self._totals = Totals()
        start = {"step": step, "seconds": round(self.seconds, 3), "tokens": self.tokens}
        return start | means | clipping(opt_state)

    def line(self, opt_state: Any) -> str:
        """The newest metrics, targets a second, how often clipped: for a person.

        A target is what one number of the loss is of: a token, or the class of a whole sequence.
        """
        seconds, tokens = self._rate_from
        rate = (self.tokens - tokens) / max(self.seconds - seconds, 1e-9)
        if self.seconds - seconds > 5:
            self._rate_from = (self.seconds, self.tokens)
        means = self._newest.means()
        main = {name: means.pop(name) for name in ("nats", "loss") if name in means}
        parts = [describe(main), f"{rate:,.0f} targets/s"]
        numbers = clipping(opt_state)
        if "clip_rate" in numbers:
            parts.append(f"clipped {numbers['clip_rate']:.0%}")
        if numbers.get("skipped"):
            parts.append(f"skipped {numbers['skipped']} non-finite")
        return "  ".join([*parts, describe(means)]).rstrip()


def clipping(opt_state: Any) -> dict[str, float]:
    """The numbers of `sj.optim.statistics` that the optimizer records, on the host."""
    numbers = statistics(opt_state)
    if numbers is None:
        return {}
    return {
        name: np.asarray(value).item()
        for name, value in jax.device_get(numbers._asdict()).items()
        if value is not None
    }
