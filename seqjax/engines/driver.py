"""The driver: `unroll` turns its arguments into one plan and runs the cell."""

import contextlib
import functools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Key

from seqjax import checks
from seqjax.cell import Cell, P, Params, S, State, fresh_memory
from seqjax.engines.dispatch import Remat, check_options, run_cell
from seqjax.engines.validate import (
    as_arrays,
    check_batch,
    check_cell,
    check_params,
    check_shapes,
    time_first_hint,
)
from seqjax.numerics import where_rows
from seqjax.plan import Plan, length_mask


class UnrollInfo(NamedTuple):
    """What a run reports beside its values.

    iterations: sweeps over the sequence that the engine needed; 1 where it is exact in one.
    residual: the largest violation of the recurrence that is left; 0 for an exact engine.
    """

    iterations: Array
    residual: Array


def unroll(
    cell: Cell[P, S],
    params: P,
    xs: ArrayLike,
    state: S | None = None,
    *,
    key: Key[Array, ""] | None = None,
    lengths: ArrayLike | Sequence[int] | None = None,
    resets: ArrayLike | None = None,
    reverse: bool = False,
    engine: str = "auto",
    remat: Remat = "auto",
) -> tuple[S, Array]:
    """s_t, y_t = step(params, s_{t-1}, x_t) for t = 1 … T; gives (s_T, y_{1…T}).

    cell: any `Cell`; static, so equal cells with equal shapes are traced and compiled once.
    xs: [time, *batch, in_features], time-major; any number of batch axes, or none.
    state: the state before the first step; None starts from `cell.initial_state(params, batch)`.
    key: draws the noise of the run (dropout masks, say). With a `state` its memory is kept and its
        noise is redrawn; without a key the noise in `state` is used as it is.
    lengths: int[*batch]. Outputs past the end are zero, the final state is that after the last real
        step, and a length of 0 returns the state that came in. What the padding holds, even NaN,
        changes neither values nor gradients. Lengths above `time` mean `time`, those below 0 mean 0.
    resets: bool[time, *batch], True at the first step of a document: before it the state becomes the
        initial one, keeping its noise. In reverse the cut lies after that step. Marks in the padding
        are ignored.
    reverse: walk from the last real step to the first; ys stay in the order of xs.
    engine: "auto", "scan" (any cell) or "chunked" (gated cells); `sj.explain` says what runs and why.
    remat: what reverse mode keeps until it comes back. "auto" leaves it to the engine: the chunked one,
        which "auto" takes for most gated cells on a CPU, keeps states and gates, the scan what autodiff
        keeps; None asks for the scan and all of that.
        "state" keeps the states and computes the rest of each step again; "sqrt" keeps one state in
        ⌈√T⌉ steps, a positive integer one in so many, and runs each segment again. Values and
        gradients are the same; `sj.plan_memory` says what each takes. To keep no outputs either, fold
        the loss into the run with `sj.unroll_fold`.

    Returns the final state, and ys: [time, *batch, out_features]. Works under jit, vmap and grad, and
    under jvp with `engine="scan"`, which forward mode needs for a gated cell. (Within a `jit` of your
    own, JAX refuses it in its own words.)
    Raises a ValueError for shapes that do not fit, params or a state of another cell, an unknown engine
    or one that the cell cannot have.

    >>> import jax, jax.numpy as jnp, seqjax as sj
    >>> cell = sj.GRU(features=4)
    >>> params = cell.init(jax.random.key(0), in_features=2)
    >>> state, ys = sj.unroll(cell, params, jnp.ones((7, 3, 2)), lengths=jnp.array([7, 0, 2]))
    >>> ys.shape, state.h.shape
    ((7, 3, 4), (3, 4))
    """
    check_cell(cell)
    check_options(engine, remat, reverse)
    checks.key("unroll: key", key)
    xs, lengths, resets = as_arrays(xs, lengths, resets)
    arguments = params, xs, state, key, lengths, resets
    with forward_mode_explained():
        return _unroll(cell, *arguments, reverse=reverse, engine=engine, remat=remat)


def unroll_with_info(
    cell: Cell[P, S], params: P, xs: ArrayLike, state: S | None = None, **options: Any
) -> tuple[S, Array, UnrollInfo]:
    """`unroll`, and an `UnrollInfo` that says how the engine fared.

    Every engine here is exact in one sweep, so iterations is 1 and residual is 0.
    """
    state, ys = unroll(cell, params, xs, state, **options)
    return state, ys, UnrollInfo(jnp.ones((), jnp.int32), jnp.zeros((), jnp.float32))


@functools.partial(jax.jit, static_argnames=("cell", "reverse", "engine", "remat"))
def _unroll(cell, params, xs, state, key, lengths, resets, *, reverse, engine, remat):
    state, xs, plan = prepare(cell, params, xs, state, key, lengths, resets, reverse)
    return run_cell(cell, params, state, xs, plan, engine=engine, remat=remat)


def prepare(
    cell: Cell,
    params: Params,
    xs: Array,
    state: State,
    key: Key[Array, ""] | None,
    lengths: Array | None,
    resets: Array | None,
    reverse: bool,
) -> tuple[State, Array, Plan]:
    """Return the state before the first step, the inputs with zeros at padding, and the plan.

    This is the one place where the arguments of a run become masks, a fresh state and a direction.
    """
    batch_shape = check_shapes(xs, lengths, resets)
    check_params(cell, params, xs)
    with time_first_hint(xs, state):
        state = starting_state(cell, params, state, batch_shape, key)
    valid, fresh = None, None
    if lengths is not None:
        valid = length_mask(lengths, xs.shape[0])
        # Before anything touches xs: masking only the state leaves 0 · NaN in the gradient.
        xs = where_rows(valid, xs, jnp.zeros_like(xs))
    if resets is not None:
        resets = resets if valid is None else resets & valid
        fresh = fresh_memory(cell, params, state, batch_shape)
    return state, xs, Plan(valid, resets, fresh, reverse)


def starting_state(
    cell: Cell,
    params: Params,
    state: State,
    batch_shape: tuple[int, ...],
    key: Key[Array, ""] | None,
) -> State:
    """Return the state before the first step, with its noise drawn from `key` if there is one."""
    if state is None:
        state = cell.initial_state(params, batch_shape, key=key)
        check_batch(cell, state, batch_shape)
        return state
    any_key = jax.random.key(0)
    expected = jax.eval_shape(lambda p: cell.initial_state(p, batch_shape, key=any_key), params)
    checks.same_tree("unroll: state", state, expected, f"{cell!r}.initial_state")
    return state if key is None else cell.redraw(state, key)


@contextlib.contextmanager
def forward_mode_explained() -> Iterator[None]:
    """Replace JAX's error about forward mode by one that says what to do (not under an outer `jit`)."""
    try:
        yield
    except TypeError as error:
        if "custom_vjp" not in str(error) or "forward-mode" not in str(error):
            raise
        raise TypeError(
            "unroll: the chunked engine has a reverse mode of its own and no forward mode (jax.jvp, "
            'jax.jacfwd); use engine="scan". Forward over reverse, a Hessian-vector product, works'
        ) from error
