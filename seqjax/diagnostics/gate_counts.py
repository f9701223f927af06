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

from seqjax import checks
from seqjax.cell import Cell, Params, State, gates_of, leaves, run_layers
from seqjax.diagnostics.trajectory import check_finite, check_some, evenly, walk
from seqjax.plan import Plan

BINS = 20
"""Of a histogram: a tenth of a gate's range is two bins, a twentieth of a unit's is one."""


class Values(NamedTuple):
    """One gate or tanh unit of one layer, over all steps, rows and units.

    name: "f", or "layers[1] f" in a stack. gate: of a logistic function, else of tanh.
    histogram: counts in 20 bins of equal width over [0, 1], or over [-1, 1] for tanh.
    shut: the share below 0.1; for tanh below -0.9. open: the share above 0.9.
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
    """How much of a layer's memory a step keeps, by its gates alone.

    name: of the layer. keep: the mean share that is kept.
    half_life: ln 2 / -(mean of log keep): after so many steps half is left in the typical unit of the
        path through the gates; ∞ where all is kept.
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
            lines.append(
                f"{label(m.name, 'memory')}: {m.keep:.1%} kept, half-life {m.half_life:.1f}"
            )
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
    """The share of gate values below 0.1 and above 0.9, and of tanh values beyond ±0.9.

    Arguments as in `sj.unroll`; rows: at most so many rows of the batch. Every cell of the library that
    has gates shows them, in wrappers and stacks too; a user-defined cell shows the values that it names
    with `sj.name_gate`.

    Raises a ValueError for a cell that is not causal, states that are not finite, a size below 1, an xs
    without steps or rows, and what `sj.unroll` refuses.
    Reference: Karpathy, Johnson, Fei-Fei 2016, "Visualizing and understanding recurrent networks",
    section 4.2.

    >>> import jax, jax.numpy as jnp, seqjax as sj
    >>> cell = sj.LSTM(features=4, forget_bias=5.0, input_init="zeros")
    >>> params = cell.init(jax.random.key(0), in_features=2)
    >>> found = sj.diagnostics.saturation(cell, params, jnp.ones((9, 3, 2)))
    >>> [(v.name, v.open) for v in found.values if v.gate]
    [('f', 1.0), ('i', 0.0), ('o', 0.0)]
    """
    if rows is not None:
        checks.positive("saturation: rows", rows)
    path = walk("saturation", cell, params, xs, state, key)
    check_some("saturation", path)
    check_finite("saturation", path)
    path = path.take_rows(evenly(path.xs.shape[1], rows))
    return told(cell, params, watch(cell, params, path.start, path.xs))


def told(cell: Cell, params: Params, watched: Any) -> Saturation:
    """`saturation` from what `watch` gave."""
    watched = jax.device_get(watched)
    names = [leaf.name for leaf in leaves(cell, params)]
    values: list[Values] = []
    memories: list[Memory] = []
    for name, (of_gates, of_units, keep) in zip(names, watched, strict=True):
        values += [_values(label(name, n), True, *found) for n, found in sorted(of_gates.items())]
        values += [_values(label(name, n), False, *found) for n, found in sorted(of_units.items())]
        if keep is not None:
            mean, log = (float(np.mean(part)) for part in keep)
            memories.append(Memory(name, mean, math.log(2) / -log if log < 0 else math.inf))
    return Saturation(tuple(values), tuple(memories))


def label(layer: str, what: str) -> str:
    """Name a value, and its layer if there are several."""
    return f"{layer} {what}" if layer else what


def _values(name: str, gate: bool, histogram: np.ndarray, mean: np.ndarray) -> Values:
    histogram = histogram.sum(axis=0)
    count, end = max(int(histogram.sum()), 1), 2 if gate else 1
    shut, high = histogram[:end].sum() / count, histogram[-end:].sum() / count
    return Values(name, gate, histogram, float(shut), float(high), float(np.mean(mean)))


@functools.partial(jax.jit, static_argnames=("cell",))
def watch(cell, params, start, xs):
    """What each step shows of the gates of each leaf cell, in the order in which they run.

    From `start`, [rows, ...], over xs, [time, rows, in_features].
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
            # The logarithm of a gate that is shut to the last bit has to count.
            tiny = jnp.finfo(keep.dtype).tiny
            keep = _means(keep), _means(jnp.log(jnp.maximum(keep, tiny)))
        of = lambda activation, low: {
            name: (_histogram(gate.value, low), _means(gate.value))
            for name, gate in shown.items()
            if gate.activation == activation
        }
        of_gates, of_units = of("sigmoid", 0.0), of("tanh", -1.0)
        found.append((of_gates, of_units, keep))
        return after, ys

    run_layers(run, cell, params, start, xs)
    return found


def _means(values: Array) -> Array:
    """Of each step, [time]."""
    return jnp.mean(values, axis=tuple(range(1, values.ndim)))


def _histogram(values: Array, low: float) -> Array:
    """Counts in bins of equal width from `low` to 1 at each step, [time, bins]."""
    bins = jnp.clip(jnp.floor((values - low) / (1 - low) * BINS), 0, BINS - 1).astype(jnp.int32)
    bins = bins.reshape(len(values), -1)
    steps = jnp.broadcast_to(jnp.arange(len(values), dtype=jnp.int32)[:, None], bins.shape)
    return jnp.zeros((len(values), BINS), jnp.int32).at[steps, bins].add(1)
