"""What training carries from step to step, and the sums of what it reports."""

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Int, Key

from seqjax.gradients import Metrics, UpdateFn
from seqjax.optim import statistics


class TrainState(NamedTuple):
    """Everything that one training step reads and writes.

    carry: the recurrent state that crosses windows, or None.
    step: how many batches have been trained on.
    key: the key of the whole run; step n draws from `fold_in(key, n)`, so that a resumed run draws
        what an unbroken one would have drawn.
    """

    params: Any
    opt_state: Any
    carry: Any
    step: Int[Array, ""]
    key: Key[Array, ""]

    @classmethod
    def create(
        cls, params: Any, optimizer: optax.GradientTransformation, key: Array, carry: Any = None
    ) -> "TrainState":
        """The state before the first step.

        >>> import jax, optax
        >>> state = TrainState.create({"w": jnp.ones(3)}, optax.sgd(0.1), jax.random.key(0))
        >>> int(state.step)
        0
        """
        return cls(params, optimizer.init(params), carry, jnp.zeros((), jnp.int32), key)

    def updated(self, update: UpdateFn, batch: Any) -> tuple["TrainState", Metrics]:
        """The state after one more batch, and its metrics; a pure function."""
        key = jax.random.fold_in(self.key, self.step)
        result = update(self.params, self.opt_state, self.carry, batch, key)
        params, opt_state, carry, metrics = result
        return TrainState(params, opt_state, carry, self.step + 1, self.key), metrics


def recorded(opt_state: Any) -> dict[str, np.ndarray]:
    """The numbers of `sj.optim.statistics` that an optimizer records, on the host."""
    numbers = statistics(opt_state)
    found = {} if numbers is None else jax.device_get(numbers._asdict())
    return {name: np.asarray(value) for name, value in found.items() if value is not None}


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
