"""The influence ∂s_t/∂θ carried forward in time, whole or cut to a pattern: what RTRL and SnAp share."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from seqjax._tree import to_vector
from seqjax.cell import Cell, Params, State
from seqjax.gradients.online_refusals import checked
from seqjax.gradients.online_rule import (
    Online,
    OnlineParams,
    OnlineStep,
    Signal,
    StepLoss,
    add_past,
    in_each_row,
    present,
    restarted,
    widest,
)
from seqjax.gradients.pattern import Pattern, pattern_of, start_by_vector, step_by_vector
from seqjax.numerics import where_rows


class InfluenceState(NamedTuple):
    """The recurrent state, and J_t = ∂s_t/∂θ for each row of the batch.

    influence: shaped like params, each leaf [*batch, reached, *leaf]: for each entry of the leaf the
    states that it reaches, of which there may be none.
    """

    cell: State
    influence: Params


FEW = 4
"""Up to so many states a product is quicker as a sum of products than as many small matmuls."""


def influence_rule(
    name: str,
    cell: Cell,
    step_loss: StepLoss,
    steps: int | None = None,
    signal: Signal | None = None,
    through: Cell | None = None,
) -> Online:
    """J_t = D_t J_{t-1} + I_t, cut to the entries that can be nonzero within `steps` steps.

    D_t = ∂s_t/∂s_{t-1}, I_t = ∂⁺s_t/∂θ. dL_t/dθ = ∂L_t/∂s_{t-1} · J_{t-1} + ∂⁺L_t/∂θ.
    through: the cell whose derivatives these are, with the params, states and values of `cell`; None is
        `cell` itself.
    """
    named, cell = cell, cell if through is None else through

    def begin(
        params: OnlineParams, batch_shape: tuple[int, ...], x: Any, state: State, key: Array | None
    ) -> InfluenceState:
        given = state
        if state is None:
            state = cell.initial_state(params.cell, batch_shape, key=key)
        row = one_row(state, len(batch_shape))
        pattern = pattern_of(cell, params.cell, row, x, steps)
        influence = first_influence(cell, pattern, params.cell, row)
        if given is not None:
            influence = jax.tree.map(jnp.zeros_like, influence)
        return InfluenceState(state, in_all_rows(influence, batch_shape))

    def update(
        params: OnlineParams,
        online_state: InfluenceState,
        x: Array,
        target: Any,
        *,
        reset: Array | None = None,
    ) -> OnlineStep:
        batch_shape = x.shape[:-1]
        state, influence = online_state
        row = one_row(state, len(batch_shape))
        pattern = pattern_of(cell, params.cell, row, one_row(x, len(batch_shape)), steps)
        if reset is not None:
            state = restarted(cell, params.cell, state, reset)
            first = in_all_rows(first_influence(cell, pattern, params.cell, row), batch_shape)
            influence = jax.tree.map(lambda f, J: where_rows(reset, f, J), first, influence)
        now = present(name, cell, step_loss, signal, params, state, x, target)
        grads = add_past(now.direct, from_past(pattern, now.past, influence))

        def advance(state: State, x: Array, influence: Params) -> Params:
            return advanced(cell, pattern, params.cell, state, x, influence)

        influence = in_each_row(advance, batch_shape)(state, x, influence)
        after = InfluenceState(now.after, influence)
        return OnlineStep(after, OnlineParams(grads, now.head), now.loss, now.y)

    return checked(name, named, begin, update)


def one_row(tree: Any, batch_axes: int) -> Any:
    """The shapes of one row."""
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[batch_axes:], a.dtype), tree)


def in_all_rows(influence: Params, batch_shape: tuple[int, ...]) -> Params:
    """The influence of one row, repeated over the batch."""
    return jax.tree.map(lambda J: jnp.broadcast_to(J, (*batch_shape, *J.shape)), influence)


def leafwise(function: Any, pattern: Pattern, *trees: Params) -> Params:
    """`function(states, kept, leaf, ...)` of each leaf of the trees, with what its entries reach."""
    structure = jax.tree.structure(trees[0])
    leaves = [structure.flatten_up_to(tree) for tree in trees]
    found = [function(*args) for args in zip(pattern.states, pattern.kept, *leaves, strict=True)]
    return jax.tree.unflatten(structure, found)


def first_influence(cell: Cell, pattern: Pattern, params: Params, state: State) -> Params:
    """J_0 = ∂s_0/∂θ of one row: not zero where the initial state is learned."""
    wide = jax.eval_shape(to_vector, state).dtype
    if not pattern.at_start:
        empty = lambda states, _, a: jnp.zeros((len(states), *a.shape), influence_dtype(a, wide))
        return leafwise(empty, pattern, params)
    s, pull = jax.vjp(lambda params: start_by_vector(cell, params), params)
    (rows,) = jax.vmap(pull)(seeds(pattern.influence_colours, s.dtype))

    def pick(states: np.ndarray, kept: np.ndarray, leaf: Array, rows: Array) -> Array:
        return where_kept(kept, picked(pattern, states, rows).astype(influence_dtype(leaf, wide)))

    return leafwise(pick, pattern, params, rows)


def advanced(
    cell: Cell, pattern: Pattern, params: Params, state: State, x: Array, influence: Params
) -> Params:
    """D_t J_{t-1} + I_t of one row, where the pattern keeps it."""
    s, step = to_vector(state), step_by_vector(cell, params, state, x)
    # Apart, since each has colours of its own: a dense D_t takes n of them, where I_t may take one.
    after, pull_state = jax.vjp(step, s)
    _, pull_params = jax.vjp(lambda params: step(s, params), params)
    (D,) = jax.vmap(pull_state)(seeds(pattern.state_colours, after.dtype))
    (rows,) = jax.vmap(pull_params)(seeds(pattern.influence_colours, after.dtype))

    def advance(states: np.ndarray, kept: np.ndarray, J: Array, rows: Array) -> Array:
        needed = D[pattern.state_colours[states][:, None], states[None]].astype(J.dtype)
        return where_kept(kept, product(needed, J) + picked(pattern, states, rows).astype(J.dtype))

    return leafwise(advance, pattern, influence, rows)


def where_kept(kept: np.ndarray, J: Array) -> Array:
    """J, and zero at states that only fill up."""
    return J if kept.all() else jnp.where(np.broadcast_to(kept, J.shape), J, jnp.zeros_like(J))


def influence_dtype(leaf: Array, wide: Any) -> Any:
    """At least float32, and as wide as the state and the leaf."""
    return widest(leaf.dtype, wide)


def seeds(colours: np.ndarray, dtype: Any) -> Float[Array, "colours n"]:
    """For each colour 1 at the entries that have it."""
    count = int(colours.max(initial=-1)) + 1
    return jnp.asarray(colours[None] == np.arange(count)[:, None], dtype)


def picked(pattern: Pattern, states: np.ndarray, rows: Float[Array, "..."]) -> Float[Array, "..."]:
    """∂⁺s/∂θ of a leaf at the states that each entry reaches, from its sums over each colour."""
    if len(states) == 0:
        return rows[:0]
    colours = pattern.influence_colours[states]
    first = colours.reshape(len(states), -1)[:, :1]
    if (colours.reshape(len(states), -1) == first).all():  # whole rows: a gather would be slow
        order = first[:, 0]
        return rows if np.array_equal(order, np.arange(len(rows))) else rows[order]
    shape = (len(states), *rows.shape[1:])
    return jnp.take_along_axis(rows, jnp.asarray(np.broadcast_to(colours, shape)), axis=0)


def product(D: Float[Array, "i j ..."], J: Float[Array, "j ..."]) -> Float[Array, "i ..."]:
    """Σ_j D_ij J_j, where D may be the same along some axes of the leaf."""
    if len(D) <= FEW:
        return sum((D[:, j] * J[None, j] for j in range(len(J))), jnp.zeros_like(J))
    leaf, own = axes_of(D.shape[2:])
    D = D.reshape(*D.shape[:2], *(size for size in D.shape[2:] if size != 1))
    return jnp.einsum(f"ij{own},j{leaf}->i{leaf}", D, J)


def from_past(pattern: Pattern, past: Float[Array, "*batch n"], influence: Params) -> Params:
    """∂L_t/∂s_{t-1} · J_{t-1}, summed over the batch; zero at params that reach no state."""
    rows = math.prod(past.shape[:-1])
    batch_axes = past.ndim - 1
    past = past.reshape(rows, past.shape[-1])

    def chain(states: np.ndarray, kept: np.ndarray, J: Array) -> Array:
        J = J.reshape(rows, *J.shape[batch_axes:])
        dL = past[:, states].astype(J.dtype)
        if len(states) <= FEW:
            terms = (dL[:, i] * J[:, i] for i in range(len(states)))
            return sum_of_rows(sum(terms, jnp.zeros((rows, *J.shape[2:]), J.dtype)))
        leaf, own = axes_of(dL.shape[2:])
        dL = dL.reshape(*dL.shape[:2], *(size for size in dL.shape[2:] if size != 1))
        return jnp.einsum(f"bi{own},bi{leaf}->{leaf}", dL, J)

    return leafwise(chain, pattern, influence)


def sum_of_rows(a: Float[Array, "rows ..."]) -> Float[Array, "..."]:
    """Σ over the first axis by halves: on a CPU a reduction over a leading axis is far slower."""
    if len(a) == 0:
        return jnp.zeros(a.shape[1:], a.dtype)
    while len(a) > 1:
        half = len(a) // 2
        a = jnp.concatenate([a[:half] + a[half : 2 * half], a[2 * half :]])
    return a[0]


def axes_of(sizes: tuple[int, ...]) -> tuple[str, str]:
    """Letters for the axes of a leaf, and of those along which its entries differ in what they reach."""
    leaf = "klmnopqrstuvw"[: len(sizes)]
    return leaf, "".join(c for c, size in zip(leaf, sizes, strict=True) if size != 1)
