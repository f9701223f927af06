"""The driver: arguments become one plan, each inner cell gets its engine, all layers are run."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Key

from seqjax import checks
from seqjax.arithmetic import where_rows
from seqjax.cell import Cell, Layered, Params, State, noise_only
from seqjax.plan import Plan
from seqjax.unroll.scan import scan

Engine = Callable[[Cell, Params, State, Array, Plan], tuple[State, Array]]

ENGINES: dict[str, Engine] = {"scan": scan}
REMAT = ("auto", None)


class UnrollInfo(NamedTuple):
    """What a run reports beside its values.

    iterations: sweeps over the sequence that the engine needed; 1 where it is exact in one.
    residual: the largest violation of the recurrence that is left; 0 for an exact engine.
    """

    iterations: Array
    residual: Array


class Choice(NamedTuple):
    """The engine for one cell, and the sentence that says why."""

    engine: str
    reason: str


def unroll(
    cell: Cell,
    params: Params,
    xs: ArrayLike,
    state: State = None,
    *,
    key: Key[Array, ""] | None = None,
    lengths: ArrayLike | Sequence[int] | None = None,
    resets: ArrayLike | None = None,
    reverse: bool = False,
    engine: str = "auto",
    remat: str | int | None = "auto",
) -> tuple[State, Array]:
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
    engine: "auto" or a name in `seqjax.unroll.ENGINES`; `sj.explain` says what runs and why.
    remat: what reverse mode stores; "auto" and None store what autodiff stores.

    Returns the final state, and ys: [time, *batch, out_features]. Works under jit, vmap, grad and jvp.
    Raises a ValueError for shapes that do not fit, params or a state of another cell, or an unknown
    engine.

    >>> import jax, jax.numpy as jnp, seqjax as sj
    >>> cell = sj.GRU(features=4)
    >>> params = cell.init(jax.random.key(0), in_features=2)
    >>> state, ys = sj.unroll(cell, params, jnp.ones((7, 3, 2)), lengths=jnp.array([7, 0, 2]))
    >>> ys.shape, state.h.shape
    ((7, 3, 4), (3, 4))
    """
    check_static(cell, engine, remat)
    xs = jnp.asarray(xs)
    lengths = None if lengths is None else as_lengths(lengths)
    resets = None if resets is None else jnp.asarray(resets)
    return _unroll(cell, params, xs, state, key, lengths, resets, reverse, engine)


def unroll_with_info(
    cell: Cell, params: Params, xs: ArrayLike, state: State = None, **options: Any
) -> tuple[State, Array, UnrollInfo]:
    """`unroll`, and an `UnrollInfo` that says how the engine fared.

    Every engine here is exact in one sweep, so iterations is 1 and residual is 0.
    """
    state, ys = unroll(cell, params, xs, state, **options)
    return state, ys, UnrollInfo(jnp.ones((), jnp.int32), jnp.zeros((), jnp.float32))


@functools.partial(jax.jit, static_argnames=("cell", "reverse", "engine"))
def _unroll(cell, params, xs, state, key, lengths, resets, reverse, engine):
    batch_shape = check_shapes(xs, lengths, resets)
    check_params(cell, params, xs)
    state = starting_state(cell, params, state, batch_shape, key)
    plan = make_plan(cell, params, state, xs, lengths, resets, reverse)
    if plan.real is not None:
        # Before anything touches it: masking only the state leaves 0 · NaN in the gradient.
        xs = where_rows(plan.real, xs, jnp.zeros_like(xs))
    return run_cell(cell, params, state, xs, plan, engine=engine)


def run_cell(
    cell: Cell, params: Params, state: State, xs: Array, plan: Plan, *, engine: str
) -> tuple[State, Array]:
    """One cell through all time: a layered one layer by layer, a leaf with its engine."""
    if isinstance(cell, Layered):
        run = functools.partial(run_cell, engine=engine)
        state, ys = cell.unroll_with(run, params, state, xs, plan)
    else:
        check_step(cell, params, state, xs)
        state, ys = ENGINES[choose(cell, engine).engine](cell, params, state, xs, plan)
    if plan.real is not None:
        ys = where_rows(plan.real, ys, jnp.zeros_like(ys))
    return state, ys


