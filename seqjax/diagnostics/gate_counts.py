"""How often gates are open or shut, how often tanh saturates, and how long the gates keep a memory."""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Key

from seqjax.cell import Cell, Params, State, gates_of, leaves, run_layers
from seqjax.diagnostics.trajectory import check_not_empty, finite_walk
from seqjax.plan import Plan

BINS = 20
"""Bins of a histogram: a tenth of the range of a gate is two bins, a twentieth of tanh is one."""


class Values(NamedTuple):
    """The values of one gate or tanh unit of one layer, over all steps, rows and units.

    name: "f", or "layers[1] f" in a stack. gate: whether it is logistic; otherwise it is tanh.
    histogram: counts in 20 bins of equal width over [0, 1], or over [-1, 1] for tanh.
    shut: the share below 0.1, for tanh below -0.9. open: the share above 0.9.
    mean: the mean value.
    """

    name: str
    gate: bool
    histogram: np.ndarray
    shut: float
    open: float
    mean: float

    @property
    def saturated(self) -> float:
        """The share at either end, where the slope is below 0.09 for a gate and 0.19 for tanh."""
        return self.shut + self.open


class Memory(NamedTuple):
    """How much of the memory of a layer a step keeps, by its gates alone.

    name: that of the layer. keep: the mean share that is kept.
    half_life: ln 2 / -(mean of log keep), the number of steps after which half is left in a typical
        unit on the path through the gates; ∞ if everything is kept.
    """

    name: str
    keep: float
    half_life: float


class Saturation(NamedTuple):
    """The gates of all layers that have any, and their memories; prints as a table."""

    values: tuple[Values, ...]
    memories: tuple[Memory, ...]

    def __str__(self) -> str:
        """One line for each gate and tanh unit, and one for each memory."""
        lines = ["   shut    open    mean  of"]
        for v in self.values:
            what = "gate" if v.gate else "tanh"
            lines.append(f"{v.shut:7.1%} {v.open:7.1%} {v.mean:7.3f}  {what} {v.name}")
        for m in self.memories:
            name = label(m.name, "memory")
            lines.append(f"{name}: {m.keep:.1%} kept, half-life {m.half_life:.1f}")
        return "\n".join(lines)


def saturation(
    cell: Cell,
    params: Params,
    xs: ArrayLike,
    state: State = None,
    *,
    key: Key[Array, ""] | None = None,
    rows: int | None = None,
) -> Saturation:
    """Count the gate values below 0.1 and above 0.9, and the tanh values beyond ±0.9.

    Every cell of the library that has gates shows them, in wrappers and stacks too; a user-defined cell
    shows the values that it names with `sj.name_gate`.

    Args:
        cell: a causal cell.
        params: the params of the cell.
        xs: [time, *batch, in_features].
        state: the initial state, as in `sj.unroll`.
        key: draws the noise of the run, as in `sj.unroll`.
        rows: at most so many rows of the batch; None is all.

    Raises:
        ValueError: the cell is not causal, a state is not finite, a size is below 1, xs has no steps or
            rows, or `sj.unroll` raises for these arguments.

    Reference: Karpathy, Johnson, Fei-Fei 2016, "Visualizing and understanding recurrent networks",
    section 4.2.

    >>> import jax, jax.numpy as jnp, seqjax as sj
    >>> cell = sj.LSTM(features=4, forget_bias=5.0, input_init="zeros")
    >>> params = cell.init(jax.random.key(0), in_features=2)
    >>> found = sj.diagnostics.saturation(cell, params, jnp.ones((9, 3, 2)))
    >>> [(v.name, v.open) for v in found.values if v.gate]
    [('f', 1.0), ('i', 0.0), ('o', 0.0)]
    """
    path = finite_walk("saturation", cell, params, xs, state, key, rows)
    check_not_empty("saturation", path)
    return counted(cell, params, watch(cell, params, path.start, path.xs))


def counted(cell: Cell, params: Params, watched: Any) -> Saturation:
    """Make a `Saturation` of what `watch` returned."""
    values: list[Values] = []
    memories: list[Memory] = []
    for leaf, (shown, keep) in zip(leaves(cell, params), jax.device_get(watched), strict=True):
        # Gates first, each kind by name.
        for (kind, name), found in sorted(shown.items()):
            values.append(_values(label(leaf.name, name), kind == "sigmoid", *found))
        if keep is not None:
            mean, log = (float(np.mean(part)) for part in keep)
            memories.append(Memory(leaf.name, mean, math.log(2) / -log if log < 0 else math.inf))
    return Saturation(tuple(values), tuple(memories))


def label(layer: str, what: str) -> str:
    """Name a value, with its layer if there are several."""
    return f"{layer} {what}" if layer else what


def _values(name: str, gate: bool, histogram: np.ndarray, mean: np.ndarray) -> Values:
    histogram = histogram.sum(axis=0)
    count, end = max(int(histogram.sum()), 1), 2 if gate else 1
    shut, high = histogram[:end].sum() / count, histogram[-end:].sum() / count
    return Values(name, gate, histogram, float(shut), float(high), float(np.mean(mean)))


@functools.partial(jax.jit, static_argnames=("cell",))
def watch(cell, params, start, xs):
    """Count the named values of each leaf cell, in the order in which the leaf cells run.

    From `start`, [rows, ...], over xs, [time, rows, in_features]. All results are by step, [time, ...].

    Returns:
        For each leaf cell, the histogram and mean of each gate and tanh unit by (activation, name); and
        the mean and mean logarithm of the share of the memory that is kept, or None.
    """
    found: list[Any] = []

    def run(cell: Cell, params: Params, state: State, xs: Array, plan: Plan) -> tuple[State, Array]:
        def body(state, x):
            after, y = cell.step(params, state, x)
            return after, (state, y)

        after, (before, ys) = lax.scan(body, state, xs, reverse=plan.reverse)
        shown = gates_of(cell, params, before, xs)
        keep = None
        if cell.memory_path in shown:
            keep = shown[cell.memory_path].value
            # The logarithm of a gate that is shut to the last bit must count.
            tiny = jnp.finfo(keep.dtype).tiny
            keep = _means(keep), _means(jnp.log(jnp.maximum(keep, tiny)))
        low = {"sigmoid": 0.0, "tanh": -1.0}
        counts = {
            (kind, name): (_histogram(value, low[kind]), _means(value))
            for name, (value, kind) in shown.items()
            if kind in low
        }
        found.append((counts, keep))
        return after, ys

    run_layers(run, cell, params, start, xs)
    return found


def _means(values: Array) -> Array:
    """The mean of each step, [time]."""
    return jnp.mean(values, axis=tuple(range(1, values.ndim)))


def _histogram(values: Array, low: float) -> Array:
    """Counts in bins of equal width from `low` to 1 at each step, [time, bins]."""
    bins = jnp.clip(jnp.floor((values - low) / (1 - low) * BINS), 0, BINS - 1).astype(jnp.int32)
    bins = bins.reshape(len(values), -1)
    steps = jnp.broadcast_to(jnp.arange(len(values), dtype=jnp.int32)[:, None], bins.shape)
    return jnp.zeros((len(values), BINS), jnp.int32).at[steps, bins].add(1)
