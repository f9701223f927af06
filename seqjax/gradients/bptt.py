"""Backpropagation through time: the gradient over all the steps of a batch."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from seqjax import checks
from seqjax.losses import Mean
from seqjax.numerics import accumulator

Metrics: TypeAlias = dict[str, Mean]

Reported: TypeAlias = Mapping[str, Mean | Array | float]
"""The metrics that a loss returns: `Mean`s and plain scalars, by name."""


@runtime_checkable
class Loss(Protocol):
    """The one signature that everything which trains takes.

    `loss(params, carry, batch, key) -> (scalar, (carry, metrics))`

    carry: the recurrent state that crosses windows, or None. It enters as data and leaves as an
        auxiliary output, so no gradient reaches past the window that it enters.
    batch: any pytree; for `tbptt` every leaf is [time, ...].
    key: the randomness of this call, or None for evaluation.
    metrics: named `sj.losses.Mean`s, which add up exactly over windows and batches, or scalars (a
        number or a 0-d array). A scalar counts as one observation, `Mean(scalar, 1)`, for each call of
        the loss.
    """

    def __call__(
        self, params: Any, carry: Any, batch: Any, key: Array | None, /
    ) -> tuple[Float[Array, ""], tuple[Any, Reported]]:
        """The scalar to minimise, the carry for the next window, and what to report."""
        ...


class Gradient(NamedTuple):
    """What a gradient method gives: `grads` is shaped like params, for any optax chain."""

    grads: Any
    carry: Any
    metrics: Metrics


GradientFn: TypeAlias = Callable[[Any, Any, Any, Array | None], Gradient]


def bptt(loss: Loss) -> GradientFn:
    """∂L/∂θ = Σ_t Σ_{k≤t} ∂L_t/∂s_t · (∏_{j=k+1..t} ∂s_j/∂s_{j-1}) · ∂⁺s_k/∂θ

    The sum runs over all steps of the batch; the carry that comes in is held constant.
    Gives `gradient(params, carry, batch, key) -> Gradient`. Its metrics are those of the loss and,
    where the loss reports none of that name, "loss": its scalar, counted as often as the metric that
    counts most (once where there is none).

    Time and memory O(T). Raises a ValueError for a loss of another form than `Loss`, and for params that
    are not floating point. References: Werbos 1990; Rumelhart, Hinton, Williams 1986.

    >>> import jax.numpy as jnp
    >>> def loss(params, carry, batch, key):
    ...     return jnp.sum(params * batch), (carry, {})
    >>> gradient = bptt(loss)(jnp.array(2.0), None, jnp.array([1.0, 3.0]), None)
    >>> float(gradient.grads), float(gradient.metrics["loss"].value)
    (4.0, 8.0)
    """
    loss = formed("bptt", loss)

    def gradient(params: Any, carry: Any, batch: Any, key: Array | None) -> Gradient:
        checks.differentiable("bptt: params", params)
        (value, (carry, metrics)), grads = jax.value_and_grad(loss, has_aux=True)(
            params, carry, batch, key
        )
        return Gradient(grads, carry, with_loss(value, metrics))

    return gradient


def formed(name: str, loss: Loss) -> Loss:
    """`loss` with its form validated, its scalar as an array and its metrics as `Mean`s."""
    loss = checked(name, loss)

    def with_means(params: Any, carry: Any, batch: Any, key: Array | None) -> Any:
        value, (carry, metrics) = loss(params, carry, batch, key)
        return value, (carry, as_means(metrics))

    return with_means


def checked(name: str, loss: Loss) -> Loss:
    """`loss` with its form validated and its scalar as an array; metrics as it reports them."""
    checks.function(f"{name}: the loss", loss)

    def checked(params: Any, carry: Any, batch: Any, key: Array | None) -> Any:
        result = loss(params, carry, batch, key)
        pair = lambda value: isinstance(value, tuple | list) and len(value) == 2
        if not pair(result) or not pair(result[1]):
            raise ValueError(
                f"{name}: the loss gives {described(result)}; expected (scalar, (carry, metrics)), "
                "with carry None where there is no state, and metrics {} where nothing is reported"
            )
        value, (carry, metrics) = result
        value = checks.scalar(f"{name}: the loss", value)
        as_means(metrics)
        return value, (carry, metrics)

    return checked


def described(value: Any) -> str:
    """The form of what a loss gives: `(float32[], GRUState)`."""
    if type(value) in (tuple, list):
        return f"({', '.join(map(described, value))})"
    is_array = isinstance(value, jax.Array)
    return f"{value.dtype}{list(value.shape)}" if is_array else type(value).__name__


def with_loss(value: Array, metrics: Any) -> Metrics:
    """The metrics of a loss as `Mean`s, and its scalar as "loss" if it reports none of that name.

    The scalar counts as often as the metric that counts most, and once if there is none.

    Raises a ValueError as `as_means` does.
    """
    metrics = as_means(metrics)
    # As often as the metric that counts most: batches of unequal size then weigh what they hold.
    counts = [jnp.asarray(metric.count, value.dtype) for metric in metrics.values()]
    count = functools.reduce(jnp.maximum, counts) if counts else jnp.ones_like(value)
    return {"loss": Mean(value * count, count), **metrics}


def as_means(metrics: Any) -> Metrics:
    """Metrics of a loss as `Mean`s; a scalar counts as one observation.

    Raises a ValueError for metrics that are not a dict of `Mean`s and real scalars.
    """
    if isinstance(metrics, Mapping):
        means = {name: as_mean(metric) for name, metric in metrics.items()}
        found = {name: mean for name, mean in means.items() if mean is not None}
        if len(found) == len(means):
            return found
    raise ValueError(
        f"the loss gives metrics {metrics!r}; expected a dict of sj.losses.Mean or scalars, or {{}}: "
        "loss(params, carry, batch, key) -> (scalar, (carry, metrics))"
    )


def as_mean(metric: Any) -> Mean | None:
    """A scalar as the mean of one observation, in at least float32; None if it is neither."""
    if isinstance(metric, Mean):
        return metric
    number = isinstance(metric, bool | int | float | np.generic | np.ndarray | jax.Array)
    if not number or jnp.shape(metric) or not jnp.isrealobj(metric):
        return None
    value = jnp.asarray(metric)
    floating = jnp.issubdtype(value.dtype, jnp.floating)
    dtype = accumulator(value.dtype if floating else jnp.float32)
    return Mean(value.astype(dtype), jnp.ones((), dtype))