def choose(cell: Cell, engine: str) -> Choice:
    """The engine that runs a leaf cell under the `engine` that was asked for."""
    if engine == "auto":
        return Choice("scan", "the plain scan is the only engine so far")
    return Choice(engine, "asked for")


def starting_state(
    cell: Cell,
    params: Params,
    state: State,
    batch_shape: tuple[int, ...],
    key: Key[Array, ""] | None,
) -> State:
    """The state before the first step, its noise drawn with `key` where one is given."""
    if state is None:
        state = cell.initial_state(params, batch_shape, key=key)
        check_batch(cell, state, batch_shape)
        return state
    expected = jax.eval_shape(lambda p: cell.initial_state(p, batch_shape, key=_any_key()), params)
    checks.same_tree("unroll: state", state, expected, f"{cell!r}.initial_state")
    return state if key is None else cell.redraw(state, key)


def make_plan(
    cell: Cell,
    params: Params,
    state: State,
    xs: Array,
    lengths: Array | None,
    resets: Array | None,
    reverse: bool,
) -> Plan:
    """`lengths`, `resets` and `reverse` as masks, a fresh state and a direction."""
    time, batch_shape = xs.shape[0], xs.shape[1:-1]
    real, fresh = None, None
    if lengths is not None:
        steps = jnp.arange(time).reshape(time, *(1,) * len(batch_shape))
        shape = (time, *batch_shape)
        # Cut before it is cast, since a length of 2³² would wrap; and as wide as the steps.
        most = min(time, int(jnp.iinfo(lengths.dtype).max))
        lengths = jnp.minimum(lengths, jnp.asarray(most, lengths.dtype)).astype(steps.dtype)
        real = jnp.broadcast_to(steps, shape) < jnp.broadcast_to(lengths[None], shape)
    if resets is not None:
        resets = resets if real is None else resets & real
        # Noise is drawn with any key at all and thrown away: a cut keeps the noise of the run.
        fresh = cell.initial_state(params, batch_shape, key=_any_key())
        fresh = jax.tree.map(lambda n, f: None if n else f, noise_only(cell, state), fresh)
    return Plan(real=real, resets=resets, fresh=fresh, reverse=reverse)


def check_static(cell: Cell, engine: str, remat: str | int | None) -> None:
    """Refuse what is wrong before anything is traced."""
    if not isinstance(cell, Cell):
        raise ValueError(f"unroll: cell is {cell!r}; expected a seqjax.Cell, such as sj.LSTM(256)")
    try:
        hash(cell)
    except TypeError:
        raise ValueError(
            f"unroll: {type(cell).__name__} is not hashable; make it a frozen dataclass whose fields "
            "are hashable (tuples, not lists; no arrays)"
        ) from None
    if not isinstance(getattr(cell, "features", None), int | np.integer):
        raise ValueError(
            f"unroll: {type(cell).__name__} has no features; "
            "expected the size of y, as a field or a property"
        )
    checks.one_of("unroll: engine", engine, ("auto", *ENGINES))
    checks.one_of("unroll: remat", remat, REMAT)


def check_params(cell: Cell, params: Params, xs: Array) -> None:
    """The params are those of this cell, or of one alike; their dtypes are the caller's affair.

    Some cells would run with the params of another, and be silently wrong.
    """
    in_features = xs.shape[-1]
    source = f"for xs of shape {xs.shape} {cell!r}.init(key, in_features={in_features})"
    try:
        expected = params_of(cell, in_features)
    except (jax.errors.JAXTypeError, NotImplementedError):
        return  # a cell of one's own may draw in ways that cannot be traced; running it needs none
    checks.same_tree("unroll: params", params, expected, source, dtypes=False)


