"""The chunked engine for gated cells: a custom backward pass that loops over the states alone."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero, custom_vjp_primal_tree_values
from jaxtyping import Array

from seqjax._tree import join_floating, split_floating
from seqjax.cell import Cell, GatedCell, Params, State, as_gated
from seqjax.engines.scan import Steps, scan, scan_pieces, walk
from seqjax.engines.tuned import chunk_length
from seqjax.gates import SAVED
from seqjax.numerics import accumulator, recurrent_matmul, where_rows
from seqjax.plan import Plan

SAVE_GATES = jax.checkpoint_policies.save_only_these_names(SAVED)


class ScanConfig(NamedTuple):
    """The direction of a run, and whether reverse mode keeps the gates beside the states."""

    reverse: bool
    keep_gates: bool


class Residuals(NamedTuple):
    """The residuals of a run: its arguments, s_{1…T}, and the pullback of the gates of each step.

    pulls: None if only the states are saved.
    """

    params: Params
    fresh: Any
    start: State
    steps: Steps
    after: State
    pulls: Any


class Sums(NamedTuple):
    """Gradients summed over time, in at least float32."""

    project: Params
    kernel: Array
    gate_params: Params
    fresh: Any


def chunked(cell: Cell, params: Params, state: State, xs: Array, plan: Plan) -> tuple[State, Array]:
    """Run with the values of the plain scan; reverse mode keeps the states and the gates.

    Forward, chunk by chunk: z for all its steps at once, then a loop over r and the gates.
    Backward, chunk by chunk from the end: a loop that carries ∂L/∂s_t back and emits ∂L/∂z_t and
    ∂L/∂r_t; and then ∂L/∂W, ∂L/∂U, ∂L/∂b and ∂L/∂x of the whole chunk as single matmuls.

    The derivative is a `custom_vjp`: reverse mode over itself, forward over reverse (a Hessian-vector
    product) and vmap work, forward mode alone does not.
    """
    return _chunked(cell, params, state, xs, plan, keep_gates=True)


def chunked_keeping_states(
    cell: Cell, params: Params, state: State, xs: Array, plan: Plan
) -> tuple[State, Array]:
    """Run `chunked`; reverse mode keeps the states and nothing else.

    The backward pass recomputes z, r and the gates for all steps of a chunk at once, from the states.
    """
    return _chunked(cell, params, state, xs, plan, keep_gates=False)


def _chunked(
    cell: Cell, params: Params, state: State, xs: Array, plan: Plan, *, keep_gates: bool
) -> tuple[State, Array]:
    gated = as_gated(cell)
    assert gated is not None  # the driver gives other cells to other engines
    if xs.shape[0] == 0:
        return scan(cell, params, state, xs, plan)
    config = ScanConfig(plan.reverse, keep_gates)
    return _run(gated, config, params, plan.fresh, state, Steps.of(xs, plan))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _run(
    cell: GatedCell, config: ScanConfig, params: Params, fresh: Any, state: State, steps: Steps
) -> tuple[State, Array]:
    if not (cell.additive and cell.saves_gates):
        # Without residuals XLA:CPU fuses the slices of z and r with the read of z from its chunk, and
        # does not vectorise that loop: the plain scan takes two thirds of the time.
        return walk(cell, params, state, steps, Plan(fresh=fresh, reverse=config.reverse))
    return _forward(cell, config, params, fresh, state, steps, differentiated=False)[0]


def _keep(
    cell: GatedCell, config: ScanConfig, *arguments: Any
) -> tuple[tuple[State, Array], Residuals]:
    """Run, and keep the residuals of `_backward`."""
    params, fresh, start, steps = custom_vjp_primal_tree_values(arguments)
    result, after, pulls = _forward(cell, config, params, fresh, start, steps, differentiated=True)
    return result, Residuals(params, fresh, start, steps, after, pulls)


def _forward(
    cell: GatedCell,
    config: ScanConfig,
    params: Params,
    fresh: Any,
    state: State,
    steps: Steps,
    *,
    differentiated: bool,
) -> tuple[tuple[State, Array], State, Any]:
    """Return (s_T, y_{1…T}), s_{1…T}, and the pullback of each step if `differentiated`."""
    kernel, gate_params = cell.recurrent_kernel(params), cell.gate_params(params)
    plan = Plan(fresh=fresh, reverse=config.reverse)

    def chunk(state: State, steps: Steps) -> tuple[State, Any]:
        def step(state: State, inputs: Any) -> tuple[State, Any]:
            z, valid, cut = inputs
            state = plan.restart(cut, state)
            r = recurrent_matmul(cell.recurrent_input(state), kernel)
            if differentiated and config.keep_gates:
                after, y, pull = _pulled(cell, plan, gate_params, z, r, state, valid)
            else:
                after, y = cell.gate(gate_params, z, r, state)
                after, pull = plan.hold(valid, after, state), None
            # Outputs that can be read off the states are not kept beside them.
            return after, (after, None if cell.emits else y, pull)

        inputs = cell.project(params, steps.x), steps.valid, steps.cut
        return lax.scan(step, state, inputs, reverse=config.reverse)

    length = _steps_of_a_chunk(cell, config, params, steps.x)
    last, (after, ys, pulls) = scan_pieces(
        chunk, state, steps, length=length, reverse=config.reverse
    )
    return (last, cell.emit(after) if cell.emits else ys), after, pulls


def _steps_of_a_chunk(cell: GatedCell, config: ScanConfig, params: Params, xs: Array) -> int:
    """Choose the length of a chunk; longer if projections are small, unless the gates are recomputed."""
    if not config.keep_gates:
        return chunk_length(xs.shape[0])
    one = jax.ShapeDtypeStruct(xs.shape[1:], xs.dtype)
    return chunk_length(xs.shape[0], jax.eval_shape(cell.project, params, one).size)


def _pulled(
    cell: GatedCell,
    plan: Plan,
    gate_params: Params,
    z: Array,
    r: Array,
    state: State,
    valid: Any,
) -> tuple[State, Array, Any]:
    """Return s_t, y_t, and the pullback of the gates, whose residuals are saved by name."""
    floating, others = split_floating(state)

    def rule(gate_params: Params, z: Array, r: Array, floating: Any) -> Any:
        whole = join_floating(floating, others)
        after, y = cell.gate(gate_params, z, r, whole)
        after, others_after = split_floating(plan.hold(valid, after, whole))
        return (after, y), others_after

    rule = jax.checkpoint(rule, policy=SAVE_GATES, prevent_cse=False)
    if cell.additive:  # one cotangent serves z and r
        once = lambda gate_params, z, floating: rule(gate_params, z, r, floating)
        (after, y), pull, others = jax.vjp(once, gate_params, z, floating, has_aux=True)
    else:
        (after, y), pull, others = jax.vjp(rule, gate_params, z, r, floating, has_aux=True)
    return join_floating(after, others), y, pull


def kept_of_step(cell: GatedCell, params: Params, state: State, x: Array) -> tuple[State, Any]:
    """Return the state after one step, and the residuals of its gates."""
    r = recurrent_matmul(cell.recurrent_input(state), cell.recurrent_kernel(params))
    z, gate_params = cell.project(params, x), cell.gate_params(params)
    after, _, pull = _pulled(cell, Plan(), gate_params, z, r, state, None)
    return after, pull


def _backward(cell: GatedCell, config: ScanConfig, saved: Residuals, cotangents: Any) -> Any:
    """Compute ∂L/∂(params, fresh, s_0, xs) from ∂L/∂s_T and ∂L/∂y_{1…T}."""
    params, fresh = saved.params, saved.fresh
    d_last, d_ys = cotangents
    weights = lambda params: (cell.recurrent_kernel(params), cell.gate_params(params))
    (kernel, gate_params), pull_weights = jax.vjp(weights, params)
    pull_matmul = _pull_matmul(kernel)
    plan = Plan(fresh=fresh, reverse=config.reverse)
    no_d_y = jnp.zeros(d_ys.shape[1:], d_ys.dtype)
    d_ys = None if isinstance(d_ys, SymbolicZero) else d_ys  # the loss does not use the outputs
    time = jnp.arange(saved.steps.x.shape[0])

    def rule(gate_params: Params, z: Array, r: Array, state: Any, others: Any, valid: Any) -> Any:
        """Compute a step after its matmul; `others` and `valid` have no derivative."""
        whole = join_floating(state, others)
        new, y = cell.gate(gate_params, z, r, whole)
        new, _ = split_floating(plan.hold(valid, new, whole))
        return new, y

    def again(z: Array, r: Array, state: Any, others: Any, valid: Any) -> Any:
        """Recompute the pullback of the gates of a step from the state before it."""
        of_floats = lambda g, z, r, s: rule(g, z, r, s, others, valid)
        return jax.vjp(of_floats, gate_params, z, r, state)[1]

    def flat(function: Callable[[Any, Array], Array], weights: Any, x: Array) -> Array:
        """Apply to [steps, *batch, …] as [rows, …], so that the weight gradient is one matmul."""
        y = function(weights, x.reshape(-1, x.shape[-1]))
        return y.reshape(*x.shape[:-1], y.shape[-1])

    def chunk(carry: Any, inputs: Any) -> Any:
        """Go back through one chunk, from the last step of the walk to the first."""
        d_state, sums = carry
        steps, after, pulls, time, d_ys = inputs
        before = _before(after, time, saved, config.reverse)
        state, others = split_floating(jax.vmap(plan.restart)(steps.cut, before))

        # For all steps at once: the operands, and the pullback of each step.
        z, pull_project = jax.vjp(lambda params, x: flat(cell.project, params, x), params, steps.x)
        read = lambda state, others: cell.recurrent_input(join_floating(state, others))
        m, pull_read = jax.vmap(lambda s, o: jax.vjp(lambda s: read(s, o), s))(state, others)
        r, pull_kernel = jax.vjp(lambda U: flat(lambda U, m: recurrent_matmul(m, U), U, m), kernel)
        pull_rule = jax.vmap(again)(z, r, state, others, steps.valid) if pulls is None else pulls

        def step(carry: Any, inputs: Any) -> Any:
            d_state, d_gate_params, d_fresh = carry
            pull_rule, pull_read, cut, d_y = inputs
            d_y = no_d_y if d_y is None else d_y
            d_gate, *d_halves, d_direct = pull_rule((d_state, d_y))
            (d_read,) = pull_read(pull_matmul(d_halves[-1]))
            d_state = jax.tree.map(jnp.add, d_direct, d_read)
            d_state, d_begun = _divided(cut, d_state, d_fresh)
            carry = d_state, _added(d_gate_params, d_gate), _added(d_fresh, d_begun)
            return carry, d_halves

        carry = d_state, sums.gate_params, sums.fresh
        inputs = pull_rule, pull_read, steps.cut, d_ys
        (d_state, d_gate_params, d_fresh), d_halves = lax.scan(
            step, carry, inputs, reverse=not config.reverse
        )
        d_project, d_x = pull_project(d_halves[0])
        (d_kernel,) = pull_kernel(d_halves[-1])
        d_project, d_kernel = _added((sums.project, sums.kernel), (d_project, d_kernel))
        return (d_state, Sums(d_project, d_kernel, d_gate_params, d_fresh)), d_x

    fresh, _ = split_floating(fresh)
    sums = Sums(*jax.tree.map(_zero_sum, (params, kernel, gate_params, fresh)))
    (d_start, sums), d_xs = scan_pieces(
        chunk,
        (jax.tree.map(_instantiated, d_last, saved.start), sums),
        (saved.steps, saved.after, saved.pulls, time, d_ys),
        length=_steps_of_a_chunk(cell, config, params, saved.steps.x),
        reverse=not config.reverse,
    )
    (d_params,) = pull_weights(_like((sums.kernel, sums.gate_params), (kernel, gate_params)))
    d_params = _like(_added(sums.project, d_params), params)
    return d_params, _like(sums.fresh, fresh), d_start, Steps(d_xs, None, None)


_run.defvjp(_keep, _backward, symbolic_zeros=True)


def _pull_matmul(kernel: Array) -> Callable[[Array], Array]:
    """Return the map from ∂L/∂r to ∂L/∂m for r = m U; a dense U is transposed once, not at each step."""
    if kernel.ndim == 2:
        transposed = kernel.T
        return lambda d_r: recurrent_matmul(d_r, transposed)
    heads, rows, *_ = kernel.shape
    like = lambda d_r: jax.ShapeDtypeStruct((*d_r.shape[:-1], heads * rows), d_r.dtype)
    multiply = lambda m: recurrent_matmul(m, kernel)
    return lambda d_r: jax.linear_transpose(multiply, like(d_r))(d_r)[0]


def _before(chunk: State, time: Array, saved: Residuals, reverse: bool) -> State:
    """Return the state before each step of a chunk, from the states after them."""
    steps = saved.steps.x.shape[0]
    if reverse:
        neighbour, begins = time[-1] + 1, time[-1] == steps - 1
    else:
        neighbour, begins = time[0] - 1, time[0] == 0

    def shifted(chunk: Array, all_after: Array, start: Array) -> Array:
        # Read from the residuals: states shifted by one step would be a second copy of all of them.
        outside = lax.dynamic_index_in_dim(
            all_after, jnp.clip(neighbour, 0, steps - 1), keepdims=False
        )
        outside = jnp.where(begins, start, outside)[None]
        parts = [chunk[1:], outside] if reverse else [outside, chunk[:-1]]
        return jnp.concatenate(parts)

    return jax.tree.map(shifted, chunk, saved.after, saved.start)


def _divided(cut: Array | None, d_entered: Any, d_fresh: Any) -> tuple[Any, Any]:
    """Split ∂L/∂s after `Plan.restart` into ∂L/∂s_{t-1} and ∂L/∂fresh, which has all of it at a cut."""
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
    """Instantiate a cotangent as an array; None for a leaf without a derivative."""
    if not jnp.issubdtype(leaf.dtype, jnp.inexact):
        return None
    return jnp.zeros_like(leaf) if isinstance(cotangent, SymbolicZero) else cotangent


def _zero_sum(leaf: Array) -> Array:
    """Return a zero to accumulate gradients of `leaf` over time."""
    return jnp.zeros(leaf.shape, accumulator(leaf.dtype))


def _added(sums: Any, terms: Any) -> Any:
    return jax.tree.map(lambda a, b: a + b.astype(a.dtype), sums, terms)


def _like(tree: Any, to: Any) -> Any:
    return jax.tree.map(lambda a, b: a.astype(b.dtype), tree, to)
