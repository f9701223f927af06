"""A run of which only sums over time are kept, such as a loss: outputs exist a few steps at a time."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Key

from seqjax import checks
from seqjax.cell import Cell, Params, State
from seqjax.engines.dispatch import WITHIN, Remat, check_options, run_cell
from seqjax.engines.driver import forward_mode_explained, prepare
from seqjax.engines.scan import (
    Steps,
    is_segmented,
    scan_pieces,
    segment_length,
    walked_forward,
)
from seqjax.engines.validate import as_arrays, check_cell
from seqjax.numerics import accumulator, widened
from seqjax.plan import Plan

FOLDED = 64
"""Steps whose outputs exist at once, where `remat` does not say."""


def unroll_fold(
    cell: Cell,
    params: Params,
    xs: ArrayLike,
    measure: Callable[[Array, Any], Any],
    operands: Any = (),
    state: State = None,
    *,
    key: Key[Array, ""] | None = None,
    lengths: ArrayLike | Sequence[int] | None = None,
    resets: ArrayLike | None = None,
    reverse: bool = False,
    engine: str = "auto",
    remat: Remat = "auto",
) -> tuple[State, Any]:
    """s_t, y_t = step(params, s_{t-1}, x_t) for t = 1 … T; gives (s_T, Σ_t measure(y_t, operand_t)).

    The loss, folded into the run. `measure(ys, operands)` is called on some steps at a time, ys:
    [steps, *batch, out_features] and every leaf of operands [steps, ...], in the order of the walk, and
    gives a pytree of sums over those steps, `sj.losses.mean_over(...)` for instance: what comes
    back is their sum over all steps. So neither the outputs nor what is made of them, such as logits
    [time, *batch, vocabulary], ever exist for more steps than that, in reverse mode either, which
    computes them again. Weights that `measure` uses may be closed over; keep those in float32, as their
    gradients are summed over the calls in their own dtype.

    operands: a pytree of [time, ...], targets and masks for instance; () where there are none.
    remat: what else reverse mode keeps, as in `sj.unroll`. With "sqrt" or an integer its segments are
        the steps of one call, and nothing but a state for each is kept; with the others it is 64.
    The other arguments are those of `sj.unroll`. A cell that reads the future, as both directions do,
    needs all its outputs at once, and only `measure` is called on some at a time.

    It is not compiled by itself: call it within your own `jax.jit`.
    Raises the ValueErrors of `sj.unroll`, and one for operands of another time and for a `measure` whose
    result has an axis of steps.

    >>> import jax, jax.numpy as jnp, seqjax as sj
    >>> cell = sj.GRU(features=4)
    >>> params = cell.init(jax.random.key(0), in_features=2)
    >>> xs, targets = jnp.ones((100, 3, 2)), jnp.zeros((100, 3, 4))
    >>> def measure(ys, targets):
    ...     return sj.losses.mean_over(jnp.square(ys - targets))
    >>> def loss(params):
    ...     _, mean = sj.unroll_fold(cell, params, xs, measure, targets, remat="sqrt")
    ...     return mean.value
    >>> gradient = jax.jit(jax.grad(loss))(params)
    """
    check_cell(cell)
    check_options(engine, remat, reverse)
    checks.function("unroll_fold: measure", measure)
    checks.key("unroll: key", key)
    xs, lengths, resets = as_arrays(xs, lengths, resets)
    operands = jax.tree_util.tree_map_with_path(
        lambda path, leaf: checks.array(f"unroll_fold: operands{jax.tree_util.keystr(path)}", leaf),
        operands,
    )
    state, xs, plan = prepare(cell, params, xs, state, key, lengths, resets, reverse)
    time = xs.shape[0]
    for path, leaf in jax.tree_util.tree_leaves_with_path(operands):
        if leaf.shape[:1] != (time,):
            raise ValueError(
                f"unroll_fold: xs has {time} time steps but operands{jax.tree_util.keystr(path)} has "
                f"shape {leaf.shape}; expected [time, ...]"
            )
    with forward_mode_explained():
        if cell.causal:
            wide, narrow = widened(params)
            run = lambda *arguments, **options: run_cell(cell, narrow(wide), *arguments, **options)
        else:  # its outputs are all there before the first of them is measured
            state, xs = run_cell(cell, params, state, xs, plan, engine=engine, remat=remat)
            run = lambda state, ys, plan, **options: (state, ys)
        return fold_pieces(run, measure, state, xs, operands, plan, engine=engine, remat=remat)


def fold_pieces(
    run: Callable[..., tuple[State, Array]],
    measure: Callable[[Array, Any], Any],
    state: State,
    xs: Array,
    operands: Any,
    plan: Plan,
    *,
    engine: str,
    remat: Remat,
) -> tuple[State, Any]:
    """`run` and `measure` over pieces of time, in the order of the walk."""
    time, in_segments = xs.shape[0], is_segmented(remat)
    length = segment_length(remat, time) if in_segments else min(FOLDED, max(1, time))
    options = {"engine": engine, "remat": WITHIN if in_segments else remat}
    if time > length and not in_segments:  # in one piece nothing would be saved by it
        measure = jax.checkpoint(measure, prevent_cse=False)

    def piece(state: State, inputs: Any) -> tuple[State, Any]:
        steps, operands = inputs
        within = plan.within(steps.valid, steps.cut)
        state, ys = run(state, steps.x, within, **options)
        return state, measure(ys, operands)

    def body(carry: Any, inputs: Any) -> tuple[Any, None]:
        state, sums = carry
        state, more = piece(state, inputs)
        return (state, jax.tree.map(lambda a, b: a + b.astype(a.dtype), sums, more)), None

    inputs = Steps.of(xs, plan), operands
    of = lambda steps: jax.eval_shape(piece, state, jax.tree.map(lambda a: a[:steps], inputs))[1]
    shapes = of(length)
    if time > length:
        checks.same_tree(
            "unroll_fold: what measure gives for one step",
            of(1),
            shapes,
            f"measure of {length} steps",
        )
    # Floating sums are at least float32: bfloat16 would soon take no more.
    wide = lambda a: accumulator(a.dtype) if jnp.issubdtype(a.dtype, jnp.inexact) else a.dtype
    zeros = jax.tree.map(lambda a: jnp.zeros(a.shape, wide(a)), shapes)
    (state, sums), _ = scan_pieces(
        walked_forward(body, plan.reverse),
        (state, zeros),
        inputs,
        length=length,
        reverse=plan.reverse,
        again=in_segments,
    )
    return state, sums