@functools.lru_cache(maxsize=256)
def params_of(cell: Cell, in_features: int) -> Params:
    """The shapes of a cell's params; nothing is drawn."""
    return jax.eval_shape(lambda: cell.init(_any_key(), in_features))


def check_batch(cell: Cell, state: State, batch_shape: tuple[int, ...]) -> None:
    """Every leaf of the state leads with the batch."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        if jnp.shape(leaf)[: len(batch_shape)] != batch_shape:
            raise ValueError(
                f"unroll: {type(cell).__name__}.initial_state gives state"
                f"{jax.tree_util.keystr(path)} of shape {jnp.shape(leaf)}; "
                f"expected every leaf to lead with the batch {batch_shape}, counters too"
            )


def check_step(cell: Cell, params: Params, state: State, xs: Array) -> None:
    """A leaf cell's step keeps the form of its state and gives [*batch, out_features]."""
    name = f"{type(cell).__name__}.step"
    result = jax.eval_shape(cell.step, params, state, jax.ShapeDtypeStruct(xs.shape[1:], xs.dtype))
    if not isinstance(result, tuple) or len(result) != 2:
        raise ValueError(f"unroll: {name} gives {result}; expected a pair (state, y)")
    after, y = result
    before = jax.eval_shape(lambda: state)
    checks.same_tree(f"unroll: the state that {name} gives", after, before, "initial_state")
    expected = (*xs.shape[1:-1], cell.out_features)
    if getattr(y, "shape", None) != expected:
        raise ValueError(
            f"unroll: {name} gives y of shape {getattr(y, 'shape', type(y).__name__)}; "
            f"expected [*batch, out_features], {expected}"
        )


def as_lengths(lengths: ArrayLike | Sequence[int]) -> Array:
    """Lengths as an array; numbers wider than the widest integer in use are cut, not wrapped."""
    if isinstance(lengths, jax.Array):
        return lengths
    plain = np.asarray(lengths)
    if np.issubdtype(plain.dtype, np.integer):
        plain = np.clip(plain, 0, np.iinfo(np.int32).max).astype(np.int32)
    return jnp.asarray(plain)


def check_shapes(xs: Array, lengths: Array | None, resets: Array | None) -> tuple[int, ...]:
    """The batch shape, once xs, lengths and resets agree on it."""
    if xs.ndim < 2:
        raise ValueError(
            f"unroll: xs has shape {xs.shape}; expected [time, *batch, in_features], time first"
        )
    if not jnp.issubdtype(xs.dtype, jnp.floating):  # a cast would drop what is imaginary
        raise ValueError(
            f"unroll: xs is {xs.dtype}; expected floating point. "
            "Embed token ids before a cell sees them (sj.models.LanguageModel does)"
        )
    time, batch_shape = xs.shape[0], xs.shape[1:-1]
    if lengths is not None:
        if lengths.shape != batch_shape:
            raise ValueError(
                f"unroll: lengths has shape {lengths.shape} but the batch of xs is {batch_shape}; "
                "lengths is int[*batch]"
            )
        if not jnp.issubdtype(lengths.dtype, jnp.integer):
            raise ValueError(f"unroll: lengths is {lengths.dtype}; expected integers, [*batch]")
    if resets is not None:
        if resets.shape[:1] != (time,):
            raise ValueError(
                f"unroll: xs has {time} time steps but resets has shape {resets.shape}; "
                "both are [time, *batch]"
            )
        if resets.shape[1:] != batch_shape:
            raise ValueError(
                f"unroll: the batch of xs is {batch_shape} but that of resets is "
                f"{resets.shape[1:]}; resets is bool[time, *batch]"
            )
        if resets.dtype != jnp.bool_:
            raise ValueError(f"unroll: resets is {resets.dtype}; expected bool[time, *batch]")
    return batch_shape


def _any_key() -> Array:
    return jax.random.key(0)
