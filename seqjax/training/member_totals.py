"""The metrics of many trainings at once."""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from seqjax.training.totals import Record


class MemberTotals:
    """What a sweep has seen: seconds, and each training's metrics since the last line of the log."""

    def __init__(self, members: int, facts: dict[str, Any] | None = None) -> None:
        """At the start, or where `facts` of an earlier one says."""
        facts = facts or {"totals": {}, "seconds": 0.0}
        self._totals = {
            name: np.asarray(pair, np.float64) for name, pair in facts["totals"].items()
        }
        self._newest: dict[str, np.ndarray] = {}
        self._members = members
        self._start = time.monotonic() - facts["seconds"]

    def facts(self) -> dict[str, Any]:
        """What a later one needs to go on from here; JSON values."""
        totals = {name: pair.tolist() for name, pair in self._totals.items()}
        return {"totals": totals, "seconds": time.monotonic() - self._start}

    def add(self, members: np.ndarray, sums: dict[str, np.ndarray]) -> None:
        """Count the metrics of one batch, [2, members] each: totals and counts."""
        for name, pair in sums.items():
            whole = self._totals.setdefault(name, np.zeros((2, self._members)))
            whole[:, members] += pair
            newest = self._newest.setdefault(name, np.zeros((2, self._members)))
            newest[:, members] = pair

    def record(self, step: int) -> Record:
        """A line of the log: the means since the last one."""
        means = {f"train/{name}": ratios(pair).tolist() for name, pair in self._totals.items()}
        self._totals = {}
        return self.stamped(step) | means

    def stamped(self, step: int) -> Record:
        """The beginning of a line of the log."""
        return {"step": step, "seconds": round(time.monotonic() - self._start, 3)}

    def gathered(
        self, places: Sequence[np.ndarray], found: Sequence[dict[str, np.ndarray]]
    ) -> Record:
        """Scalars of all members, from those of groups of them, which are at `places`."""
        values: dict[str, np.ndarray] = {}
        for members, scalars in zip(places, found, strict=True):
            for name, of_group in scalars.items():
                values.setdefault(name, np.full(self._members, np.nan))[members] = of_group
        return {name: of_all.tolist() for name, of_all in values.items()}

    def line(self) -> str:
        """The newest loss of the best, and how many have diverged: for a person."""
        name = "nats" if "nats" in self._newest else "loss"
        values = ratios(self._newest[name])
        finite = values[np.isfinite(values)]
        parts = [f"{values.size - finite.size} of {values.size} diverged"]
        if finite.size:
            parts.insert(
                0, f"{name} {finite.min():.3f} at best, {np.median(finite):.3f} in the middle"
            )
        return "  ".join(parts)


def ratios(pair: np.ndarray) -> np.ndarray:
    """Totals by counts; NaN where nothing was counted."""
    total, count = pair
    return np.divide(total, count, out=np.full_like(total, np.nan), where=count != 0)
