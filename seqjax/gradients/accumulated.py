"""Truncated backpropagation with fixed parameters: one gradient, added up over all windows."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from seqjax.gradients.bptt import Gradient, GradientFn, Loss, Metrics, formed, with_loss
from seqjax.gradients.refusals import check_call, check_lengths
from seqjax.gradients.sums import Sums
from seqjax.gradients.truncation import (
    Losses,
    Truncation,
    WindowGradient,
    by_count,
    over_windows,
)
from seqjax.gradients.updates import UpdateFn, update_once


@dataclasses.dataclass(frozen=True)
class AccumulatedTBPTT:
    """Truncated gradients added up over a batch; made by `accumulated_tbptt`, which explains it.

    `gradient(loss)` is the gradient, as `bptt(loss)` is; called with a loss and an optimizer it is a
    `Method` for `fit`, as `whole_batch` is.
    """

    k1: int
    k2: int
    losses: Losses = "new"
    weight: str | None = None
    short_batches: bool = False

    def __post_init__(self) -> None:
        """Refuse what makes no windows."""
        check_lengths("accumulated_tbptt", self.k1, self.k2, self.losses)

    def __call__(self, loss: Loss, optimizer: optax.GradientTransformation) -> UpdateFn:
        """The update function: one gradient over the batch, one update."""
        return update_once(self.gradient(loss), optimizer)

    def gradient(self, loss: Loss) -> GradientFn:
        """`gradient(params, carry, batch, key) -> Gradient`, its metrics summed over the windows."""
        name = "accumulated_tbptt"
        loss = formed(name, loss)
        truncation = Truncation(loss, self.k1, self.k2, self.losses, by_count(self.weight))

        def gradient(params: Any, carry: Any, batch: Any, key: Array | None) -> Gradient:
            carry, batch, value = check_call(name, self, loss, params, carry, batch, key)

            def window(
                sums: Sums, gradient: Callable[[Any], WindowGradient]
            ) -> tuple[Sums, Any, Metrics]:
                found, carry, metrics = gradient(params)
                return sums.merge(found), carry, metrics

            sums, carry, metrics = over_windows(
                window, truncation, Sums.zero(params, value.dtype), carry, batch, key
            )
            grads, total = sums.mean(params)
            metrics = jax.tree.map(lambda m: jnp.sum(m, axis=0), metrics)
            return Gradient(grads, carry, with_loss(total, metrics))

        return gradient


def accumulated_tbptt(
    k1: int,
    k2: int | None = None,
    *,
    losses: Losses = "new",
    weight: str | None = None,
    short_batches: bool = False,
) -> AccumulatedTBPTT:
    """Σ_j n_j g_j / Σ_j n_j: the gradients of `tbptt(k1, k2)` with fixed params, added up.

    n_j is the number of steps whose loss window j counts, so that this is the truncated gradient of
    the mean loss over the batch: with losses="new" and k2 = time it is that of `bptt`, for every k1,
    in the memory of one block of k1 steps and of time / k1 carries.

    `accumulated_tbptt(k1, k2).gradient(loss)` is a gradient function as `bptt(loss)` is, and
    `accumulated_tbptt(k1, k2)` itself is a method for `fit`, with one update a batch, as `whole_batch`.

    weight: None weighs a block by its steps, as is right for a loss that is a mean over steps. Where
        blocks hold unequal numbers of real tokens, and the loss is a mean over these, name a metric
        that counts them, such as "nats": its `Mean.count` is then n.
    k1, k2, losses, short_batches, time and errors are those of `tbptt`, but params do not change
    between windows, so that the carries are those of now. With k2 < k1 losses are counted in the last
    k2 steps of each k1 only, and the mean is over them. Sums are kept in at least float32.

    >>> accumulated_tbptt(16, 64).gradient  # doctest: +ELLIPSIS
    <bound method AccumulatedTBPTT.gradient of AccumulatedTBPTT(k1=16, k2=64, ...)>
    """
    short_batches = short_batches or k2 is None
    return AccumulatedTBPTT(k1, k1 if k2 is None else k2, losses, weight, short_batches)
