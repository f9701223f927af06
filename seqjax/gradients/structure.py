"""The structure of a cell, read off its programs: the nonzero entries of ∂s_t/∂θ, the input width."""

import contextlib
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from seqjax import checks
from seqjax._tree import from_vector, to_vector
from seqjax.cell import Cell, Params, State
from seqjax.engines.validate import params_of
from seqjax.gradients.dependence import dependence


class Pattern(NamedTuple):
    """The kept entries of ∂s/∂θ, n states by P params, and the colouring that recovers them.

    states: for each leaf of params int[reached, ...]: the states that each entry of the leaf reaches,
        ascending. The axes are those of the leaf, of size 1 where entries along it reach the same.
    kept: for each leaf bool of the same shape; False at fillers, where an entry reaches fewer states
        than others of its leaf.
    influence_colours: int[n]; two states that one param reaches differ in colour, so that the sums of
        the rows of ∂⁺s_t/∂θ over each colour determine all entries.
    state_colours: int[n], the same for the rows of ∂s_t/∂s_{t-1}, at the entries that are needed.
    at_start: whether ∂s_0/∂θ can differ from zero.
    """

    states: tuple[np.ndarray, ...]
    kept: tuple[np.ndarray, ...]
    influence_colours: np.ndarray
    state_colours: np.ndarray
    at_start: bool


def step_by_vector(cell: Cell, params: Params, state: State, x: Any) -> Callable[..., Any]:
    """Return (s_{t-1}, θ) -> s_t, with states as vectors; clocks and noise are those of `state`."""
    return lambda s, params=params: to_vector(cell.step(params, from_vector(state, s), x)[0])


def start_by_vector(cell: Cell, params: Params) -> Any:
    """Return s_0 of one row from θ, as a vector, which contains no noise."""
    return to_vector(cell.initial_state(params, (), key=jax.random.key(0)))


def pattern_of(cell: Cell, params: Params, state: State, x: Any, steps: int | None) -> Pattern:
    """Return the pattern for one row: params, state and x as `cell.step` takes them without a batch.

    steps: keep the states that a param reaches within so many steps; None is any number, and exact.
    Cached by cell and shapes; nothing depends on values.
    """
    leaves, structure = jax.tree.flatten((params, state, x))
    shapes = tuple(jax.ShapeDtypeStruct(jnp.shape(a), a.dtype) for a in leaves)
    return _pattern(cell, structure, shapes, steps)


@functools.lru_cache(maxsize=64)
def _pattern(cell: Cell, structure: Any, shapes: Any, steps: int | None) -> Pattern:
    params, state, x = jax.tree.unflatten(structure, shapes)
    weights, form = jax.tree.flatten(params)
    vectors = [jax.ShapeDtypeStruct((leaf.size,), leaf.dtype) for leaf in weights]
    s = jax.eval_shape(to_vector, state)

    def shaped(vectors: Sequence[Any]) -> Params:
        leaves = [v.reshape(leaf.shape) for v, leaf in zip(vectors, weights, strict=True)]
        return jax.tree.unflatten(form, leaves)

    def step(*arguments: Any) -> Any:
        s, *vectors, state, x = arguments
        return step_by_vector(cell, shaped(vectors), state, x)(s)

    def start(*vectors: Any) -> Any:
        return start_by_vector(cell, shaped(vectors))

    mixing = np.zeros((s.size, s.size), bool)
    entered: list[list[np.ndarray]] = [[] for _ in weights]  # by leaf and state, the params
    begun = list(dependence(start, len(vectors), *vectors))
    rows = dependence(step, 1 + len(vectors), s, *vectors, state, x)
    for i, (before, *own) in enumerate(rows):
        mixing[i, before] = True
        for leaf, now, at_start in zip(entered, own, begun[i], strict=True):
            leaf.append(np.union1d(now, at_start))
    reach = _reach(mixing, steps)
    groups = [_grouped(rows, leaf.size, reach) for rows, leaf in zip(entered, weights, strict=True)]
    sets = np.array([*{g.tobytes(): g for _, found in groups for g in found}.values()])
    sets = sets.reshape(len(sets), s.size)
    together = _product(sets.T, sets)  # [i, j]: some param reaches i and j
    clash = _product(together, mixing.T)  # [i, k]: row k has an entry where one of row i is needed
    tables = [_tables(*g, leaf.shape) for g, leaf in zip(groups, weights, strict=True)]
    return Pattern(
        tuple(states for states, _ in tables),
        tuple(kept for _, kept in tables),
        influence_colours=_colours(together),
        state_colours=_colours(clash | clash.T),
        at_start=any(len(found) for row in begun for found in row),
    )


