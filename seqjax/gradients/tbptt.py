"""Truncated backpropagation through time, with an update of the parameters in every window."""

import dataclasses
from collections.abc import Callable
from typing import Any

import optax
from jaxtyping import Array

from seqjax.gradients.bptt import Loss, Metrics, formed, with_loss
from seqjax.gradients.refusals import check_call, check_lengths
from seqjax.gradients.truncation import (
    Losses,
    Truncation,
    WindowGradient,
    by_count,
    equally,
    over_windows,
)
from seqjax.gradients.updates import Method as Method
from seqjax.gradients.updates import Update as Update
from seqjax.gradients.updates import UpdateFn as UpdateFn
from seqjax.gradients.updates import apply_gradient as apply_gradient
from seqjax.gradients.updates import check_optimizer
from seqjax.gradients.updates import whole_batch as whole_batch


@dataclasses.dataclass(frozen=True)
class TBPTT:
    """Truncated backpropagation, an update in every window; made by `tbptt`, which explains it."""

    k1: int
    k2: int
    losses: Losses = "new"
    weight: str | None = None
    short_batches: bool = False

    def __post_init__(self) -> None:
        """Refuse what makes no windows."""
        check_lengths("tbptt", self.k1, self.k2, self.losses)
        if self.weight is not None and self.losses == "new":
            raise ValueError(
                f"tbptt: weight is {self.weight!r}, but with losses='new' a window has one loss and "
                "nothing to weigh; expected None, or losses='window'"
            )

    def __call__(self, loss: Loss, optimizer: optax.GradientTransformation) -> UpdateFn:
        """The update function: a scan over the windows of a batch, with an update in each."""
        loss = formed("tbptt", loss)
        check_optimizer("tbptt", optimizer)
        weigh = equally if self.losses == "new" else by_count(self.weight)
        truncation = Truncation(loss, self.k1, self.k2, self.losses, weigh)

        def window(
            model: Any, gradient: Callable[[Any], WindowGradient]
        ) -> tuple[Any, Any, Metrics]:
            params, opt_state = model
            sums, carry, metrics = gradient(params)
            grads, value = sums.mean(params)
            updates, opt_state = optimizer.update(grads, opt_state, params)
            params = optax.apply_updates(params, updates)
            return (params, opt_state), carry, with_loss(value, metrics)

        def update(
            params: Any, opt_state: Any, carry: Any, batch: Any, key: Array | None
        ) -> Update:
            carry, batch, _ = check_call("tbptt", self, loss, params, carry, batch, key)
            (params, opt_state), carry, metrics = over_windows(
                window, truncation, (params, opt_state), carry, batch, key
            )
            return Update(params, opt_state, carry, metrics)

        return update


def tbptt(
    k1: int,
    k2: int | None = None,
    *,
    losses: Losses = "new",
    weight: str | None = None,
    short_batches: bool = False,
) -> TBPTT:
    """TBPTT(k1, k2): every k1 steps an update, from a gradient over the last k2 steps.

    Window j has the new steps j·k1 + 1 … e with e = (j + 1)·k1, and with a = max(0, e - k2)

        g_j = Σ_{t = a+1…e, counted} Σ_{k = a+1…t} ∂L_t/∂s_t · (∏_{i = k+1…t} ∂s_i/∂s_{i-1}) · ∂⁺s_k/∂θ

    `tbptt(k1, k2)(loss, optimizer)` is a pure function
    `update(params, opt_state, carry, batch, key) -> Update`, where every leaf of `batch` is
    [time, ...]: one scan over blocks of k1 steps, and a last, shorter window where k1 does not divide
    the time. The carry enters each block as data, so state lives on for ever. Reach ends at the start
    of the batch.

    k1: steps from one update to the next. k2: steps that a gradient reaches back; None is k1.
    losses: "new" counts the new steps of a window, each loss once; "window" counts all steps that the
        window reaches, so that its loss is the mean over them. For k2 ≤ k1 they are the same.
    weight: how the blocks of a "window" are weighed: by their steps, or by the `Mean.count` of the
        metric of this name, such as "nats", where they hold unequal numbers of real tokens.
    short_batches: take a batch shorter than k1 or k2 as far as it goes, instead of refusing it. So it
        always is where k2 is None.

    k2 = k1 is the usual form, and costs one pass through the loss. For k2 > k1 a window runs the older
    blocks again, (k2 - k1) / k1 of them, from the carries that they started from: time O(k2) a window,
    memory that of one block and of k2 / k1 carries. Those carries were made by the params of their time
    and are not made anew: each block is linearised with the params of now, at the carry of then. With
    one key for each block, its noise is the same when it is run again; of a block that is reached in
    part, noise that is drawn step by step (dropout on inputs) is drawn for these steps alone. For
    k2 < k1 the first k1 - k2 steps of a block run forward only. For k2 ≤ k1 no gradient crosses the
    start of a block, so that a shorter last window reaches less far. k1 = k2 = time is BPTT.

    The metrics of a window are those of its new steps; its "loss", where the loss reports none, is the
    scalar whose gradient was taken.

    Raises a ValueError for a length below 1 or unknown `losses`, and, when called, for a batch whose
    leaves differ in time, holds no step or fewer than k1 or k2, for a loss of another form than `Loss`,
    for a carry that it gives back in another form, and for a `weight` that is no metric.
    References: Williams, Peng 1990, "An efficient gradient-based algorithm for on-line training of
    recurrent network trajectories", their BPTT(h; h') with h = k2 and h' = k1; Sutskever 2013,
    "Training recurrent neural networks".

    >>> tbptt(64)
    TBPTT(k1=64, k2=64, losses='new', weight=None, short_batches=True)
    """
    short_batches = short_batches or k2 is None
    return TBPTT(k1, k1 if k2 is None else k2, losses, weight, short_batches)
