"""A mean that can still be merged, over what is real: what every loss ends in."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Shaped

from seqjax.numerics import accumulator


class Mean(NamedTuple):
    """Σ v and the number of v's: a mean that can still be merged.

    `mean_over` makes one, `merge` adds two, `jax.lax.psum` adds those of all devices, and `value`
    divides. Both are float32 (float64 under x64) and not integers, since a count may be a sum of
    weights. A float32 count is exact up to 2²⁴ tokens; beyond, a merge rounds it by at most one part
    in 2²⁴, just as it rounds the total. For a long evaluation merge on the host, where
    `Mean(float(m.total), float(m.count))` adds in float64, starting from `Mean(0.0, 0.0)`.

    >>> Mean(6.0, 3.0).merge(Mean(2.0, 1.0))
    Mean(total=8.0, count=4.0)
    >>> print(Mean(6.0, 3.0).value, Mean(0.0, 0.0).value)
    2.0 0.0
    """

    total: Array | float
    count: Array | float  # pyright: ignore[reportIncompatibleMethodOverride] - not tuple.count

    @property
    def value(self) -> Array:
        """Σ v / n; 0, with gradient 0, where n is 0."""
        total, count = jnp.asarray(self.total), jnp.asarray(self.count)
        # Both sides of the division are made safe: `where` alone would leave 0 · ∞ in the gradient.
        some = count != 0
        return jnp.where(some, total, 0) / jnp.where(some, count, 1)

    def merge(self, other: "Mean") -> "Mean":
        """The mean over what both saw. (`+` on these would join tuples.)"""
        return Mean(self.total + other.total, self.count + other.count)


def mean_over(values: Shaped[Array, "..."], mask: Shaped[Array, "..."] | None = None) -> Mean:
    """Σ_real v and the number of real v's, as a `Mean` in at least float32.

    values: [*tokens], real numbers or bool. mask: bool[*tokens]; None takes every value. Masked
    values have gradient 0, but a NaN *inside* what computed them survives 0 · NaN in its own
    derivative: mask there too, as `token_cross_entropy` does.

    Raises a ValueError where mask is not bool or not of the shape of values.

    >>> mean_over(jnp.array([1.0, 3.0, jnp.inf]), jnp.array([True, True, False]))
    Mean(total=Array(4., dtype=float32), count=Array(2., dtype=float32))
    """
    check_mask(mask, values.shape)
    values = values.astype(sum_dtype(values))
    return Mean(sum_real(values, mask), sum_real(jnp.ones_like(values), mask))


def sum_dtype(x: Array) -> DTypeLike:
    """Sums run in at least float32: bfloat16 counts to 256 and no further."""
    return accumulator(x.dtype) if jnp.issubdtype(x.dtype, jnp.floating) else jnp.float32


def sum_real(values: Array, mask: Array | None) -> Array:
    """Σ over what is real."""
    return jnp.sum(zero_padding(values, mask))


def zero_padding(x: Array, mask: Array | None) -> Array:
    """`x` [*tokens, ...], zero where `mask` [*tokens] is False."""
    if mask is None:
        return x
    mask = mask.reshape(mask.shape + (1,) * (x.ndim - mask.ndim))
    return jnp.where(jnp.broadcast_to(mask, x.shape), x, jnp.zeros_like(x))


def without_padding(predictions: Array, targets: Array, mask: Array | None) -> tuple[Array, Array]:
    """Both with zeros in the padding, the first widened to the dtype of sums.

    Before anything is computed from them: masking only the loss leaves 0 · NaN in the gradient.
    """
    predictions = predictions.astype(sum_dtype(predictions))
    return zero_padding(predictions, mask), zero_padding(in_32_bits(targets), mask)


def in_32_bits(targets: Array) -> Array:
    """Wide integers of NumPy cut to int32, where JAX would wrap them into the range of the classes."""
    if not isinstance(targets, np.ndarray) or targets.dtype not in (np.int64, np.uint64):
        return targets
    return jnp.asarray(np.clip(targets, -1, np.iinfo(np.int32).max).astype(np.int32))


def spoil(losses: Array, valid: Array) -> Array:
    """NaN where not `valid`. A factor, not a choice, so that the gradient is NaN as well."""
    return losses * jnp.where(valid, 1, jnp.nan).astype(losses.dtype)


def check_mask(
    mask: Array | None, tokens: tuple[int, ...], name: str = "mask", form: str = "[*tokens]"
) -> None:
    """A ValueError where `mask` is not bool, or not of the shape of the tokens."""
    if mask is None:
        return
    if mask.shape != tokens:
        raise ValueError(
            f"losses: {name} has shape {mask.shape} but there are tokens {tokens}; "
            f"{name} is bool{form}"
        )
    if mask.dtype != jnp.bool_:
        raise ValueError(f"losses: {name} is {mask.dtype}; expected bool{form}")
