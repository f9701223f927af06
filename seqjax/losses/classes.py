"""Cross-entropy, perplexity and accuracy over classes, from logits."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array

from seqjax import checks
from seqjax.losses.mean import (
    Mean,
    check_floating,
    check_mask,
    in_32_bits,
    mean_over,
    nan_unless,
    sum_dtype,
    sum_valid,
    without_padding,
    zero_padding,
)


def token_cross_entropy(
    logits: Array,
    targets: Array,
    *,
    mask: Array | None = None,
    class_weights: Array | None = None,
    label_smoothing: float = 0.0,
) -> Array:
    """ℓ_t = -(1 - ε) w_y log p_y - ε / K · Σ_k w_k log p_k,   p = softmax(logits_t),   y = target_t

    The loss of each token in nats, [*tokens]; 0 where mask is False. Without weights and smoothing
    this is -log p_y.

    Args:
        logits: float[*tokens, classes].
        targets: int[*tokens] in [0, classes).
        mask: bool[*tokens].
        class_weights: w, [classes]; None is all ones.
        label_smoothing: ε in [0, 1), the share of the target spread over all K classes.

    Raises:
        ValueError: shapes or dtypes do not fit, or ε is outside [0, 1).

    References: label smoothing: Szegedy et al. 2016; with weights, the form of PyTorch.

    >>> logits = jnp.log(jnp.array([[0.5, 0.5], [0.25, 0.75]]))
    >>> print(token_cross_entropy(logits, jnp.array([0, 0])) / jnp.log(2))
    [1. 2.]
    """
    _check_classes(logits, targets, mask)
    checks.fraction("losses: label_smoothing", label_smoothing)
    logits, targets = without_padding(logits, targets, mask)
    weights = _weights(class_weights, logits)
    label, valid = label_of(logits, targets)
    log_p = jax.nn.log_softmax(logits)
    losses = -weights[label] * of_label(log_p, label)
    if label_smoothing:  # not 0 · ∞ where a class is forbidden by a logit of -∞
        uniform = -jnp.sum(log_p * jnp.broadcast_to(weights, log_p.shape), axis=-1) / weights.size
        losses = (1 - label_smoothing) * losses + label_smoothing * uniform
    return zero_padding(nan_unless(valid, losses), mask)


def cross_entropy(
    logits: Array,
    targets: Array,
    *,
    mask: Array | None = None,
    class_weights: Array | None = None,
    label_smoothing: float = 0.0,
) -> Array:
    """L = Σ_t ℓ_t / Σ_t w_{y_t} over valid tokens: the mean loss in nats.

    ℓ_t, arguments and errors are those of `token_cross_entropy`; without `class_weights` the divisor is
    the number of valid tokens. Equals PyTorch's `cross_entropy(weight=, label_smoothing=)` with padding
    ignored, and is 0 if no token is valid or all their weights are 0.

    >>> logits = jnp.log(jnp.array([[0.5, 0.5], [0.25, 0.75], [jnp.nan, 1.0]]))
    >>> valid = jnp.array([True, True, False])
    >>> print(cross_entropy(logits, jnp.array([0, 0, -1]), mask=valid) / jnp.log(2))
    1.5
    """
    options = {"class_weights": class_weights, "label_smoothing": label_smoothing}
    losses = token_cross_entropy(logits, targets, mask=mask, **options)
    if class_weights is None:
        return mean_over(losses, mask).value
    label, _ = label_of(logits, targets)
    weights = _weights(class_weights, logits)[label]
    return Mean(sum_valid(losses, mask), sum_valid(weights, mask)).value


def perplexity(logits: Array, targets: Array, *, mask: Array | None = None) -> Array:
    """exp(L), L in nats: the number of equally likely classes of the same loss; 1 without a valid token.

    Arguments and errors are those of `cross_entropy`. Over many batches, merge the `Mean`s of
    `token_cross_entropy` and take the exponential once.

    >>> print(f"{perplexity(jnp.zeros((7, 50)), jnp.arange(7)):.3f}")
    50.000
    """
    return jnp.exp(cross_entropy(logits, targets, mask=mask))


def bits_per_token(logits: Array, targets: Array, *, mask: Array | None = None) -> Array:
    """L / ln 2: the mean loss in bits; bits per character (BPC) where tokens are characters.

    Arguments and errors are those of `cross_entropy`.

    >>> print(f"{bits_per_token(jnp.zeros((7, 256)), jnp.arange(7)):.3f}")
    8.000
    """
    return cross_entropy(logits, targets, mask=mask) / math.log(2)


def accuracy(logits: Array, targets: Array, *, mask: Array | None = None) -> Array:
    """Fraction of valid tokens with argmax_k logits_{t,k} = target_t, in [0, 1]; 0 without any.

    Among equal logits the first counts. Arguments and errors are those of `cross_entropy`.

    >>> logits = jnp.array([[3.0, 1.0], [0.0, 2.0], [5.0, 4.0]])
    >>> print(accuracy(logits, jnp.array([0, 0, 0]), mask=jnp.array([True, True, False])))
    0.5
    """
    correct = token_accuracy(logits, targets, mask=mask)
    logits, targets = without_padding(logits, targets, mask)
    _, valid = label_of(logits, targets)
    return mean_over(nan_unless(valid, correct.astype(logits.dtype)), mask).value


def token_accuracy(logits: Array, targets: Array, *, mask: Array | None = None) -> Array:
    """argmax_k logits_{t,k} = target_t: bool[*tokens], False at masked tokens and invalid targets.

    Among equal logits the first counts. Arguments and errors are those of `cross_entropy`.

    >>> logits = jnp.array([[3.0, 1.0], [0.0, 2.0], [2.0, 2.0]])
    >>> print(token_accuracy(logits, jnp.array([0, 0, 1])))
    [ True False False]
    """
    _check_classes(logits, targets, mask)
    logits = jax.lax.stop_gradient(logits)
    label, valid = label_of(logits, zero_padding(in_32_bits(targets), mask))
    # Correct: no class before the label reaches its logit, and none after exceeds it. XLA:CPU fuses
    # these comparisons with the computation of the logits, but runs `argmax` as a separate loop.
    at_label = jnp.take_along_axis(logits, label[..., None], axis=-1)
    classes = jax.lax.broadcasted_iota(label.dtype, logits.shape, logits.ndim - 1)
    before = classes < jnp.broadcast_to(label[..., None], logits.shape)
    at_label = jnp.broadcast_to(at_label, logits.shape)
    correct = jnp.all(jnp.where(before, logits < at_label, logits <= at_label), axis=-1)
    return zero_padding(correct & valid, mask)


def label_of(logits: Array, targets: Array) -> tuple[Array, Array]:
    """The target, or class 0 where it is not a class; and whether it is one."""
    # A narrow integer cannot be compared with `classes`; a wide one must not wrap into its range.
    targets = targets if targets.dtype.itemsize >= 4 else targets.astype(jnp.int32)
    valid = (targets >= 0) & (targets < logits.shape[-1])
    return jnp.where(valid, targets, jnp.zeros_like(targets)), valid


def of_label(values: Array, label: Array) -> Array:
    """values[t, label_t]: [*tokens].

    A `where` and a sum, since the gradient of a gather is a scatter into an array of the size of
    `values`, which XLA:CPU cannot fuse with its producer and consumer.
    """
    classes = jax.lax.broadcasted_iota(label.dtype, values.shape, values.ndim - 1)
    chosen = classes == jnp.broadcast_to(label[..., None], values.shape)
    return jnp.sum(jnp.where(chosen, values, jnp.zeros_like(values)), axis=-1)


def _weights(class_weights: Array | None, logits: Array) -> Array:
    """One weight per class, in the dtype of sums."""
    classes = logits.shape[-1]
    if class_weights is None:
        return jnp.ones(classes, sum_dtype(logits))
    if class_weights.shape != (classes,):
        raise ValueError(
            f"losses: class_weights has shape {class_weights.shape} "
            f"but logits has {classes} classes; class_weights is [classes]"
        )
    return class_weights.astype(sum_dtype(logits))


def _check_classes(logits: Array, targets: Array, mask: Array | None) -> None:
    check_floating("logits", logits)
    check_targets("logits", "classes", logits, targets)
    check_mask(mask, targets.shape)


def check_targets(name: str, axis: str, of: Array, targets: Array) -> None:
    """Raise a ValueError unless targets are integers, one for each row of `of`, [*tokens, ...]."""
    if of.ndim == 0 or targets.shape != of.shape[:-1]:
        raise ValueError(
            f"losses: targets has shape {targets.shape} but {name} has {of.shape}; "
            f"targets is int[*tokens] for {name} [*tokens, {axis}]"
        )
    if not jnp.issubdtype(targets.dtype, jnp.integer):
        raise ValueError(f"losses: targets is {targets.dtype}; expected integers, [*tokens]")
