"""Validation of the arguments of `unroll`, at trace time."""

import contextlib
import functools
import reprlib
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array

from seqjax import checks
from seqjax.cell import Cell, Params, State


@contextlib.contextmanager
def named(name: str) -> Iterator[None]:
    """Let the errors of `unroll` begin with `name`, the function that the user has called."""
    try:
        yield
    except ValueError as error:
        reason = str(error).removeprefix("unroll: ")
        if reason == str(error):
            raise
        raise ValueError(f"{name}: {reason}") from None


def check_cell(cell: Cell) -> None:
    """Validate that `cell` is a cell with features that can be a static argument."""
    if not isinstance(cell, Cell):
        came = reprlib.repr(cell)  # short, as it may be the params
        raise ValueError(f"unroll: cell is {came}; expected a seqjax.Cell, such as sj.LSTM(256)")
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


def check_params(cell: Cell, params: Params, xs: Array) -> None:
    """Validate the structure and shapes of the params; their dtypes are free.

    Otherwise some cells would run with the params of another one, and be silently wrong.
    """
    in_features = xs.shape[-1]
    source = f"for xs of shape {xs.shape} {cell!r}.init(key, in_features={in_features})"
    expected = params_of(cell, in_features)
    checks.same_tree("unroll: params", params, expected, source, dtypes=False)


@functools.lru_cache(maxsize=256)
def params_of(cell: Cell, in_features: int) -> Params:
    """Return the shapes of a cell's params; nothing is drawn if `init` can be traced."""
    draw = lambda: cell.init(jax.random.key(0), in_features)
    try:
        return jax.eval_shape(draw)
    except (jax.errors.JAXTypeError, NotImplementedError):
        with jax.ensure_compile_time_eval():  # a user-defined cell may draw with NumPy
            params = draw()
        return jax.eval_shape(lambda: params)


def check_batch(cell: Cell, state: State, batch_shape: tuple[int, ...]) -> None:
    """Validate that every leaf of the state leads with the batch."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        if jnp.shape(leaf)[: len(batch_shape)] != batch_shape:
            raise ValueError(
                f"unroll: {type(cell).__name__}.initial_state gives state"
                f"{jax.tree_util.keystr(path)} of shape {jnp.shape(leaf)}; "
                f"expected every leaf to lead with the batch {batch_shape}, counters too"
            )


def check_step(cell: Cell, params: Params, state: State, xs: Array) -> None:
    """Validate that a step returns the form of its state, and y [*batch, out_features]."""
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


def as_arrays(
    xs: ArrayLike, lengths: ArrayLike | Sequence[int] | None, resets: ArrayLike | None
) -> tuple[Array, Array | None, Array | None]:
    """Convert lists and NumPy arrays."""
    return (
        checks.array("unroll: xs", xs),
        None if lengths is None else as_lengths(lengths),
        None if resets is None else checks.array("unroll: resets", resets),
    )


def as_lengths(lengths: ArrayLike | Sequence[int]) -> Array:
    """Convert lengths to an array; values beyond int32 are clipped, not wrapped."""
    if isinstance(lengths, jax.Array):
        return lengths
    plain = np.asarray(lengths)
    if np.issubdtype(plain.dtype, np.integer):
        plain = np.clip(plain, 0, np.iinfo(np.int32).max).astype(np.int32)
    return checks.array("unroll: lengths", plain)


def check_shapes(xs: Array, lengths: Array | None, resets: Array | None) -> tuple[int, ...]:
    """Validate the shapes of xs, lengths and resets, and return the batch shape."""
    if xs.ndim < 2:
        raise ValueError(
            f"unroll: xs has shape {xs.shape}; expected [time, *batch, in_features], time first"
        )
    if not jnp.issubdtype(xs.dtype, jnp.floating):  # a cast would drop an imaginary part
        raise ValueError(
            f"unroll: xs is {xs.dtype}; expected floating point. "
            "Embed token ids before a cell sees them (sj.models.LanguageModel does)"
        )
    time, batch_shape = xs.shape[0], xs.shape[1:-1]
    if lengths is not None:
        if lengths.shape != batch_shape:
            raise ValueError(
                f"unroll: lengths has shape {lengths.shape} but the batch of xs is {batch_shape}; "
                f"lengths is int[*batch]{_time_first(xs, lengths.shape)}"
            )
        if not jnp.issubdtype(lengths.dtype, jnp.integer):
            raise ValueError(f"unroll: lengths is {lengths.dtype}; expected integers, [*batch]")
    if resets is not None:
        if resets.shape[:1] != (time,):
            raise ValueError(
                f"unroll: xs has {time} time steps but resets has shape {resets.shape}; "
                f"both are [time, *batch]{_time_first(xs, resets.shape[1:])}"
            )
        if resets.shape[1:] != batch_shape:
            raise ValueError(
                f"unroll: the batch of xs is {batch_shape} but that of resets is "
                f"{resets.shape[1:]}; resets is bool[time, *batch]"
            )
        if resets.dtype != jnp.bool_:
            raise ValueError(f"unroll: resets is {resets.dtype}; expected bool[time, *batch]")
    return batch_shape


@contextlib.contextmanager
def time_first_hint(xs: Array, state: State) -> Iterator[None]:
    """Add a hint to an error about `state` if its batch fits an xs whose batch comes first."""
    try:
        yield
    except ValueError as error:
        shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(state)]
        raise ValueError(f"{error}{_time_first(xs, shapes[0][:1] if shapes else ())}") from None


def _time_first(xs: Array, batch_shape: tuple[int, ...]) -> str:
    """The hint, where `batch_shape` is the first axis of an xs of three axes."""
    if xs.ndim != 3 or batch_shape != xs.shape[:1] or xs.shape[0] == xs.shape[1]:
        return ""
    return (
        ". Time comes first: xs is [time, *batch, in_features], "
        f"transpose it if {xs.shape[0]} is the batch"
    )
