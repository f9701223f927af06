"""Real-time recurrent learning: the exact gradient forward in time, and SnAp, its sparse form."""

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from seqjax import checks
from seqjax._tree import to_vector
from seqjax.cell import Cell, Params, State
from seqjax.gradients.online import (
    OnlineBatch,
    OnlineParams,
    OnlineRule,
    OnlineStep,
    StepLoss,
    in_each_row,
    present,
    restarted,
    widest,
)
from seqjax.gradients.structure import Pattern, pattern_of, start_by_vector, step_by_vector
from seqjax.numerics import where_rows


class InfluenceState(NamedTuple):
    """The recurrent state, and J_t = ∂s_t/∂θ for each row of the batch.

    influence: shaped like params, each leaf [*batch, reached, *leaf]: for each entry of the leaf the
    states that it reaches, of which there may be none.
    """

    cell: State
    influence: Params


class InfluenceRule(OnlineRule):
    """J_t = D_t J_{t-1} + I_t, cut to the entries that can be nonzero within `reach` steps.

    D_t = ∂s_t/∂s_{t-1}, I_t = ∂⁺s_t/∂θ. dL_t/dθ = ∂L_t/∂s_{t-1} · J_{t-1} + ∂⁺L_t/∂θ.
    """

    @property
    def reach(self) -> int | None:
        """The number of steps; None is any number, and exact."""
        return None

    def begin(
        self, params: OnlineParams, x: Any, state: State, key: Array | None
    ) -> InfluenceState:
        """Return the first state and its influence, which is 0 for a state that is given."""
        given, batch_shape = state, x.shape[:-1]
        if state is None:
            state = self.cell.initial_state(params.cell, batch_shape, key=key)
        influence = self._first(params, state, x)
        if given is not None:
            influence = jax.tree.map(jnp.zeros_like, influence)
        return InfluenceState(state, influence)

    def step(
        self, loss: StepLoss, params: OnlineParams, online_state: Any, inputs: OnlineBatch
    ) -> OnlineStep:
        """Use the influence of the past, then carry it through this step."""
        cell, (x, _, reset), (state, influence) = self.differentiated, inputs, online_state
        if reset is not None:
            first = self._first(params, state, x)
            state = restarted(cell, params.cell, state, reset)
            influence = jax.tree.map(lambda f, J: where_rows(reset, f, J), first, influence)
        pattern = self._pattern(params, state, x)
        after, ds, result = present(self, loss, params, state, inputs)
        past = from_past(pattern, ds, influence)

        def advance(state: State, x: Array, influence: Params) -> Params:
            return advanced(cell, pattern, params.cell, state, x, influence)

        influence = in_each_row(advance, x.shape[:-1])(state, x, influence)
        return result(InfluenceState(after, influence), past)

    def _pattern(self, params: OnlineParams, state: State, x: Any) -> Pattern:
        row = lambda a: jax.ShapeDtypeStruct(a.shape[x.ndim - 1 :], a.dtype)
        state, x = jax.tree.map(row, (state, x))
        return pattern_of(self.differentiated, params.cell, state, x, self.reach)

    def _first(self, params: OnlineParams, state: State, x: Any) -> Params:
        """The influence before the first step, which is the same for all rows."""
        pattern, batch_shape = self._pattern(params, state, x), x.shape[:-1]
        wide = jax.eval_shape(to_vector, state).dtype
        one = first_influence(self.differentiated, pattern, params.cell, wide)
        return jax.tree.map(lambda J: jnp.broadcast_to(J, (*batch_shape, *J.shape)), one)


