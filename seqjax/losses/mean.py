"""Masked means, and the losses of numbers: squared error, yes or no, size and change of activations."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array

from seqjax import checks
from seqjax.numerics import accumulator, where_rows


class Mean(NamedTuple):
    """Σ v and the number of values: a mean that can still be merged.

    `mean_over` makes one, `merge` adds two, `jax.lax.psum` adds those of all devices, `value` divides.
    Both fields are float32 (float64 under x64), since a count may be a sum of weights. A float32 count
    is exact up to 2²⁴ tokens; beyond, each merge rounds it by at most one part in 2²⁴. For a long
    evaluation merge on the host: `Mean(float(m.total), float(m.count))` adds in float64.

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
        # Both operands need a safe value: `where` on the quotient alone leaves 0 · ∞ in the gradient.
        some = count != 0
        return jnp.where(some, total, 0) / jnp.where(some, count, 1)

    def merge(self, other: "Mean") -> "Mean":
        """The mean over the values of both. (`+` would concatenate the tuples.)"""
        return Mean(self.total + other.total, self.count + other.count)


def mean_over(values: Array, mask: Array | None = None) -> Mean:
    """Σ v over valid tokens and the number of valid tokens, as a `Mean` in at least float32.

    Masked values have gradient 0. A NaN *inside* their computation survives as 0 · NaN in its own
    derivative: mask there too, as `token_cross_entropy` does.

    Args:
        values: [*tokens], real numbers or bool.
        mask: bool[*tokens], True at valid tokens; None takes every value.

    Raises:
        ValueError: mask is not bool or has another shape than values.

    >>> mean_over(jnp.array([1.0, 3.0, jnp.inf]), jnp.array([True, True, False]))
    Mean(total=Array(4., dtype=float32), count=Array(2., dtype=float32))
    """
    check_mask(mask, values.shape)
    values = values.astype(sum_dtype(values))
    return Mean(sum_valid(values, mask), sum_valid(jnp.ones_like(values), mask))


def binary_cross_entropy(
    logits: Array,
    targets: Array,
    *,
    mask: Array | None = None,
    positive_weight: float | Array | None = None,
) -> Array:
    """ℓ_t = -a y_t log σ(z_t) - (1 - y_t) log(1 - σ(z_t)),   L = mean of ℓ_t over valid tokens

    In nats. The divisor is the number of valid tokens whatever a is, as in PyTorch.

    Args:
        logits: z, float[*tokens].
        targets: y, bool[*tokens] or probabilities in [0, 1]; a number outside makes L NaN.
        mask: bool[*tokens]; where a token has several labels, repeat its mask over them.
        positive_weight: a, a positive scalar; None is 1.

    Raises:
        ValueError: shapes or dtypes do not fit, or positive_weight is not positive.

    >>> valid = jnp.array([True, True, False])
    >>> loss = binary_cross_entropy(jnp.array([0.0, 0.0, jnp.nan]), jnp.array([1, 0, -1]), mask=valid)
    >>> print(loss / jnp.log(2))
    1.0
    """
    _check_same("logits", logits, targets, "[*tokens]")
    check_mask(mask, logits.shape)
    if checks.is_number(positive_weight):
        checks.finite_positive("losses: positive_weight", positive_weight)
    z, targets = without_padding(logits, targets, mask)
    a = jnp.asarray(1.0 if positive_weight is None else positive_weight, z.dtype)
    if a.shape:
        raise ValueError(f"losses: positive_weight has shape {a.shape}; expected a scalar")
    y = targets.astype(z.dtype)
    losses = a * y * jax.nn.softplus(-z) + (1 - y) * jax.nn.softplus(z)
    return mean_over(nan_unless((y >= 0) & (y <= 1), losses), mask).value


def mean_squared_error(predictions: Array, targets: Array, *, mask: Array | None = None) -> Array:
    """L = mean over valid tokens t and features i of (ŷ_{t,i} - y_{t,i})²

    In the squared unit of the targets, without the factor ½ of some texts.

    Args:
        predictions: ŷ, float[*tokens, features].
        targets: y, [*tokens, features].
        mask: bool[*tokens], over tokens and not features.

    Raises:
        ValueError: shapes or dtypes do not fit.

    >>> predictions = jnp.array([[1.0, 2.0], [jnp.nan, 0.0]])
    >>> print(mean_squared_error(predictions, jnp.zeros((2, 2)), mask=jnp.array([True, False])))
    2.5
    """
    _check_same("predictions", predictions, targets, "[*tokens, features]")
    if predictions.ndim == 0:
        raise ValueError("losses: predictions is a scalar; expected [*tokens, features]")
    check_mask(mask, predictions.shape[:-1])
    predictions, targets = without_padding(predictions, targets, mask)
    errors = jnp.square(predictions - targets.astype(predictions.dtype))
    return mean_over(jnp.mean(errors, axis=-1), mask).value


