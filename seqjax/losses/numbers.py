"""Losses of numbers: yes or no for each token, and squared errors."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Shaped

from seqjax import checks
from seqjax.losses.mean import check_mask, mean_over, spoil, without_padding


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
    check_mask(mask, logits.shape)
    logits, targets = without_padding(logits, targets, mask)
    z, y = logits, targets.astype(logits.dtype)
    a = _positive_weight(positive_weight, z)
    losses = a * y * jax.nn.softplus(-z) + (1 - y) * jax.nn.softplus(z)
    return mean_over(spoil(losses, (y >= 0) & (y <= 1)), mask).value


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
    check_mask(mask, predictions.shape[:-1])
    predictions, targets = without_padding(predictions, targets, mask)
    errors = jnp.square(predictions - targets.astype(predictions.dtype))
    return mean_over(jnp.mean(errors, axis=-1), mask).value


def _positive_weight(positive_weight: float | Array | None, logits: Array) -> Array:
    """The factor of the positive targets, as a scalar of the dtype of logits."""
    if checks.is_number(positive_weight):
        checks.finite_positive("losses: positive_weight", positive_weight)
    a = jnp.asarray(1.0 if positive_weight is None else positive_weight, logits.dtype)
    if a.shape:
        raise ValueError(f"losses: positive_weight has shape {a.shape}; expected a scalar")
    return jnp.broadcast_to(a, logits.shape)


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
