"""Argument checks: each raises a ValueError that names the argument, what was expected and what came.

Shapes are static under `jax.jit`, so a check runs while tracing and costs nothing at run time.
"""

import importlib
import math
import reprlib
from collections.abc import Collection
from typing import Any, TypeGuard

import jax
import jax.numpy as jnp
import numpy as np


def is_number(value: Any) -> TypeGuard[float]:
    """Whether `value` is a number of Python or NumPy, whose value can be checked."""
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


def positive(name: str, value: int) -> None:
    """Check that `value` is an integer of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise ValueError(f"{name}: expected a positive integer, got {value!r}")


def size(name: str, value: int) -> None:
    """Check that `value` is an integer of at least 0: an input may be empty."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 0:
        raise ValueError(f"{name}: expected an integer of at least 0, got {value!r}")


def fraction(name: str, value: Any) -> None:
    """Check that `value` is a rate in [0, 1): a fraction to drop, not to keep."""
    if not is_number(value) or not 0 <= value < 1:
        raise ValueError(f"{name}: expected a rate in [0, 1), got {value!r}")


def finite_positive(name: str, value: Any) -> None:
    """Check that `value` is a finite number above 0."""
    if not is_number(value) or not 0 < value < math.inf:  # NaN fails both comparisons
        raise ValueError(f"{name}: expected a positive number, got {value!r}")


def not_negative(name: str, value: Any) -> None:
    """Check that `value` is a finite number of at least 0."""
    if not is_number(value) or not 0 <= value < math.inf:
        raise ValueError(f"{name}: expected a number of at least 0, got {value!r}")


def finite(name: str, value: Any) -> None:
    """Check that `value` is a finite number."""
    if not is_number(value) or not math.isfinite(value):
        raise ValueError(f"{name}: expected a finite number, got {value!r}")


def one_of(name: str, value: Any, known: Collection[Any]) -> None:
    """Check that `value` is one of the `known` values."""
    # Compare types first: an array compared with a name gives an array.
    if not any(type(value) is type(k) and value == k for k in known):
        names = ", ".join(repr(k) for k in known)
        raise ValueError(f"{name}: expected one of {names}, got {value!r}")


def floating(name: str, dtype: Any) -> None:
    """Check that `dtype` is a real floating-point dtype."""
    try:
        good = dtype is not None and jnp.issubdtype(jnp.dtype(dtype), jnp.floating)
    except TypeError:
        good = False
    if not good:
        raise ValueError(
            f"{name}: expected a floating-point dtype such as jnp.float32, got {dtype!r}"
        )


def trailing(name: str, x: jax.Array, expected: int) -> None:
    """Check that the last axis of `x` has `expected` entries."""
    if x.ndim == 0 or x.shape[-1] != expected:
        raise ValueError(
            f"{name} has shape {x.shape}; expected [*batch, {expected}], "
            f"as the parameters were made for {expected} features"
        )


def same_tree(name: str, came: Any, expected: Any, source: str, *, dtypes: bool = True) -> None:
    """Check that `came` has the structure, shapes and dtypes of `expected`, which `source` made."""
    if jax.tree.structure(came) != jax.tree.structure(expected):
        raise ValueError(
            f"{name} has structure {jax.tree.structure(came)}; "
            f"expected {jax.tree.structure(expected)}, as {source} gives it"
        )
    for (path, a), b in zip(
        jax.tree_util.tree_leaves_with_path(came), jax.tree.leaves(expected), strict=True
    ):
        dtype = jax.numpy.result_type(a)
        if jax.numpy.shape(a) != b.shape or (dtypes and dtype != b.dtype):
            raise ValueError(
                f"{name}{jax.tree_util.keystr(path)} is {dtype}{list(jax.numpy.shape(a))}; "
                f"expected {b.dtype if dtypes else ''}{list(b.shape)}, as {source} gives it"
            )


def instance(name: str, value: Any, kind: type) -> None:
    """Check that `value` is a `kind`."""
    if not isinstance(value, kind):
        raise ValueError(f"{name}: expected a {kind.__name__}, got {value!r}")


def function(name: str, value: Any) -> None:
    """Check that `value` is callable."""
    if not callable(value):
        raise ValueError(f"{name}: expected a function, got {value!r}")


def array(name: str, value: Any) -> jax.Array:
    """Convert `value` to a JAX array; it must not be ragged or hold anything but numbers."""
    try:
        return jnp.asarray(value)
    except (TypeError, ValueError):
        raise ValueError(
            f"{name}: expected an array of numbers, or nested lists of equal lengths, "
            f"got {type(value).__name__} {reprlib.repr(value)}"
        ) from None


def key(name: str, value: Any) -> None:
    """Check that `value` is one random key or None."""
    typed = jnp.issubdtype(getattr(value, "dtype", np.int8), jax.dtypes.prng_key)
    raw = getattr(value, "dtype", None) == np.uint32  # as jax.random.PRNGKey makes them
    if value is None or (typed and value.ndim == 0) or (raw and value.ndim == 1):
        return
    came = f"{value.dtype}{list(value.shape)}" if hasattr(value, "dtype") else repr(value)
    raise ValueError(f"{name}: expected one key, such as jax.random.key(0), got {came}")


def scalar(name: str, value: Any) -> jax.Array:
    """Convert `value` to an array of one real number."""
    try:
        number = jnp.asarray(value)
        came = f"{number.dtype}{list(number.shape)}"
    except (TypeError, ValueError):
        number, came = None, type(value).__name__
    if number is None or number.shape or not jnp.issubdtype(number.dtype, jnp.floating):
        raise ValueError(f"{name} gives {came}; expected one real number")
    return number


def shape(name: str, value: Any) -> tuple[int, ...]:
    """Convert `value` to the shape of an array."""
    try:
        return jax.eval_shape(lambda: jnp.zeros(tuple(value))).shape
    except TypeError:
        raise ValueError(
            f"{name}: expected a tuple of integers of at least 0, got {value!r}"
        ) from None


def differentiable(name: str, tree: Any) -> None:
    """Check that all leaves of `tree` are floating point."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        dtype = array(f"{name}{jax.tree_util.keystr(path)}", leaf).dtype
        if not jnp.issubdtype(dtype, jnp.inexact):
            raise ValueError(
                f"{name}{jax.tree_util.keystr(path)} is {dtype}; expected floating point, "
                "as a gradient is taken with respect to it"
            )


def package(name: str, module: str, extra: str, distribution: str | None = None) -> Any:
    """Import `module`, which `name` uses, or say which extra of seqjax installs its distribution."""
    try:
        return importlib.import_module(module)
    except ImportError:
        needed = module if distribution is None else distribution
        raise ImportError(
            f"{name} needs the {needed} package: pip install 'seqjax[{extra}]'"
        ) from None
