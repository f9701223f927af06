"""The one form of all gradient methods: a loss becomes a gradient, or updates of the parameters."""

import abc
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from seqjax import checks
from seqjax.losses import Mean
from seqjax.numerics import accumulator

Metrics: TypeAlias = dict[str, Mean]

Reported: TypeAlias = Mapping[str, Mean | Array | float]
"""The metrics that a loss returns: `Mean`s and plain scalars, by name."""


@runtime_checkable
class Loss(Protocol):
    """The signature that every model and every training function shares.

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
        """Compute the scalar to minimise, the carry for the next window, and the metrics."""
        ...


class Gradient(NamedTuple):
    """The result of a gradient function; `grads` is shaped like params, for any optax chain."""

    grads: Any
    carry: Any
    metrics: Metrics


class Update(NamedTuple):
    """The result of an update function.

    metrics: every `Mean` has a leading axis, with one entry for each update of the parameters.
    """

    params: Any
    opt_state: Any
    carry: Any
    metrics: Metrics


GradientFn: TypeAlias = Callable[[Any, Any, Any, Array | None], Gradient]
"""`gradient(params, carry, batch, key) -> Gradient`; pure, for the caller to jit."""

UpdateFn: TypeAlias = Callable[[Any, Any, Any, Any, Array | None], Update]
"""`update(params, opt_state, carry, batch, key) -> Update`; pure, for the caller to jit."""


class Method(abc.ABC):
    """Turns a loss into gradients and updates.

    A method is a frozen, hashable value, and all methods are used in the same two ways:

        gradient = method(loss)                  # gradient(params, carry, batch, key) -> Gradient
        update = method.update(loss, optimizer)  # update(params, opt_state, carry, batch, key) -> Update

    `method(loss)` is the gradient over the whole batch, with params held constant. `method.update`
    applies the optimizer as often as the method says: once a batch for `sj.bptt`, in every window for
    `sj.tbptt(k1, k2)`, every few steps for online rules such as `sj.rtrl(cell)`. The loss is a `Loss`,
    or for online rules a `StepLoss`. `sj.training.fit(..., method=method)` takes any of them.

    A method of your own derives from this class and defines `gradient`; its `update` then makes one
    update for each batch.

    >>> import jax.numpy as jnp, optax, seqjax as sj
    >>> def loss(params, carry, batch, key):
    ...     return jnp.sum(params * batch), (carry, {})
    >>> params, batch, optimizer = jnp.array(2.0), jnp.array([1.0, 3.0]), optax.sgd(0.5)
    >>> float(sj.bptt(loss)(params, None, batch, None).grads)
    4.0
    >>> update = sj.tbptt(1).update(loss, optimizer)  # a window, and an update, for each step
    >>> result = update(params, optimizer.init(params), None, batch, None)
    >>> print(result.params, result.metrics["loss"].value)
    0.0 [2.  4.5]
    """

    @property
    def name(self) -> str:
        """The name that errors begin with."""
        return type(self).__name__.lower()

    def __call__(self, loss: Any, *excess: Any) -> GradientFn:
        """Return `gradient(params, carry, batch, key) -> Gradient`, with params held constant."""
        if excess:
            raise ValueError(
                f"{self.name}: expected one argument, the loss, for its gradient; got "
                f"{1 + len(excess)}: for updates use .update(loss, optimizer)"
            )
        return self.gradient(loss)

    @abc.abstractmethod
    def gradient(self, loss: Any) -> GradientFn:
        """Return the gradient function of a loss; `method(loss)` calls it."""

    def update(self, loss: Any, optimizer: optax.GradientTransformation) -> UpdateFn:
        """Return `update(params, opt_state, carry, batch, key) -> Update`; here one update a batch.

        Raises a ValueError for an optimizer without an `update` as optax has it.
        """
        gradient = self.gradient(loss)
        check_optimizer(self.name, optimizer)

        def update(
            params: Any, opt_state: Any, carry: Any, batch: Any, key: Array | None
        ) -> Update:
            found = gradient(params, carry, batch, key)
            if not isinstance(found, Gradient):
                raise ValueError(
                    f"{self.name}: the gradient function gives {described(found)}; expected a "
                    "sj.gradients.Gradient(grads, carry, metrics)"
                )
            params, opt_state = applied(optimizer, found.grads, params, opt_state)
            metrics = jax.tree.map(lambda m: jnp.asarray(m)[None], found.metrics)
            return Update(params, opt_state, found.carry, metrics)

        return update


def check_method(name: str, method: Any) -> None:
    """Raise unless `method` is a `Method`."""
    if not isinstance(method, Method):
        raise ValueError(
            f"{name}: method: expected a sj.gradients.Method, such as sj.bptt or sj.tbptt(k1), got "
            f"{method!r}"
        )


def check_optimizer(name: str, optimizer: Any) -> None:
    """Raise unless `optimizer` has an optax `update`, as `optax.MultiSteps` does too."""
    if not callable(getattr(optimizer, "update", None)):
        raise ValueError(f"{name}: optimizer: expected one of optax, got {optimizer!r}")


def applied(optimizer: Any, grads: Any, params: Any, opt_state: Any) -> tuple[Any, Any]:
    """Return params and optimizer state after one update."""
    updates, opt_state = optimizer.update(grads, opt_state, params)
    return optax.apply_updates(params, updates), opt_state


def formed(name: str, loss: Loss) -> Loss:
    """Return `loss` with its form validated, its scalar as an array and its metrics as `Mean`s."""
    loss = checked(name, loss)

    def with_means(params: Any, carry: Any, batch: Any, key: Array | None) -> Any:
        value, (carry, metrics) = loss(params, carry, batch, key)
        return value, (carry, as_means(metrics))

    return with_means


def checked(name: str, loss: Loss) -> Loss:
    """Return `loss` with its form validated and its scalar as an array; metrics as it reports them."""
    check_signature(f"{name}: the loss", loss, "loss(params, carry, batch, key)", "sj.rtrl(cell)")

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


def check_signature(name: str, function: Any, form: str, other: str) -> None:
    """Raise unless `function` can be called as `form`; a loss of the other form goes with `other`."""
    checks.function(name, function)
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some callables cannot say
        return
    try:
        signature.bind(*[None] * (form.count(",") + 1))
    except TypeError:
        raise ValueError(
            f"{name}: expected a function that is called as {form}, got one with the arguments "
            f"{signature}; a loss of another form may belong to another method, such as {other}"
        ) from None


def described(value: Any) -> str:
    """Describe the form of a result: `(float32[], GRUState)`."""
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
    # As often as the metric that counts most, so that batches of unequal size weigh what they hold.
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