def activation_regularization(ys: Array, *, mask: Array | None = None) -> Array:
    """L = mean over valid tokens t and features i of y_{t,i}²

    Keeps the outputs of a cell small. Add α times it to the loss; AWD-LSTM takes α = 2 on the outputs
    of the last layer after dropout.

    Args:
        ys: float[*tokens, features].
        mask: bool[*tokens].

    Raises:
        ValueError: shapes or dtypes do not fit.

    Reference: Merity, McCann, Socher 2017.

    >>> ys = jnp.array([[1.0, 3.0], [jnp.nan, 0.0]])
    >>> print(activation_regularization(ys, mask=jnp.array([True, False])))
    5.0
    """
    ys = _activations(ys, mask, "[*tokens, features]", axes=1)
    return mean_over(jnp.mean(jnp.square(ys), axis=-1), mask).value


def temporal_activation_regularization(
    ys: Array, *, mask: Array | None = None, resets: Array | None = None
) -> Array:
    """L = mean over pairs of neighbouring steps t, t+1 and features i of (y_{t+1,i} - y_{t,i})²

    Keeps the outputs of a cell from changing fast (a slowness prior). A pair counts if both steps are
    valid and belong to one document; without any pair L is 0. Add β times it to the loss; AWD-LSTM
    takes β = 1 on the outputs of the last layer before dropout.

    Args:
        ys: float[time, *batch, features].
        mask: bool[time, *batch].
        resets: bool[time, *batch], True at the first step of a document, as for `sj.unroll`.

    Raises:
        ValueError: shapes or dtypes do not fit.

    Reference: Merity, McCann, Socher 2017.

    >>> ys = jnp.array([[1.0], [3.0], [0.0], [1.0]])
    >>> print(temporal_activation_regularization(ys, resets=jnp.array([True, False, True, False])))
    2.5
    """
    ys = _activations(ys, mask, "[time, *batch, features]", axes=2)
    check_mask(resets, ys.shape[:-1], "resets", "[time, *batch]")
    pairs = jnp.ones((max(0, len(ys) - 1), *ys.shape[1:-1]), bool)
    pairs = pairs if mask is None else mask[1:] & mask[:-1]
    pairs = pairs if resets is None else pairs & ~resets[1:]
    changes = jnp.square(ys[1:] - ys[:-1])
    return mean_over(jnp.mean(changes, axis=-1), pairs).value


def sum_dtype(x: Array) -> DTypeLike:
    """Sums run in at least float32: bfloat16 counts to 256 and no further."""
    return accumulator(x.dtype) if jnp.issubdtype(x.dtype, jnp.floating) else jnp.float32


def sum_valid(values: Array, mask: Array | None) -> Array:
    """Σ over valid tokens."""
    return jnp.sum(zero_padding(values, mask))


def zero_padding(x: Array, mask: Array | None) -> Array:
    """`x` [*tokens, ...], zero where `mask` [*tokens] is False."""
    return x if mask is None else where_rows(mask, x, jnp.zeros_like(x))


def without_padding(predictions: Array, targets: Array, mask: Array | None) -> tuple[Array, Array]:
    """Zero both in the padding, and widen the predictions to the dtype of sums.

    Before anything is computed from them: masking only the loss leaves 0 · NaN in the gradient.
    """
    predictions = predictions.astype(sum_dtype(predictions))
    return zero_padding(predictions, mask), zero_padding(in_32_bits(targets), mask)


def in_32_bits(targets: Array) -> Array:
    """Clip wide integers of NumPy to int32; JAX would wrap them into the range of the classes."""
    if not isinstance(targets, np.ndarray) or targets.dtype not in (np.int64, np.uint64):
        return targets
    return jnp.asarray(np.clip(targets, -1, np.iinfo(np.int32).max).astype(np.int32))


def nan_unless(valid: Array, losses: Array) -> Array:
    """NaN where not `valid`. A factor instead of `where`, so that the gradient is NaN as well."""
    return losses * jnp.where(valid, 1, jnp.nan).astype(losses.dtype)


def check_mask(
    mask: Array | None, tokens: tuple[int, ...], name: str = "mask", form: str = "[*tokens]"
) -> None:
    """Raise a ValueError if `mask` is not bool or has another shape than the tokens."""
    if mask is not None and mask.shape != tokens:
        raise ValueError(
            f"losses: {name} has shape {mask.shape} but there are tokens {tokens}; "
            f"{name} is bool{form}"
        )
    if mask is not None and mask.dtype != jnp.bool_:
        raise ValueError(f"losses: {name} is {mask.dtype}; expected bool{form}")


def check_floating(name: str, x: Array) -> None:
    """Raise a ValueError if `x` is not floating point."""
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(f"losses: {name} is {x.dtype}; expected floating point")


def _activations(ys: Array, mask: Array | None, form: str, axes: int) -> Array:
    """Outputs in the dtype of sums, with zeros in the padding before anything is computed from them."""
    check_floating("ys", ys)
    if ys.ndim < axes:
        raise ValueError(f"losses: ys has shape {ys.shape}; expected {form}")
    check_mask(mask, ys.shape[:-1])
    return zero_padding(ys.astype(sum_dtype(ys)), mask)


def _check_same(name: str, predictions: Array, targets: Array, form: str) -> None:
    check_floating(name, predictions)
    if targets.shape != predictions.shape:
        raise ValueError(
            f"losses: targets has shape {targets.shape} but {name} has {predictions.shape}; "
            f"both are {form}"
        )
