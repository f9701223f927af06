"""Chunks of time for gated cells: a backward pass of our own, which keeps the states and no gates."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero, custom_vjp_primal_tree_values
from jaxtyping import Array

from seqjax.arithmetic import accumulator, recurrent_matmul, where_rows
from seqjax.cell import Cell, GatedCell, Params, State, as_gated
from seqjax.floating import join_floating, split_floating
from seqjax.plan import Plan
from seqjax.unroll.pieces import Steps, scan_pieces
from seqjax.unroll.scan import scan

CHUNK = 16
"""Steps whose inputs are projected, and whose gates are computed again, at once."""


class Kept(NamedTuple):
    """What reverse mode keeps: all that came in, and s_{1…T}."""

    params: Params
    fresh: Any
    start: State
    steps: Steps
    after: State


class Sums(NamedTuple):
    """The gradients that are summed over time, in at least float32."""

    project: Params
    kernel: Array
    gate_params: Params
    fresh: Any


def chunked(cell: Cell, params: Params, state: State, xs: Array, plan: Plan) -> tuple[State, Array]:
    """The values of the plain scan; what reverse mode keeps is the states and nothing else.

    Forward, chunk by chunk: z for all its steps at once, then a loop over r and the gates.
    Backward, chunk by chunk from the end: z, r and the gates of all its steps at once, again, from the
    states that were kept; a loop that carries ∂L/∂s_t back and emits ∂L/∂z_t and ∂L/∂r_t; and then
    ∂L/∂W, ∂L/∂U, ∂L/∂b and ∂L/∂x of the whole chunk as single matmuls.

    The derivative is a `custom_vjp`: reverse mode over itself, forward over reverse (a Hessian-vector
    product) and vmap work, forward mode alone does not.
    """
    gated = as_gated(cell)
    assert gated is not None  # the driver gives other cells to other engines
    if xs.shape[0] == 0:
        return scan(cell, params, state, xs, plan)
    steps = Steps(xs, plan.real, plan.cuts())
    return _run(gated, plan.reverse, params, plan.fresh, state, steps)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _run(
    cell: GatedCell, reverse: bool, params: Params, fresh: Any, state: State, steps: Steps
) -> tuple[State, Array]:
    result, _ = _forward(cell, reverse, params, fresh, state, steps)
    return result


def _forward(
    cell: GatedCell, reverse: bool, params: Params, fresh: Any, state: State, steps: Steps
) -> tuple[tuple[State, Array], State]:
    """(s_T, y_{1…T}) and s_{1…T}."""
    kernel, gate_params = cell.recurrent_kernel(params), cell.gate_params(params)
    plan = Plan(None, None, fresh, reverse)

    def chunk(state: State, steps: Steps) -> tuple[State, Any]:
        def step(state: State, inputs: Any) -> tuple[State, Any]:
            z, real, cut = inputs
            state = plan.restart(cut, state)
            r = recurrent_matmul(cell.recurrent_input(state), kernel)
            after, y = cell.gate(gate_params, z, r, state)
            after = plan.hold(real, after, state)
            # What can be read off the states is not kept beside them.
            return after, (after, None if cell.emits else y)

        return lax.scan(step, state, (cell.project(params, steps.x), steps.real, steps.cut))

    last, (after, ys) = scan_pieces(chunk, state, steps, length=CHUNK, reverse=reverse)
    return (last, cell.emit(after) if cell.emits else ys), after


def _keep(cell: GatedCell, reverse: bool, *arguments: Any) -> tuple[tuple[State, Array], Kept]:
    """`_forward`, and what `_backward` needs."""
    params, fresh, start, steps = custom_vjp_primal_tree_values(arguments)
    result, after = _forward(cell, reverse, params, fresh, start, steps)
    return result, Kept(params, fresh, start, steps, after)


def _backward(cell: GatedCell, reverse: bool, kept: Kept, cotangents: Any) -> Any:
    """∂L/∂(params, fresh, s_0, xs) from ∂L/∂s_T and ∂L/∂y_{1…T}."""
    params, fresh = kept.params, kept.fresh
    d_last, d_ys = cotangents
    weights = lambda params: (cell.recurrent_kernel(params), cell.gate_params(params))
    (kernel, gate_params), pull_weights = jax.vjp(weights, params)
    plan = Plan(None, None, fresh, reverse)
    d_ys = None if isinstance(d_ys, SymbolicZero) else d_ys  # nothing was asked of the outputs
    time = jnp.arange(kept.steps.x.shape[0])

    def rule(gate_params: Params, z: Array, r: Array, state: Any, others: Any, real: Any) -> Any:
        """A step after its matmul; what has no derivative stands in `others` and `real`."""
        whole = join_floating(state, others)
        new, y = cell.gate(gate_params, z, r, whole)
        new, _ = split_floating(plan.hold(real, new, whole))
        return new, None if d_ys is None else y

    def chunk(carry: Any, inputs: Any) -> Any:
        """One chunk, its steps from the last to the first."""
        d_state, sums = carry
        steps, after, time, d_ys = inputs
        before = _before(after, time[-1], kept, reverse)
        state, others = split_floating(jax.vmap(plan.restart)(steps.cut, before))

        # All steps at once: what they computed, and what pulls a gradient back through each.
        z, pull_project = jax.vjp(cell.project, params, steps.x)
        read = lambda state, others: cell.recurrent_input(join_floating(state, others))
        m, pull_read = jax.vmap(lambda s, o: jax.vjp(lambda s: read(s, o), s))(state, others)
        r, pull_kernel = jax.vjp(lambda kernel: recurrent_matmul(m, kernel), kernel)
        _, pull_rule = jax.vmap(
            lambda z, r, s, o, real: jax.vjp(
                lambda g, z, r, s: rule(g, z, r, s, o, real), gate_params, z, r, s
            )
        )(z, r, state, others, steps.real)
        _, pull_matmul = jax.vjp(lambda m: recurrent_matmul(m, kernel), jnp.zeros_like(m[0]))

        def step(carry: Any, inputs: Any) -> Any:
            d_state, d_gate_params, d_fresh = carry
            pull_rule, pull_read, cut, d_y = inputs
            d_gate, d_z, d_r, d_direct = pull_rule((d_state, d_y))
            (d_read,) = pull_read(*pull_matmul(d_r))
            d_state = jax.tree.map(jnp.add, d_direct, d_read)
            d_state, d_begun = _divided(cut, d_state, d_fresh)
            carry = d_state, _added(d_gate_params, d_gate), _added(d_fresh, d_begun)
            return carry, (d_z, d_r)

        carry = d_state, sums.gate_params, sums.fresh
        inputs = pull_rule, pull_read, steps.cut, d_ys
        (d_state, d_gate_params, d_fresh), (d_z, d_r) = lax.scan(step, carry, inputs)
        d_project, d_x = pull_project(d_z)
        (d_kernel,) = pull_kernel(d_r)
        d_project, d_kernel = _added((sums.project, sums.kernel), (d_project, d_kernel))
        return (d_state, Sums(d_project, d_kernel, d_gate_params, d_fresh)), d_x

    fresh, _ = split_floating(fresh)
    sums = Sums(*jax.tree.map(_zero_sum, (params, kernel, gate_params, fresh)))
    (d_start, sums), d_xs = scan_pieces(
        chunk,
        (jax.tree.map(_instantiated, d_last, kept.start), sums),
        (kept.steps, kept.after, time, d_ys),
        length=CHUNK,
        reverse=not reverse,
    )
    (d_params,) = pull_weights(_like((sums.kernel, sums.gate_params), (kernel, gate_params)))
    d_params = _like(_added(sums.project, d_params), params)
    return d_params, _like(sums.fresh, fresh), d_start, Steps(d_xs, None, None)


_run.defvjp(_keep, _backward, symbolic_zeros=True)


def _before(chunk: State, earliest: Array, kept: Kept, reverse: bool) -> State:
    """s_{t-1} of each step of a chunk of s_t that lies from its last step, in the walk, to its first."""
    steps = kept.steps.x.shape[0]
    previous, begins = (
        (earliest + 1, earliest == steps - 1) if reverse else (earliest - 1, earliest == 0)
    )

    def shifted(chunk: Array, all_after: Array, start: Array) -> Array:
        # Read out of what is kept: states shifted by one step would be a second copy of them all.
        before = lax.dynamic_index_in_dim(
            all_after, jnp.clip(previous, 0, steps - 1), keepdims=False
        )
        return jnp.concatenate([chunk[1:], jnp.where(begins, start, before)[None]])

    return jax.tree.map(shifted, chunk, kept.after, kept.start)


def _divided(cut: Array | None, d_entered: Any, d_fresh: Any) -> tuple[Any, Any]:
    """∂L/∂s_{t-1} and ∂L/∂fresh, from ∂L/∂s after `Plan.restart`: at a cut, fresh has all of it."""
    if cut is None:
        return d_entered, jax.tree.map(jnp.zeros_like, d_fresh)
    absent = lambda leaf: leaf is None
    before = lambda f, d: d if f is None or d is None else where_rows(cut, jnp.zeros_like(d), d)
    begun = lambda f, d: None if f is None else where_rows(cut, d, jnp.zeros_like(d))
    return (
        jax.tree.map(before, d_fresh, d_entered, is_leaf=absent),
        jax.tree.map(begun, d_fresh, d_entered, is_leaf=absent),
    )


def _instantiated(cotangent: Any, leaf: Array) -> Array | None:
    """A cotangent as an array; None for a leaf that has no derivative."""
    if not jnp.issubdtype(leaf.dtype, jnp.inexact):
        return None
    return jnp.zeros_like(leaf) if isinstance(cotangent, SymbolicZero) else cotangent


def _zero_sum(leaf: Array) -> Array:
    """What a sum over time of gradients of `leaf` starts from."""
    return jnp.zeros(leaf.shape, accumulator(leaf.dtype))


def _added(sums: Any, terms: Any) -> Any:
    return jax.tree.map(lambda a, b: a + b.astype(a.dtype), sums, terms)


def _like(tree: Any, to: Any) -> Any:
    return jax.tree.map(lambda a, b: a.astype(b.dtype), tree, to)
