"""Walk a cell over a batch, keep every state, and find the first that is not finite."""

import functools
import math
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
from seqjax.engines.validate import (
    check_cell,
    check_params,
    check_shapes,
    check_step,
    named,
    params_of,
)


class Trajectory(NamedTuple):
    """s_0 … s_T and y_1 … y_T, with all batch axes flattened into one axis of rows.

    start: s_0, [rows, ...] in each leaf.
    before: the state that each step starts from, s_0 … s_{T-1}, [time, rows, ...].
    after: the state that each step ends in, s_1 … s_T.
    xs: [time, rows, in_features]; ys: [time, rows, out_features].
    batch_shape: the axes that were flattened.
    """

    start: State
    before: State
    after: State
    xs: Array
    ys: Array
    batch_shape: tuple[int, ...]

    @property
    def entries(self) -> int:
        """The number of entries of one row of the state as a real vector."""
        return sum(
            math.prod(leaf.shape[1:]) * (2 if jnp.iscomplexobj(leaf) else 1)
            for leaf in jax.tree.leaves(self.start)
            if jnp.issubdtype(leaf.dtype, jnp.inexact)
        )

    def take_rows(self, rows: np.ndarray) -> "Trajectory":
        """Select rows of the batch."""
        if np.array_equal(rows, np.arange(self.xs.shape[1])):
            return self
        in_time = (self.before, self.after, self.xs, self.ys)
        start, (before, after, xs, ys) = _taken(self.start, in_time, np.asarray(rows, np.int32))
        return Trajectory(start, before, after, xs, ys, self.batch_shape)


@jax.jit  # each gather compiled on its own would take as long as all together
def _taken(start: Any, in_time: Any, rows: Array) -> tuple[Any, Any]:
    """Select rows of leaves [rows, ...] and of leaves [time, rows, ...]."""
    return jax.tree.map(lambda leaf: leaf[rows], start), jax.tree.map(
        lambda leaf: leaf[:, rows], in_time
    )


def evenly(count: int, most: int | None) -> np.ndarray:
    """At most `most` of the numbers 0 … count-1: the last of each of as many equal parts."""
    most = count if most is None else min(most, count)
    return (np.arange(1, most + 1) * count) // max(most, 1) - 1


def walk(
    name: str, cell: Cell, params: Params, xs: ArrayLike, state: State, key: Array | None
) -> Trajectory:
    """Run `sj.unroll(cell, params, xs, state, key=key)` step by step and keep every state.

    Raises:
        ValueError: the cell is not causal, so has no step, or `sj.unroll` raises for these arguments.
            The message starts with `name`.
    """
    with named(name):
        check_cell(cell)
        if not cell.causal:
            raise ValueError(
                f"{name}: cell: expected a causal cell, got {cell!r}, whose y_t needs inputs after t; "
                "diagnose each direction by itself, as in cell.forward with params.forward"
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

    _, in_time = lax.scan(body, start, xs)
    axes = len(batch_shape)
    before, after, ys = as_rows(in_time, axes, leading=1)
    return as_rows(start, axes), before, after, as_rows(xs, axes, leading=1), ys


def as_rows(tree: Any, axes: int, leading: int = 0) -> Any:
    """Flatten the `axes` batch axes of each leaf, which follow the `leading` ones, into one."""

    def flat(leaf: Array) -> Array:
        shape = leaf.shape
        rows = int(np.prod(shape[leading : leading + axes]))
        return leaf.reshape(*shape[:leading], rows, *shape[leading + axes :])

    return jax.tree.map(flat, tree)


def step_vector(
    cell: Cell, params: Params, state: State, vector: Array, x: Array
) -> tuple[Array, Array]:
    """Compute one step with the floating entries of the state from `vector`: (vector after, y)."""
    after, y = cell.step(params, from_vector(state, vector), x)
    return to_vector(after, vector.ndim - 1), y


class NonFinite(NamedTuple):
    """The first state that is not finite.

    step: the step that returns it, counted from 0 as in `xs[step]`; -1 is the state before the first.
    leaves: all leaves that are not finite there, such as "state.layers[1].c".
    row: the first such row, one index for each batch axis.
    """

    step: int
    leaves: tuple[str, ...]
    row: tuple[int, ...]

    def __str__(self) -> str:
        """Leaves, step and row in words."""
        row = f", row {', '.join(map(str, self.row))} of the batch" if self.row else ""
        when = f"after step {self.step}" if self.step >= 0 else "before the first step"
        verb = "is" if len(self.leaves) == 1 else "are"
        return f"{' and '.join(self.leaves)} {verb} not finite {when}{row}"


def first_non_finite(path: Trajectory) -> NonFinite | None:
    """Find the first state of the run that is not finite, or None."""
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


@jax.jit
def _not_finite(start: State, after: State) -> list[Array]:
    """[1 + time, rows] for each floating leaf: whether any entry of the row is not finite."""

    def rows(leaf: Array) -> Array:
        return ~jnp.all(jnp.isfinite(leaf), axis=tuple(range(2, leaf.ndim)))

    return [
        jnp.concatenate([rows(first[None]), rows(later)])
        for first, later in zip(jax.tree.leaves(start), jax.tree.leaves(after), strict=True)
        if jnp.issubdtype(first.dtype, jnp.inexact)
    ]


def not_finite(name: str, tree: Any) -> list[str]:
    """Name the leaves of a tree called `name` that hold a number which is not finite."""
    return [
        f"{name}{jax.tree_util.keystr(place)}"
        for place, leaf in jax.tree_util.tree_leaves_with_path(tree)
        if not bool(jnp.all(jnp.isfinite(leaf)))
    ]


def finite_walk(
    name: str,
    cell: Cell,
    params: Params,
    xs: ArrayLike,
    state: State,
    key: Array | None,
    rows: int | None = None,
) -> Trajectory:
    """`walk`, and select at most so many rows, evenly spaced; raise if any state is not finite."""
    check_sizes(name, rows=rows)
    path = walk(name, cell, params, xs, state, key)
    found = first_non_finite(path)
    if found is not None:
        raise ValueError(f"{name}: {found}; expected a run whose states are all finite")
    return path.take_rows(evenly(path.xs.shape[1], rows))


def check_not_empty(name: str, path: Trajectory) -> None:
    """Raise a ValueError for a run without steps or rows."""
    time, rows = path.xs.shape[:2]
    if time == 0 or rows == 0:
        shape = (time, *path.batch_shape, path.xs.shape[-1])
        raise ValueError(f"{name}: xs has shape {shape}; expected at least 1 step and 1 row")


def check_sizes(name: str, **sizes: int | None) -> None:
    """Validate that each size that is given is a positive integer."""
    for argument, value in sizes.items():
        if value is not None:
            checks.positive(f"{name}: {argument}", value)


def check_params_alone(name: str, cell: Cell, params: Params) -> None:
    """Validate params without xs: any width of the inputs that their shapes allow will do."""
    with named(name):
        check_cell(cell)
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(params)]
    for width in dict.fromkeys([size for shape in shapes for size in shape] + [1]):
        try:
            made = params_of(cell, width)
        except Exception:  # whatever a cell raises for a width that it does not take
            continue
        alike = jax.tree.structure(made) == jax.tree.structure(params)
        if alike and [leaf.shape for leaf in jax.tree.leaves(made)] == shapes:
            return
    raise ValueError(
        f"{name}: params is {type(params).__name__} of shapes {shapes}; "
        f"expected what {cell!r}.init(key, in_features) gives"
    )