@dataclasses.dataclass(frozen=True)
class RTRL(InfluenceRule):
    """J_t = D_t J_{t-1} + I_t,   D_t = ∂s_t/∂s_{t-1},   I_t = ∂⁺s_t/∂θ,   J_0 = ∂s_0/∂θ
    dL_t/dθ = ∂L_t/∂s_{t-1} · J_{t-1} + ∂⁺L_t/∂θ

    Real-time recurrent learning, an `OnlineRule`. Exact: with params held constant, the gradients of
    all steps add up to that of BPTT. Where params are updated on the way J_t mixes derivatives at
    older params, as with every online rule. A row of the batch has a J of its own. Which entries of J
    can ever differ from zero is read off the program of `cell.step`, never off values, and only those
    are kept. With n entries of the state and P params, each row needs at each step

    - where units mix, memory O(n P) and time O(n² P): for a dense cell of k units O(k³) and O(k⁴);
    - where they do not (diagonal, element-wise and linear cells), memory O(P) and time O(P): those of
      the step itself. In a stack of such cells this holds for the last layer alone.

    Args:
        cell: Any causal cell, stacks included; clocks, masks and keys in its state are passed by.
        every: Steps from one update to the next; None is one update a batch.

    Raises a ValueError for a cell that has no step.
    References: Williams, Zipser 1989, "A learning algorithm for continually running fully recurrent
    neural networks"; for cells whose units do not mix: Mozer 1989; Zucchet, Meier, Schug, Mujika,
    Sacramento 2023, "Online learning of long-range dependencies".

    >>> import seqjax as sj
    >>> sj.rtrl(sj.GRU(features=4), every=8)
    RTRL(cell=GRU(features=4), every=8)
    """

    cell: Cell
    every: int | None = 1


rtrl = RTRL


@dataclasses.dataclass(frozen=True)
class SnAp(InfluenceRule):
    """J_t = M_n ⊙ (D_t J_{t-1} + I_t),   D_t = ∂s_t/∂s_{t-1},   I_t = ∂⁺s_t/∂θ
    dL_t/dθ ≈ ∂L_t/∂s_{t-1} · J_{t-1} + ∂⁺L_t/∂θ

    Sparse n-step approximation, an `OnlineRule`: RTRL whose influence is cut to the pattern M_n of the
    entries that can differ from zero within n = `order` steps. SnAp-1 keeps, for each param, the states
    that it enters directly. Biased, unless n steps reach all that is ever reached: then it is RTRL.
    Where units do not mix n = 1 is enough for one leaf of state, n = 2 for an h that is read off a c.
    The pattern is read off the program of `cell.step`, never off values. The step that is under way
    counts whole (the paper cuts once more, before it multiplies by ∂L_t/∂s_t), which costs nothing and
    errs less.

    With P params that each reach d states within n steps, each row of the batch needs memory O(d P),
    and time O(d² P) beside that of D_t, which takes one VJP for each entry of the state of a dense cell.

    Args:
        cell: Any causal cell.
        order: n, at least 1.
        every: Steps from one update to the next; None is one update a batch.

    Raises a ValueError for an order below 1, and for a cell that has no step.
    Reference: Menick, Elsen, Evci, Osindero, Simonyan, Graves 2021, "Practical real time recurrent
    learning with a sparse approximation".

    >>> import seqjax as sj
    >>> sj.snap(sj.Elman(features=4), 2, every=8).order
    2
    """

    cell: Cell
    order: int = 1
    every: int | None = 1

    def __post_init__(self) -> None:
        """Validate the order too."""
        super().__post_init__()
        self.check_steps("order", self.order)
        checks.positive(f"{self.name}: order", self.order)

    @property
    def reach(self) -> int:
        """The order."""
        return self.order


snap = SnAp

FEW = 4
"""Up to so many states a product is quicker as a sum of products than as many small matmuls."""


def leafwise(function: Any, pattern: Pattern, *trees: Params) -> Params:
    """`function(states, kept, leaf, ...)` of each leaf of the trees, with what its entries reach."""
    structure = jax.tree.structure(trees[0])
    leaves = [structure.flatten_up_to(tree) for tree in trees]
    found = [function(*args) for args in zip(pattern.states, pattern.kept, *leaves, strict=True)]
    return jax.tree.unflatten(structure, found)


def first_influence(cell: Cell, pattern: Pattern, params: Params, wide: Any) -> Params:
    """J_0 = ∂s_0/∂θ of one row: not zero where the initial state is learned. wide: dtype of s."""
    if not pattern.at_start:
        empty = lambda states, _, a: jnp.zeros((len(states), *a.shape), widest(a.dtype, wide))
        return leafwise(empty, pattern, params)
    s, pull = jax.vjp(lambda params: start_by_vector(cell, params), params)
    (rows,) = jax.vmap(pull)(seeds(pattern.influence_colours, s.dtype))

    def pick(states: np.ndarray, kept: np.ndarray, leaf: Array, rows: Array) -> Array:
        return where_kept(kept, picked(pattern, states, rows).astype(widest(leaf.dtype, wide)))

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
