"""Backpropagation through time: the gradient over all the steps of a batch."""

import dataclasses
from typing import Any

import jax
from jaxtyping import Array

from seqjax import checks
from seqjax.gradients.method import Gradient, GradientFn, Loss, Method, formed, with_loss


@dataclasses.dataclass(frozen=True)
class BPTT(Method):
    """∂L/∂θ = Σ_t Σ_{k≤t} ∂L_t/∂s_t · (∏_{j=k+1..t} ∂s_j/∂s_{j-1}) · ∂⁺s_k/∂θ

    The sum runs over all steps of the batch; the carry that comes in is held constant. `sj.bptt` is
    this method: `sj.bptt(loss)` is its gradient, `sj.bptt.update(loss, optimizer)` makes one update for
    each batch. Its metrics are those of the loss and, if the loss reports none of that name, "loss":
    its scalar, counted as often as the metric that counts most (once if there is none).

    Time and memory O(T).

    Raises a ValueError for a loss of another form than `Loss`, and for params that are not floating
    point.
    References: Werbos 1990; Rumelhart, Hinton, Williams 1986.

    >>> import jax.numpy as jnp
    >>> def loss(params, carry, batch, key):
    ...     return jnp.sum(params * batch), (carry, {})
    >>> gradient = bptt(loss)(jnp.array(2.0), None, jnp.array([1.0, 3.0]), None)
    >>> float(gradient.grads), float(gradient.metrics["loss"].value)
    (4.0, 8.0)
    """

    def gradient(self, loss: Loss) -> GradientFn:
        """Return the gradient function of `loss`."""
        loss = formed(self.name, loss)

        def gradient(params: Any, carry: Any, batch: Any, key: Array | None) -> Gradient:
            checks.differentiable(f"{self.name}: params", params)
            (value, (carry, metrics)), grads = jax.value_and_grad(loss, has_aux=True)(
                params, carry, batch, key
            )
            return Gradient(grads, carry, with_loss(value, metrics))

        return gradient


bptt = BPTT()
