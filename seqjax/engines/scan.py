"""The plain scan: one `lax.scan` over the cell's own step. Every other engine must agree with it."""

import jax
from jax import lax
from jaxtyping import Array

from seqjax.numerics import widened
from seqjax.cell import Cell, Params, State
from seqjax.plan import Plan
from seqjax.engines.pieces import Steps


def scan(cell: Cell, params: Params, state: State, xs: Array, plan: Plan) -> tuple[State, Array]:
    """s_t, y_t = step(params, s_{t-1}, x_t) for t in the order of the plan.

    xs: [time, *batch, in_features] -> ys: [time, *batch, out_features].
    Time O(T), memory under reverse mode O(T) times what one step keeps.
    """
    return _scan(cell, params, state, xs, plan, keep_states=False)


def scan_keeping_states(
    cell: Cell, params: Params, state: State, xs: Array, plan: Plan
) -> tuple[State, Array]:
    """`scan`, of which reverse mode keeps the states and computes each step once more."""
    return _scan(cell, params, state, xs, plan, keep_states=True)


def _scan(
    cell: Cell, params: Params, state: State, xs: Array, plan: Plan, *, keep_states: bool
) -> tuple[State, Array]:
    steps = Steps(xs, plan.real, plan.cuts())
    return walk(cell, params, state, steps, plan, keep_states=keep_states)


def walk(
    cell: Cell,
    params: Params,
    state: State,
    steps: Steps,
    plan: Plan,
    *,
    keep_states: bool = False,
) -> tuple[State, Array]:
    """The scan over what it reads at each step; of the plan the fresh state and the direction."""
    params, narrow = widened(params)

    def body(state, inputs):
        x, real, cut = inputs
        state = plan.restart(cut, state)
        after, y = cell.step(narrow(params), state, x)
        return plan.hold(real, after, state), y

    body = jax.checkpoint(body, prevent_cse=False) if keep_states else body
    return lax.scan(body, state, tuple(steps), reverse=plan.reverse)
