"""Loops over time: the plain scan, which every other engine must agree with, pieces and segments."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool

from seqjax.cell import Cell, Params, RunCell, State
from seqjax.numerics import widened
from seqjax.plan import Plan

Body = Callable[[Any, Any], tuple[Any, Any]]


class Steps(NamedTuple):
    """The inputs of each step: x, whether it is valid, and whether the state is reset before it."""

    x: Array
    valid: Bool[Array, "time *batch"] | None
    cut: Bool[Array, "time *batch"] | None

    @classmethod
    def of(cls, xs: Array, plan: Plan) -> "Steps":
        """Collect what the engines scan over."""
        return cls(xs, plan.valid, plan.cuts())


def scan(cell: Cell, params: Params, state: State, xs: Array, plan: Plan) -> tuple[State, Array]:
    """s_t, y_t = step(params, s_{t-1}, x_t) for t in the order of the plan.

    xs: [time, *batch, in_features] -> ys: [time, *batch, out_features].
    Time O(T), memory under reverse mode O(T) times what one step keeps.
    """
    return _scan(cell, params, state, xs, plan, keep_states=False)


def scan_keeping_states(
    cell: Cell, params: Params, state: State, xs: Array, plan: Plan
) -> tuple[State, Array]:
    """Run `scan`; reverse mode keeps the states and recomputes each step."""
    return _scan(cell, params, state, xs, plan, keep_states=True)


def _scan(
    cell: Cell, params: Params, state: State, xs: Array, plan: Plan, *, keep_states: bool
) -> tuple[State, Array]:
    return walk(cell, params, state, Steps.of(xs, plan), plan, keep_states=keep_states)


def walk(
    cell: Cell,
    params: Params,
    state: State,
    steps: Steps,
    plan: Plan,
    *,
    keep_states: bool = False,
) -> tuple[State, Array]:
    """Scan over steps whose masks are given; the plan adds the fresh state and the direction."""
    params, narrow = widened(params)

    def body(state, inputs):
        x, valid, cut = inputs
        state = plan.restart(cut, state)
        after, y = cell.step(narrow(params), state, x)
        return plan.hold(valid, after, state), y

    body = jax.checkpoint(body, prevent_cse=False) if keep_states else body
    return lax.scan(body, state, tuple(steps), reverse=plan.reverse)


def scan_pieces(
    body: Body, carry: Any, sequence: Any, *, length: int, reverse: bool, again: bool = False
) -> tuple[Any, Any]:
    """`lax.scan` over pieces of `length` steps: carry, out = body(carry, piece).

    sequence: a pytree of [time, ...]; a piece is the same pytree of [steps, ...], and `body` walks it in
        the same direction. out: a pytree of [steps, ...]; what comes back is [time, ...].
    reverse: from the last piece to the first.
    again: reverse mode keeps the carry of each piece alone, and runs the piece once more.

    The last piece of the sequence is shorter where `length` does not divide the time; a reverse walk
    begins with it. No steps at all are one piece of none.
    """
    time = jax.tree.leaves(sequence)[0].shape[0]
    whole, rest = divmod(time, length)

    def walk(steps: int) -> Body:
        def piece(carry: Any, cut: Any) -> tuple[Any, Any]:
            cut = jax.tree.map(lambda c, a: c.reshape(steps, *a.shape[1:]), cut, sequence)
            return body(carry, cut)

        # There is nothing to share between the loops of the two passes, so no barrier against it.
        return jax.checkpoint(piece, prevent_cse=False) if again else piece

    def walk_whole(carry: Any) -> tuple[Any, Any]:
        if whole == 1:  # no loop around one piece: the compiler sees through it
            return walk(length)(carry, jax.tree.map(lambda a: a[:length], sequence))
        # Without axes of size 1, which the compiler may lay out in another order, by a copy of it all.
        cut = lambda a: a[: whole * length].reshape(
            whole, length, *(n for n in a.shape[1:] if n != 1)
        )
        cuts = jax.tree.map(cut, sequence)
        carry, out = lax.scan(walk(length), carry, cuts, reverse=reverse)
        return carry, jax.tree.map(lambda a: a.reshape(whole * length, *a.shape[2:]), out)

    def walk_rest(carry: Any) -> tuple[Any, Any]:
        return walk(rest)(carry, jax.tree.map(lambda a: a[whole * length :], sequence))

    if not whole:
        return walk_rest(carry)
    if not rest:
        return walk_whole(carry)
    if reverse:
        carry, last = walk_rest(carry)
        carry, first = walk_whole(carry)
    else:
        carry, first = walk_whole(carry)
        carry, last = walk_rest(carry)
    # What pulls a gradient back carries its trace in the form of its pytree, so only leaves are alike.
    joined = map(lambda a, b: jnp.concatenate([a, b]), *map(jax.tree.leaves, (first, last)))
    return carry, jax.tree.unflatten(jax.tree.structure(first), list(joined))


def walked_forward(body: Body, reverse: bool) -> Body:
    """`body` for pieces that lie in the order of the walk, so that it need not know the direction."""

    def turned(carry: Any, piece: Any) -> tuple[Any, Any]:
        carry, out = body(carry, _turned(piece))
        return carry, _turned(out)

    return turned if reverse else body


def _turned(tree: Any) -> Any:
    """[steps, ...] from the last step to the first."""
    return jax.tree.map(lambda a: lax.rev(a, (0,)), tree)


def segmented(
    run: RunCell, cell: Cell, params: Params, state: State, xs: Array, plan: Plan, length: int
) -> tuple[State, Array]:
    """Run in segments of `length` steps, all layers of a segment before the next segment.

    Reverse mode keeps the inputs, the outputs and one state for each segment, and recomputes each
    segment: memory O(T / length + length) states instead of O(T), for one more forward pass.
    Reference: Chen et al. 2016, "Training deep nets with sublinear memory cost"; over time: Gruslys et
    al. 2016, "Memory-efficient backpropagation through time".
    """
    params, narrow = widened(params)

    def segment(state: State, steps: Steps) -> tuple[State, Array]:
        # Steps lie in the order of the walk, so within a segment the direction is forward.
        return run(cell, narrow(params), state, steps.x, plan.within(steps.valid, steps.cut))

    body = walked_forward(segment, plan.reverse)
    return scan_pieces(
        body, state, Steps.of(xs, plan), length=length, reverse=plan.reverse, again=True
    )


def is_segmented(remat: str | int | None) -> bool:
    """Whether `remat` asks for segments: "sqrt", or a number of steps."""
    return remat == "sqrt" or isinstance(remat, int | np.integer)


def segment_length(remat: str | int | None, time: int) -> int:
    """The number of steps of a segment: `remat` itself, or ⌈√T⌉ for "sqrt"."""
    return math.isqrt(max(0, time - 1)) + 1 if isinstance(remat, str) else int(remat or 1)
