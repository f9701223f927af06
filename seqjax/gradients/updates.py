"""From gradients to updates: what every way to train gives, and one update for a whole batch."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from seqjax import checks
from seqjax.gradients.bptt import GradientFn, Loss, Metrics, bptt, described


class Update(NamedTuple):
    """What one call of an update function gives.

    metrics: every `Mean` has a leading axis, one entry for each update of the parameters.
    """

    params: Any
    opt_state: Any
    carry: Any
    metrics: Metrics


UpdateFn: TypeAlias = Callable[[Any, Any, Any, Any, Array | None], Update]
"""`update(params, opt_state, carry, batch, key) -> Update`; pure, for the caller to jit."""

Method: TypeAlias = Callable[[Any, optax.GradientTransformation], UpdateFn]
"""How a loss and an optimizer become updates: `whole_batch`, `tbptt(k1, k2)`, `online(cell, rule)`.

The loss is a `Loss`, but for `online`, where it is a `StepLoss`.
"""


def check_optimizer(name: str, optimizer: Any) -> None:
    """Anything with an optax `update`, `optax.MultiSteps` too."""
    if not callable(getattr(optimizer, "update", None)):
        raise ValueError(f"{name}: optimizer: expected one of optax, got {optimizer!r}")


def apply_gradient(gradient: GradientFn, optimizer: optax.GradientTransformation) -> UpdateFn:
    """One gradient over the batch, one update of the parameters; metrics as the gradient has them."""
    checks.function("apply_gradient: gradient", gradient)
    check_optimizer("apply_gradient", optimizer)

    def update(params: Any, opt_state: Any, carry: Any, batch: Any, key: Array | None) -> Update:
        result = gradient(params, carry, batch, key)
        if not isinstance(result, tuple) or len(result) != 3:
            raise ValueError(
                f"apply_gradient: gradient gives {described(result)}; expected a Gradient, as that of "
                "sj.bptt(loss) does"
            )
        grads, carry, metrics = result
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return Update(optax.apply_updates(params, updates), opt_state, carry, metrics)

    return update


def update_once(gradient: GradientFn, optimizer: optax.GradientTransformation) -> UpdateFn:
    """`apply_gradient` with the leading axis of one update in its metrics, as `fit` takes it."""
    apply = apply_gradient(gradient, optimizer)

    def update(params: Any, opt_state: Any, carry: Any, batch: Any, key: Array | None) -> Update:
        result = apply(params, opt_state, carry, batch, key)
        return result._replace(metrics=jax.tree.map(lambda m: jnp.asarray(m)[None], result.metrics))

    return update


def whole_batch(loss: Loss, optimizer: optax.GradientTransformation) -> UpdateFn:
    """BPTT through each batch, then one update."""
    return update_once(bptt(loss), optimizer)
