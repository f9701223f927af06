"""Trainings whose settings differ in numbers alone, as one compiled program."""

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array

from seqjax import checks
from seqjax.gradients import Loss, Method, Metrics
from seqjax.training.state import TrainState, recorded

Setting: TypeAlias = Mapping[str, Any]
"""The hyperparameters of one training, by name."""

Build: TypeAlias = Callable[[Setting], tuple[Loss, optax.GradientTransformation, TrainState]]
"""What is trained under a setting: the first three arguments of `fit`."""

Evaluate: TypeAlias = Callable[[Setting, Any], Mapping[str, Array]]
"""Scalars from a setting and the params that were trained under it; traced, so without side effects."""

Across: TypeAlias = Literal["vmap", "map"]


class Members:
    """Settings that differ in numbers alone, and the programs that train them together.

    indices: which of all settings these are. fixed: the values that all share.
    state: the states of all, after `begin`; a leading axis in every leaf.
    """

    def __init__(
        self,
        build: Build,
        settings: Sequence[Setting],
        indices: Sequence[int],
        fixed: Sequence[str],
        *,
        method: Method,
        evaluate: Evaluate | None,
        across: Across,
    ) -> None:
        """Nothing is compiled before it is called."""
        self.state: Any = None
        own = [settings[index] for index in indices]
        self.indices = np.asarray(indices)
        self.fixed = {name: own[0][name] for name in fixed}
        self.varied = [name for name in own[0] if name not in self.fixed]
        self._build, self._method, self._evaluate = build, method, evaluate
        self._mesh = Mesh(np.asarray(jax.local_devices()), ("members",))
        # As many on each device: the last one is trained again where they do not come out even.
        padded = [*own, *own[-1:] * (-len(own) % self._mesh.size)]
        numbers = {name: jnp.asarray([s[name] for s in padded]) for name in self.varied}
        sharding = NamedSharding(self._mesh, PartitionSpec("members"))
        self._numbers = jax.device_put(numbers, sharding)
        over = functools.partial(_over_members, self._mesh, across)
        self._init = jax.jit(over(lambda numbers: self._built(numbers)[2], shared=0))
        self._update = jax.jit(over(self._update_one, shared=1), donate_argnums=1)
        self._scores = jax.jit(over(self._evaluate_one, shared=0))

    def begin(self) -> None:
        """Draw the states before the first step."""
        self.state = self._init(self._numbers)

    def update(self, batch: Any) -> dict[str, np.ndarray]:
        """One step of each on the same batch; total and count of its metrics, [2, members]."""
        self.state, metrics = self._update(self._numbers, self.state, batch)
        sums = jax.device_get(metrics)  # waits: at most one program is ever in flight
        return {name: np.stack([*map(self._summed, mean)]) for name, mean in sums.items()}

    def evaluate(self) -> dict[str, np.ndarray]:
        """The scalars of each member, [members], in the order in which `evaluate` returns them."""
        if self._evaluate is None:
            return {}
        found = jax.device_get(self._scores(self._numbers, self.state.params))
        return {name: self._summed(found[name]) for name in self._names}

    def statistics(self) -> dict[str, np.ndarray]:
        """What the optimizer of each records by `sj.optim.statistics`, [members]."""
        return {name: self._summed(value) for name, value in recorded(self.state.opt_state).items()}

    def _summed(self, values: Any) -> np.ndarray:
        """[members] in float64, over the updates of a step where there are several."""
        values = np.asarray(values, np.float64)[: len(self.indices)]
        return values.reshape(len(values), -1).sum(axis=1)

    def _built(self, numbers: Setting) -> tuple[Loss, optax.GradientTransformation, TrainState]:
        """What `build` gives for numbers that are traced."""
        try:
            loss, optimizer, state = self._build({**self.fixed, **numbers})
        except (ValueError, TypeError) as error:
            if "Trace" not in str(error) and not isinstance(error, jax.errors.JAXTypeError):
                raise
            raise ValueError(
                f"sweep: build needs a number itself where {', '.join(self.varied)} are arrays that "
                "one program is compiled for; expected those that enter a shape or a field of a cell, "
                f"as a width or a rate of dropout does, by name in static ({error})"
            ) from error
        checks.instance("sweep: the state that build gives", state, TrainState)
        return loss, optimizer, state

    def _update_one(
        self, numbers: Setting, state: TrainState, batch: Any
    ) -> tuple[TrainState, Metrics]:
        loss, optimizer, _ = self._built(numbers)
        return state.updated(self._method.update(loss, optimizer), batch)

    def _evaluate_one(self, numbers: Setting, params: Any) -> dict[str, Array]:
        assert self._evaluate is not None
        found = self._evaluate({**self.fixed, **numbers}, params)
        self._names = tuple(found)  # a compiled program returns them sorted
        return {name: checks.scalar(f"sweep: evaluate: {name}", v) for name, v in found.items()}


def _over_members(mesh: Mesh, across: Across, function: Callable, *, shared: int) -> Callable:
    """`function` of each member side by side; its last `shared` arguments are the same for all.

    Each of several devices has its part of the members, and none waits for another.
    """

    def side_by_side(*arguments: Any) -> Any:
        cut = len(arguments) - shared
        one = lambda own: function(*own, *arguments[cut:])
        return jax.vmap(one)(arguments[:cut]) if across == "vmap" else lax.map(one, arguments[:cut])

    def on_all(*arguments: Any) -> Any:
        specs = [PartitionSpec("members")] * len(arguments)
        specs[len(arguments) - shared :] = [PartitionSpec()] * shared
        run = jax.shard_map(
            side_by_side, mesh=mesh, in_specs=tuple(specs), out_specs=specs[0], check_vma=False
        )
        return run(*arguments)

    return side_by_side if mesh.size == 1 else on_all


def grouped(
    settings: Sequence[Setting], static: Sequence[str]
) -> list[tuple[list[int], list[str]]]:
    """The settings that one program can train, as (indices, the names of what they share).

    Numbers are arrays of a program, but for those named in `static`; all else is fixed.
    """
    fixed = [
        name
        for name in settings[0]
        if name in static or not all(checks.is_number(setting[name]) for setting in settings)
    ]
    groups: dict[Any, list[int]] = {}
    for index, setting in enumerate(settings):
        # With its type, as True == 1 == 1.0.
        key = tuple((type(setting[name]), setting[name]) for name in fixed)
        try:
            groups.setdefault(key, []).append(index)
        except TypeError as error:
            raise ValueError(
                f"sweep: settings[{index}]: expected numbers, and values that can be hashed, for "
                f"{', '.join(fixed)}; got {[setting[name] for name in fixed]} ({error})"
            ) from error
    return [(indices, fixed) for indices in groups.values()]


def grid(**axes: Sequence[Any]) -> list[dict[str, Any]]:
    """Every combination of the values of all axes; the last axis varies fastest.

    Raises a ValueError for an axis without values.

    >>> for setting in grid(learning_rate=[0.1, 0.01], seed=range(2)):
    ...     print(setting)
    {'learning_rate': 0.1, 'seed': 0}
    {'learning_rate': 0.1, 'seed': 1}
    {'learning_rate': 0.01, 'seed': 0}
    {'learning_rate': 0.01, 'seed': 1}
    """
    for name, values in axes.items():
        if not len(values):
            raise ValueError(f"grid: {name}: expected at least one value, got {values!r}")
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
