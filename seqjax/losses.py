"""What is minimised and reported: masked, averaged over real tokens, summed in at least float32.

`logits: [*tokens, classes]` stand against `targets: int[*tokens]`, and `mask: bool[*tokens]` is True
at real tokens; `*tokens` is any number of axes, [time, *batch] for a sequence. What stands under a
False mask, even NaN or a target of -1, changes neither values nor gradients, and a batch without a
real token has loss 0 and gradient 0. A target that is no class at a real token makes the loss *and*
the gradient NaN: a compiled function has no other way to refuse a value.

The scalar functions average one batch. A mean over ragged windows and batches is not the mean of
their means: sum `Mean`s instead, and divide once.

>>> import jax.numpy as jnp
>>> from seqjax import losses
>>> full = losses.mean_over(jnp.array([1.0, 2.0, 3.0]))
>>> ragged = losses.mean_over(jnp.array([8.0, jnp.nan, jnp.nan]), jnp.array([True, False, False]))
>>> print(full.merge(ragged).value)
3.5
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Shaped

from seqjax import checks
from seqjax.arithmetic import accumulator


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
    _check_mask(mask, values.shape)
    values = values.astype(_sum_dtype(values))
    return Mean(_sum_real(values, mask), _sum_real(jnp.ones_like(values), mask))


def token_cross_entropy(
    logits: Shaped[Array, "..."],
    targets: Shaped[Array, "..."],
    *,
    mask: Shaped[Array, "..."] | None = None,
    class_weights: Shaped[Array, "..."] | None = None,
    label_smoothing: float = 0.0,
) -> Array:
    """ℓ_t = -(1 - ε) w_y log p_y - ε / K · Σ_k w_k log p_k,   p = softmax(logits_t),   y = target_t

    The loss of each token in nats, [*tokens]; 0 where mask is False. Without weights and smoothing
    this is -log p_y.

    logits: float[*tokens, classes]. targets: int[*tokens] in [0, classes). mask: bool[*tokens].
    class_weights: w, [classes]; None is all ones. label_smoothing: ε in [0, 1), the share of the
    target that is spread over all K classes.

    Raises a ValueError for shapes or dtypes that do not fit, and for ε outside [0, 1).
    References: label smoothing: Szegedy et al. 2016; with weights, the form of PyTorch.

    >>> logits = jnp.log(jnp.array([[0.5, 0.5], [0.25, 0.75]]))
    >>> print(token_cross_entropy(logits, jnp.array([0, 0])) / jnp.log(2))
    [1. 2.]
    """
    _check_classes(logits, targets, mask)
    checks.fraction("losses: label_smoothing", label_smoothing)
    logits, targets = _without_padding(logits, targets, mask)
    weights = _weights(class_weights, logits)
    label, valid = _label(logits, targets)
    log_p = jax.nn.log_softmax(logits)
    losses = -weights[label] * _of_label(log_p, label)
    if label_smoothing:  # not 0 · ∞ where a class is forbidden by a logit of -∞
        uniform = -jnp.sum(log_p * jnp.broadcast_to(weights, log_p.shape), axis=-1) / weights.size
        losses = (1 - label_smoothing) * losses + label_smoothing * uniform
    return _zero_padding(_spoil(losses, valid), mask)


def cross_entropy(
    logits: Shaped[Array, "..."],
    targets: Shaped[Array, "..."],
    *,
    mask: Shaped[Array, "..."] | None = None,
    class_weights: Shaped[Array, "..."] | None = None,
    label_smoothing: float = 0.0,
) -> Array:
    """L = Σ_t ℓ_t / Σ_t w_{y_t} over the real tokens: the mean loss in nats.

    ℓ_t and the arguments are those of `token_cross_entropy`; without `class_weights` the divisor is
    the number of real tokens. Equals PyTorch's `cross_entropy(weight=, label_smoothing=)` with padding
    ignored, and is 0 where no token is real or all their weights are 0. Raises the same ValueErrors.

    >>> logits = jnp.log(jnp.array([[0.5, 0.5], [0.25, 0.75], [jnp.nan, 1.0]]))
    >>> real = jnp.array([True, True, False])
    >>> print(cross_entropy(logits, jnp.array([0, 0, -1]), mask=real) / jnp.log(2))
    1.5
    """
    losses = token_cross_entropy(
        logits,
        targets,
        mask=mask,
        class_weights=class_weights,
        label_smoothing=label_smoothing,
    )
    if class_weights is None:
        return mean_over(losses, mask).value
    label, _ = _label(logits, targets)
    weights = _weights(class_weights, logits)[label]
    return Mean(_sum_real(losses, mask), _sum_real(weights, mask)).value


def perplexity(
    logits: Shaped[Array, "..."],
    targets: Shaped[Array, "..."],
    *,
    mask: Shaped[Array, "..."] | None = None,
) -> Array:
    """exp(L), L in nats: how many equally likely classes would be as hard; 1 without a real token.

    Arguments and ValueErrors are those of `cross_entropy`. Over many batches: merge the `Mean`s of
    `token_cross_entropy` and take the exponential once.

    >>> print(f"{perplexity(jnp.zeros((7, 50)), jnp.arange(7)):.3f}")
    50.000
    """
    return jnp.exp(cross_entropy(logits, targets, mask=mask))


def bits_per_token(
    logits: Shaped[Array, "..."],
    targets: Shaped[Array, "..."],
    *,
    mask: Shaped[Array, "..."] | None = None,
) -> Array:
    """L / ln 2: the mean loss in bits; bits per character (BPC) where tokens are characters.

    Arguments and ValueErrors are those of `cross_entropy`.

    >>> print(f"{bits_per_token(jnp.zeros((7, 256)), jnp.arange(7)):.3f}")
    8.000
    """
    return cross_entropy(logits, targets, mask=mask) / math.log(2)


def accuracy(
    logits: Shaped[Array, "..."],
    targets: Shaped[Array, "..."],
    *,
    mask: Shaped[Array, "..."] | None = None,
) -> Array:
    """The share of real tokens with argmax_k logits_{t,k} = target_t, in [0, 1]; 0 without any.

    Among equal logits the first counts. Arguments and ValueErrors are those of `cross_entropy`.

    >>> logits = jnp.array([[3.0, 1.0], [0.0, 2.0], [5.0, 4.0]])
    >>> print(accuracy(logits, jnp.array([0, 0, 0]), mask=jnp.array([True, True, False])))
    0.5
    """
    correct = token_accuracy(logits, targets, mask=mask)
    logits, targets = _without_padding(logits, targets, mask)
    _, valid = _label(logits, targets)
    return mean_over(_spoil(correct.astype(logits.dtype), valid), mask).value


def token_accuracy(
    logits: Shaped[Array, "..."],
    targets: Shaped[Array, "..."],
    *,
    mask: Shaped[Array, "..."] | None = None,
) -> Array:
    """argmax_k logits_{t,k} = target_t: bool[*tokens]; False where mask is False, and for no class.

    Among equal logits the first counts. Arguments and ValueErrors are those of `cross_entropy`.

    >>> logits = jnp.array([[3.0, 1.0], [0.0, 2.0], [2.0, 2.0]])
    >>> print(token_accuracy(logits, jnp.array([0, 0, 1])))
    [ True False False]
    """
    _check_classes(logits, targets, mask)
    logits = jax.lax.stop_gradient(logits)
    label, valid = _label(logits, _zero_padding(_in_32_bits(targets), mask))
    # No class before the label reaches it and none behind exceeds it. XLA:CPU joins comparisons to
    # what computed the logits, and runs `argmax` as a loop of its own over all of them.
    at_label = jnp.take_along_axis(logits, label[..., None], axis=-1)
    classes = jax.lax.broadcasted_iota(label.dtype, logits.shape, logits.ndim - 1)
    before = classes < jnp.broadcast_to(label[..., None], logits.shape)
    at_label = jnp.broadcast_to(at_label, logits.shape)
    correct = jnp.all(jnp.where(before, logits < at_label, logits <= at_label), axis=-1)
    return _zero_padding(correct & valid, mask)


def binary_cross_entropy(
    logits: Shaped[Array, "..."],
    targets: Shaped[Array, "..."],
    *,
    mask: Shaped[Array, "..."] | None = None,
    positive_weight: float | Shaped[Array, "..."] | None = None,
) -> Array:
    """ℓ_t = -a y_t log σ(z_t) - (1 - y_t) log(1 - σ(z_t)),   L = mean of ℓ_t over the real tokens

    In nats. The divisor is the number of real tokens whatever a is, as in PyTorch.

    logits: z, float[*tokens], one yes or no for each token. targets: y, bool[*tokens], or numbers in
    [0, 1], the probability of a yes; outside, L is NaN. mask: bool[*tokens]; where each token has
    several labels, repeat its mask over them. positive_weight: a, a scalar; None is 1.

    Raises a ValueError for shapes or dtypes that do not fit, and for an `a` that is not positive.

    >>> real = jnp.array([True, True, False])
    >>> loss = binary_cross_entropy(jnp.array([0.0, 0.0, jnp.nan]), jnp.array([1, 0, -1]), mask=real)
    >>> print(loss / jnp.log(2))
    1.0
    """
    _check_same(logits, targets)
    _check_mask(mask, logits.shape)
    logits, targets = _without_padding(logits, targets, mask)
    z, y = logits, targets.astype(logits.dtype)
    a = _positive_weight(positive_weight, z)
    losses = a * y * jax.nn.softplus(-z) + (1 - y) * jax.nn.softplus(z)
    return mean_over(_spoil(losses, (y >= 0) & (y <= 1)), mask).value


def mean_squared_error(
    predictions: Shaped[Array, "..."],
    targets: Shaped[Array, "..."],
    *,
    mask: Shaped[Array, "..."] | None = None,
) -> Array:
    """L = mean over real tokens t and features i of (ŷ_{t,i} - y_{t,i})²

    In the square of the targets' unit. The ½ of some texts is left out.

    predictions: ŷ, float[*tokens, features]. targets: y, of that shape. mask: bool[*tokens], over
    tokens and not features. Raises a ValueError for shapes or dtypes that do not fit.

    >>> predictions = jnp.array([[1.0, 2.0], [jnp.nan, 0.0]])
    >>> print(mean_squared_error(predictions, jnp.zeros((2, 2)), mask=jnp.array([True, False])))
    2.5
    """
    _check_same(predictions, targets, name="predictions", form="[*tokens, features]")
    if predictions.ndim == 0:
        raise ValueError("losses: predictions is a scalar; expected [*tokens, features]")
    _check_mask(mask, predictions.shape[:-1])
    predictions, targets = _without_padding(predictions, targets, mask)
    errors = jnp.square(predictions - targets.astype(predictions.dtype))
    return mean_over(jnp.mean(errors, axis=-1), mask).value


def activation_regularization(
    ys: Shaped[Array, "..."], *, mask: Shaped[Array, "..."] | None = None
) -> Array:
    """L = mean over real tokens t and features i of y_{t,i}²

    Keeps the outputs of a cell small. Unweighted: add α times it to the loss. AWD-LSTM has α = 2, and
    takes it on the outputs of the last layer after dropout.

    ys: float[*tokens, features]. mask: bool[*tokens]. Raises a ValueError for shapes or dtypes that do
    not fit. Reference: Merity, McCann, Socher 2017.

    >>> ys = jnp.array([[1.0, 3.0], [jnp.nan, 0.0]])
    >>> print(activation_regularization(ys, mask=jnp.array([True, False])))
    5.0
    """
    ys = _activations(ys, mask, "[*tokens, features]", axes=1)
    return mean_over(jnp.mean(jnp.square(ys), axis=-1), mask).value


def temporal_activation_regularization(
    ys: Shaped[Array, "..."],
    *,
    mask: Shaped[Array, "..."] | None = None,
    resets: Shaped[Array, "..."] | None = None,
) -> Array:
    """L = mean over pairs of neighbouring steps t, t+1 and features i of (y_{t+1,i} - y_{t,i})²

    Keeps the outputs of a cell from changing fast (a slowness prior). A pair counts where both steps
    are real and of one document; without any, L is 0. Unweighted: add β times it to the loss.
    AWD-LSTM has β = 1, and takes it on the outputs of the last layer before dropout.

    ys: float[time, *batch, features]. mask: bool[time, *batch]. resets: bool[time, *batch], True at
    the first step of a document, as for `sj.unroll`. Raises a ValueError for shapes or dtypes that do
    not fit. Reference: Merity, McCann, Socher 2017.

    >>> ys = jnp.array([[1.0], [3.0], [0.0], [1.0]])
    >>> print(temporal_activation_regularization(ys, resets=jnp.array([True, False, True, False])))
    2.5
    """
    ys = _activations(ys, mask, "[time, *batch, features]", axes=2)
    _check_mask(resets, ys.shape[:-1], "resets", "[time, *batch]")
    pairs = None if mask is None else mask[1:] & mask[:-1]
    if resets is not None:
        pairs = ~resets[1:] if pairs is None else pairs & ~resets[1:]
    changes = jnp.square(ys[1:] - ys[:-1])
    return mean_over(jnp.mean(changes, axis=-1), pairs).value


def _activations(ys: Array, mask: Array | None, form: str, axes: int) -> Array:
    """Outputs in the dtype of sums, with zeros in the padding before anything is computed from them."""
    if not jnp.issubdtype(ys.dtype, jnp.floating):
        raise ValueError(f"losses: ys is {ys.dtype}; expected floating point")
    if ys.ndim < axes:
        raise ValueError(f"losses: ys has shape {ys.shape}; expected {form}")
    _check_mask(mask, ys.shape[:-1])
    return _zero_padding(ys.astype(_sum_dtype(ys)), mask)


def _sum_dtype(x: Array) -> DTypeLike:
    """Sums run in at least float32: bfloat16 counts to 256 and no further."""
    return accumulator(x.dtype) if jnp.issubdtype(x.dtype, jnp.floating) else jnp.float32


def _sum_real(values: Array, mask: Array | None) -> Array:
    return jnp.sum(_zero_padding(values, mask))


def _zero_padding(x: Array, mask: Array | None) -> Array:
    """`x` [*tokens, ...], zero where `mask` [*tokens] is False."""
    if mask is None:
        return x
    mask = mask.reshape(mask.shape + (1,) * (x.ndim - mask.ndim))
    return jnp.where(jnp.broadcast_to(mask, x.shape), x, jnp.zeros_like(x))


def _without_padding(predictions: Array, targets: Array, mask: Array | None) -> tuple[Array, Array]:
    """Both with zeros in the padding, the first widened to the dtype of sums.

    Before anything is computed from them: masking only the loss leaves 0 · NaN in the gradient.
    """
    predictions = predictions.astype(_sum_dtype(predictions))
    return _zero_padding(predictions, mask), _zero_padding(_in_32_bits(targets), mask)


def _in_32_bits(targets: Array) -> Array:
    """Wide integers of NumPy cut to int32, where JAX would wrap them into the range of the classes."""
    if not isinstance(targets, np.ndarray) or targets.dtype not in (np.int64, np.uint64):
        return targets
    return jnp.asarray(np.clip(targets, -1, np.iinfo(np.int32).max).astype(np.int32))


def _label(logits: Array, targets: Array) -> tuple[Array, Array]:
    """The target where it is a class, else class 0; and whether it is one."""
    # Narrow integers could not be compared with `classes`; wide ones must not wrap into its range.
    targets = targets if targets.dtype.itemsize >= 4 else targets.astype(jnp.int32)
    valid = (targets >= 0) & (targets < logits.shape[-1])
    return jnp.where(valid, targets, jnp.zeros_like(targets)), valid


def _of_label(values: Array, label: Array) -> Array:
    """values[t, label_t]: [*tokens].

    As a choice and a sum: the gradient of a gather is a scatter into an array of the size of `values`,
    which XLA:CPU cannot join to what makes and reads that array.
    """
    classes = jax.lax.broadcasted_iota(label.dtype, values.shape, values.ndim - 1)
    chosen = classes == jnp.broadcast_to(label[..., None], values.shape)
    return jnp.sum(jnp.where(chosen, values, jnp.zeros_like(values)), axis=-1)


def _spoil(losses: Array, valid: Array) -> Array:
    """NaN where not `valid`. A factor, not a choice, so that the gradient is NaN as well."""
    return losses * jnp.where(valid, 1, jnp.nan).astype(losses.dtype)


def _weights(class_weights: Array | None, logits: Array) -> Array:
    """One weight for each class, in the dtype of sums."""
    classes = logits.shape[-1]
    if class_weights is None:
        return jnp.ones(classes, _sum_dtype(logits))
    if class_weights.shape != (classes,):
        raise ValueError(
            f"losses: class_weights has shape {class_weights.shape} "
            f"but logits has {classes} classes; class_weights is [classes]"
        )
    return class_weights.astype(_sum_dtype(logits))


def _positive_weight(positive_weight: float | Array | None, logits: Array) -> Array:
    """The factor of the positive targets, as a scalar of the dtype of logits."""
    if checks.is_number(positive_weight):
        checks.finite_positive("losses: positive_weight", positive_weight)
    a = jnp.asarray(1.0 if positive_weight is None else positive_weight, logits.dtype)
    if a.shape:
        raise ValueError(f"losses: positive_weight has shape {a.shape}; expected a scalar")
    return jnp.broadcast_to(a, logits.shape)


def _check_classes(logits: Array, targets: Array, mask: Array | None) -> None:
    if not jnp.issubdtype(logits.dtype, jnp.floating):
        raise ValueError(f"losses: logits is {logits.dtype}; expected floating point")
    if logits.ndim == 0 or targets.shape != logits.shape[:-1]:
        raise ValueError(
            f"losses: targets has shape {targets.shape} but logits has {logits.shape}; "
            "targets is int[*tokens] for logits [*tokens, classes]"
        )
    if not jnp.issubdtype(targets.dtype, jnp.integer):
        raise ValueError(f"losses: targets is {targets.dtype}; expected integers, [*tokens]")
    _check_mask(mask, targets.shape)


def _check_same(
    predictions: Array, targets: Array, name: str = "logits", form: str = "[*tokens]"
) -> None:
    if not jnp.issubdtype(predictions.dtype, jnp.floating):
        raise ValueError(f"losses: {name} is {predictions.dtype}; expected floating point")
    if targets.shape != predictions.shape:
        raise ValueError(
            f"losses: targets has shape {targets.shape} but {name} has {predictions.shape}; "
            f"both are {form}"
        )


def _check_mask(
    mask: Array | None, tokens: tuple[int, ...], name: str = "mask", form: str = "[*tokens]"
) -> None:
    if mask is None:
        return
    if mask.shape != tokens:
        raise ValueError(
            f"losses: {name} has shape {mask.shape} but there are tokens {tokens}; "
            f"{name} is bool{form}"
        )
    if mask.dtype != jnp.bool_:
        raise ValueError(f"losses: {name} is {mask.dtype}; expected bool{form}")