def _product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Multiply matrices of bool; counts below 2²⁴ are exact in float32."""
    return a.astype(np.float32) @ b.astype(np.float32) > 0


def _reach(mixing: np.ndarray, steps: int | None) -> np.ndarray:
    """[i, j]: whether state j can have reached state i in fewer than `steps` steps."""
    once = mixing | np.eye(len(mixing), dtype=bool)
    reach = np.eye(len(mixing), dtype=bool)
    left = len(mixing) if steps is None else steps - 1
    while left:
        further = _product(reach, once)
        if (further == reach).all():
            break
        reach, left = further, left - 1
    return reach


def _grouped(
    entered: Sequence[np.ndarray], size: int, reach: np.ndarray
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return a group for each param, and for each group the bool[n] of the states that it reaches.

    entered: for each state the params that it depends on directly.
    """
    group = np.zeros(size, np.intp)
    members: list[frozenset[int]] = [frozenset()]
    for state, params in enumerate(entered):  # params that this state distinguishes part here
        old, which = np.unique(group[params], return_inverse=True)
        group[params] = len(members) + which
        members += [members[g] | {state} for g in old]
    used, group = np.unique(group, return_inverse=True)
    reached = [reach[:, sorted(members[g])].any(axis=1) for g in used]
    numbers: dict[bytes, int] = {}
    merged = np.array([numbers.setdefault(r.tobytes(), len(numbers)) for r in reached], np.intp)
    return merged[group], [np.frombuffer(r, bool) for r in numbers]


def _tables(
    group: np.ndarray, reached: Sequence[np.ndarray], shape: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Return `Pattern.states` and `Pattern.kept` of a leaf, from its groups."""
    count = max((int(r.sum()) for r in reached), default=0)
    states, kept = np.zeros((len(reached), count), np.intp), np.zeros((len(reached), count), bool)
    for g, r in enumerate(reached):
        # Filled up like a larger group that contains it: equal rows make equal products.
        larger = (other for other in reached if other.sum() == count and not (r & ~other).any())
        spare = np.flatnonzero(next(larger, np.ones_like(r)) & ~r)[: count - int(r.sum())]
        states[g] = np.sort(np.concatenate([np.flatnonzero(r), spare]))
        kept[g] = r[states[g]]
    group = group.reshape(shape)
    for axis in range(len(shape)):
        first = group.take(range(min(1, shape[axis])), axis)
        if (group == first).all():
            group = first
    return np.moveaxis(states[group], -1, 0), np.moveaxis(kept[group], -1, 0)


def _colours(apart: np.ndarray) -> np.ndarray:
    """Colour the indices greedily, with different colours for each pair that is `apart`."""
    colours = np.zeros(len(apart), np.intp)
    for i in range(len(apart)):
        taken = set(colours[:i][apart[i, :i]])
        colours[i] = next(c for c in range(i + 1) if c not in taken)
    return colours


def input_of(name: str, cell: Cell, params: Params) -> jax.ShapeDtypeStruct:
    """Return the form of one row of x, [in_features], that params were made for.

    An online rule is set up before it sees an input. Nothing is computed: among the sizes in params, and
    the one that follows from their number, it is the one for which `cell.init` gives such params and, if
    several do, with which `cell.step` can be traced. Raises a ValueError if there is none.
    """
    dtype = jax.eval_shape(to_vector, params).dtype
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(params)]
    count = lambda tree: sum(math.prod(jnp.shape(leaf)) for leaf in jax.tree.leaves(tree))
    sizes = {0, 1, int(cell.features), int(cell.out_features), *(n for s in shapes for n in s)}
    with contextlib.suppress(Exception):  # whatever a cell raises for a width that it does not take
        one, two = (count(params_of(cell, width)) for width in (1, 2))
        sizes.add(max(0, 1 + (count(params) - one) // max(1, two - one)))
    widths = [size for size in sorted(sizes) if _gives(cell, size, params)]
    if not widths:
        raise ValueError(
            f"{name}: params.cell is {type(params).__name__} of shapes {shapes}; "
            f"expected what {cell!r}.init(key, in_features) gives"
        )

    def step(params: Params, x: jax.Array) -> None:
        cell.step(params, cell.initial_state(params, (), key=jax.random.key(0)), x)

    for width in widths[:-1]:  # if none can be traced, the last one says by itself what is wrong
        x = jax.ShapeDtypeStruct((width,), dtype)
        with contextlib.suppress(Exception):  # as above
            jax.eval_shape(step, params, x)
            return x
    return jax.ShapeDtypeStruct((widths[-1],), dtype)


def check_width(name: str, cell: Cell, params: Params, x: jax.Array) -> None:
    """Raise unless x, [*batch, in_features], is as wide as the params were made for."""
    if x.ndim == 0 or not _gives(cell, x.shape[-1], params):
        checks.trailing(f"{name}: x", x, input_of(name, cell, params).shape[0])


def _gives(cell: Cell, in_features: int, params: Params) -> bool:
    """Whether params for inputs of that width have this form."""
    form = lambda tree: (
        jax.tree.structure(tree),
        [jnp.shape(leaf) for leaf in jax.tree.leaves(tree)],
    )
    with contextlib.suppress(Exception):  # as above
        return form(params_of(cell, in_features)) == form(params)
    return False
