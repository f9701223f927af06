"""The run that is looked at: every state of it, and the first that is not finite."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array

from seqjax import checks
from seqjax._tree import from_vector, to_vector
from seqjax.cell import Cell, Params, State
from seqjax.engines.driver import starting_state
from seqjax.engines.validate import check_cell, check_params, check_shapes, check_step, named


class Trajectory(NamedTuple):
    """s_0 … s_T and y_1 … y_T, with all axes of batch laid out as one axis of rows.

    start: s_0, [rows, ...] in each leaf.
    before: the state that each step starts from, s_0 … s_{T-1}, [time, rows, ...].
    after: the state that it ends in, s_1 … s_T.
    xs: [time, rows, in_features]; ys: [time, rows, out_features].
    batch_shape: the axes that became rows.
    """

    start: State
    before: State
    after: State
    xs: Array
    ys: Array
    batch_shape: tuple[int, ...]

    @property
    def entries(self) -> int:
        """The size of one row of the state as a real vector."""
        return sum(_entries(leaf) for leaf in jax.tree.leaves(self.start))

    def take_rows(self, rows: np.ndarray) -> "Trajectory":
        """These rows alone."""
        if np.array_equal(rows, np.arange(self.xs.shape[1])):
            return self
        in_time = (self.before, self.after, self.xs, self.ys)
        start, (before, after, xs, ys) = _taken(self.start, in_time, np.asarray(rows, np.int32))
        return Trajectory(start, before, after, xs, ys, self.batch_shape)


class NonFinite(NamedTuple):
    """Where the first state is that is not finite.

    step: the step that it comes out of, counted from 0 as in `xs[step]`; -1 is the state before it.
    leaves: all leaves in which it is, such as "state.layers[1].c".
    row: where in the batch, one index for each of its axes.
    """

    step: int
    leaves: tuple[str, ...]
    row: tuple[int, ...]

    def __str__(self) -> str:
        """The place in words."""
        row = f", row {', '.join(map(str, self.row))} of the batch" if self.row else ""
        when = f"after step {self.step}" if self.step >= 0 else "before the first step"
        verb = "is" if len(self.leaves) == 1 else "are"
        return f"{' and '.join(self.leaves)} {verb} not finite {when}{row}"


def walk(
    name: str, cell: Cell, params: Params, xs: ArrayLike, state: State, key: Array | None
) -> Trajectory:
    """The run of `sj.unroll(cell, params, xs, state, key=key)`, step by step, all states kept.

    Raises a ValueError that begins with `name` for a cell that is not causal and so has no step, and
    for what `sj.unroll` refuses.
    """
    with named(name):
        check_cell(cell)
        if not cell.causal:
            raise ValueError(
                f"{name}: cell: expected one that is causal, got {cell!r}, whose y_t needs inputs after "
                "t; diagnose each direction by itself, as in cell.forward with params.forward"
            )
        checks.key(f"{name}: key", key)
        inputs = checks.array(f"{name}: xs", xs)
        batch_shape = check_shapes(inputs, None, None)
        return Trajectory(*_walk(cell, params, inputs, state, key), batch_shape=batch_shape)


@functools.partial(jax.jit, static_argnames=("cell",))
def _walk(cell, params, xs, state, key):
    batch_shape = check_shapes(xs, None, None)
    check_params(cell, params, xs)
    start = starting_state(cell, params, state, batch_shape, key)
    check_step(cell, params, start, xs)

    def body(state, x):
        after, y = cell.step(params, state, x)
        return after, (state, after, y)

    _, (before, after, ys) = lax.scan(body, start, xs)
    axes = len(batch_shape)
    in_time = functools.partial(as_rows, axes=axes, leading=1)
    return as_rows(start, axes), in_time(before), in_time(after), in_time(xs), in_time(ys)


def as_rows(tree: Any, axes: int, leading: int = 0) -> Any:
    """Each leaf with its `axes` axes of batch, after the `leading` ones, as one axis of rows."""

    def flat(leaf: Array) -> Array:
        shape = leaf.shape
        rows = int(np.prod(shape[leading : leading + axes]))
        return leaf.reshape(*shape[:leading], rows, *shape[leading + axes :])

    return jax.tree.map(flat, tree)


def step_vector(
    cell: Cell, params: Params, state: State, vector: Array, x: Array
) -> tuple[Array, Array]:
    """One step from the memory in `vector`, the rest of it from `state`: (vector after, y)."""
    after, y = cell.step(params, from_vector(state, vector), x)
    return to_vector(after, vector.ndim - 1), y


def evenly(count: int, most: int | None) -> np.ndarray:
    """At most `most` of the numbers 0 … count-1: the last of each of that many equal parts."""
    most = count if most is None else min(most, count)
    return (np.arange(1, most + 1) * count) // max(most, 1) - 1


def _entries(leaf: Array) -> int:
    """Of one row, as `to_vector` counts them."""
    parts = 2 if jnp.issubdtype(leaf.dtype, jnp.complexfloating) else 1
    real = jnp.issubdtype(leaf.dtype, jnp.inexact)
    return parts * int(np.prod(leaf.shape[1:])) if real else 0


@jax.jit  # leaf by leaf each of them would take as long as all together
def _taken(start: Any, in_time: Any, rows: Array) -> tuple[Any, Any]:
    """The rows of [rows, ...], and of [time, rows, ...]."""
    return jax.tree.map(lambda leaf: leaf[rows], start), jax.tree.map(
        lambda leaf: leaf[:, rows], in_time
    )


def first_non_finite(path: Trajectory) -> NonFinite | None:
    """The first state of the run that is not finite, or None."""
    names = [
        f"state{jax.tree_util.keystr(place)}"
        for place, leaf in jax.tree_util.tree_leaves_with_path(path.start)
        if jnp.issubdtype(leaf.dtype, jnp.inexact)
    ]
    found = list(zip(names, jax.device_get(_not_finite(path.start, path.after)), strict=True))
    places = [tuple(np.argwhere(bad)[0]) for _, bad in found if bad.any()]
    if not places:
        return None
    step, row = min(places)
    return NonFinite(
        step=int(step) - 1,
        leaves=tuple(name for name, bad in found if bad[step, row]),
        row=tuple(int(i) for i in np.unravel_index(row, path.batch_shape)),
    )


def not_finite(name: str, tree: Any) -> list[str]:
    """Which leaves of a tree that is called `name` hold a number that is not finite."""
    places = [place for place, _ in jax.tree_util.tree_leaves_with_path(tree)]
    finite = jax.device_get(_finite(jax.tree.leaves(tree)))
    return [
        f"{name}{jax.tree_util.keystr(place)}"
        for place, good in zip(places, finite, strict=True)
        if not good
    ]


@jax.jit
def _finite(leaves: list[Array]) -> list[Array]:
    """Whether all numbers of each leaf are finite."""
    is_float = lambda leaf: jnp.issubdtype(leaf.dtype, jnp.inexact)
    return [jnp.all(jnp.isfinite(leaf)) if is_float(leaf) else jnp.array(True) for leaf in leaves]


@jax.jit
def _not_finite(start: State, after: State) -> list[Array]:
    """[1 + time, rows] for each leaf of such numbers: whether any entry of the row is not finite."""

    def rows(leaf: Array) -> Array:
        return ~jnp.all(jnp.isfinite(leaf), axis=tuple(range(2, leaf.ndim)))

    return [
        jnp.concatenate([rows(first[None]), rows(later)])
        for first, later in zip(jax.tree.leaves(start), jax.tree.leaves(after), strict=True)
        if jnp.issubdtype(first.dtype, jnp.inexact)
    ]


def check_finite(name: str, path: Trajectory) -> None:
    """Raise a ValueError that says where, rather than compute NaN from there on."""
    found = first_non_finite(path)
    if found is not None:
        raise ValueError(f"{name}: {found}; expected a run whose states are all finite")


def check_some(name: str, path: Trajectory) -> None:
    """Raise a ValueError where there is nothing to look at."""
    time, rows = path.xs.shape[:2]
    if time == 0 or rows == 0:
        shape = (time, *path.batch_shape, path.xs.shape[-1])
        raise ValueError(f"{name}: xs has shape {shape}; expected at least 1 step and 1 row")
