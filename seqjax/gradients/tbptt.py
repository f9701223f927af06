"""Updates from gradients: once for a batch, or window by window (truncated backpropagation)."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array

from seqjax import checks
from seqjax.gradients.bptt import GradientFn, Loss, Metrics, bptt


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

Method: TypeAlias = Callable[[Loss, optax.GradientTransformation], UpdateFn]
"""How a loss and an optimizer become updates: `whole_batch`, or `tbptt(k1)`."""


def apply_gradient(gradient: GradientFn, optimizer: optax.GradientTransformation) -> UpdateFn:
    """One gradient over the batch, one update of the parameters."""

    def update(params: Any, opt_state: Any, carry: Any, batch: Any, key: Array | None) -> Update:
        grads, carry, metrics = gradient(params, carry, batch, key)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return Update(optax.apply_updates(params, updates), opt_state, carry, metrics)

    return update


def whole_batch(loss: Loss, optimizer: optax.GradientTransformation) -> UpdateFn:
    """BPTT through each batch, then one update."""
    update_once = apply_gradient(bptt(loss), optimizer)

    def update(params: Any, opt_state: Any, carry: Any, batch: Any, key: Array | None) -> Update:
        result = update_once(params, opt_state, carry, batch, key)
        return result._replace(metrics=jax.tree.map(lambda m: jnp.asarray(m)[None], result.metrics))

    return update


@dataclasses.dataclass(frozen=True)
class TBPTT:
    """Truncated backpropagation with its two lengths; made by `tbptt`."""

    k1: int
    k2: int

    def __call__(self, loss: Loss, optimizer: optax.GradientTransformation) -> UpdateFn:
        """The update function: a scan over the windows of a batch, with an update in each."""
        update_once = apply_gradient(bptt(loss), optimizer)

        def update(
            params: Any, opt_state: Any, carry: Any, batch: Any, key: Array | None
        ) -> Update:
            whole, tail = divmod(time_steps(batch), self.k1)
            check_carry(loss, params, carry, jax.tree.map(lambda a: a[: self.k1], batch), key)
            keys = None if key is None else jax.random.split(key, whole + 1)
            windows, rest = cut(batch, whole, self.k1)

            def window(model: Any, inputs: Any) -> tuple[Any, Metrics]:
                (params, opt_state, carry), (batch, key) = model, inputs
                result = update_once(params, opt_state, carry, batch, key)
                return (result.params, result.opt_state, result.carry), result.metrics

            model, metrics = lax.scan(
                window,
                (params, opt_state, carry),
                (windows, None if keys is None else keys[:-1]),
                length=whole,
            )
            if tail:
                model, last = window(model, (rest, None if keys is None else keys[-1]))
                metrics = jax.tree.map(
                    lambda m, n: jnp.concatenate([m, jnp.asarray(n)[None]]), metrics, last
                )
            params, opt_state, carry = model
            return Update(params, opt_state, carry, metrics)

        return update


def tbptt(k1: int, k2: int | None = None) -> TBPTT:
    """Truncated backpropagation through time: every k1 steps an update, from the last k2 steps.

    `tbptt(k1)(loss, optimizer)` is a pure function
    `update(params, opt_state, carry, batch, key) -> Update`, where every leaf of `batch` is
    [time, ...]. It scans over windows of k1 steps; the carry of one window enters the next as data,
    so state lives on for ever while no gradient reaches past its window. The last window is shorter
    where k1 does not divide the time; nothing is dropped. One window of the whole length is BPTT.

    k1: steps between updates; k2: steps that a gradient reaches back, k1 where it is None. Only
    k2 = k1 is served so far; other values are refused.

    Raises a ValueError for a length below 1, and, when called, for a batch whose leaves differ in
    time, holds no step, or a carry that the loss gives back in another form.
    Reference: Williams, Peng 1990, "An efficient gradient-based algorithm for on-line training of
    recurrent network trajectories".

    >>> tbptt(64)
    TBPTT(k1=64, k2=64)
    """
    checks.positive("tbptt: k1", k1)
    k2 = k1 if k2 is None else k2
    checks.positive("tbptt: k2", k2)
    if k2 != k1:
        raise ValueError(f"tbptt: k2 is {k2} but k1 is {k1}; only k2 = k1 is served so far")
    return TBPTT(k1, k2)


def cut(batch: Any, whole: int, k1: int) -> tuple[Any, Any]:
    """[time, ...] as [whole, k1, ...], and the steps that are left over."""
    windows = jax.tree.map(lambda a: a[: whole * k1].reshape(whole, k1, *a.shape[1:]), batch)
    return windows, jax.tree.map(lambda a: a[whole * k1 :], batch)


def time_steps(batch: Any) -> int:
    """The length of the first axis, on which all leaves of the batch agree."""
    leaves = jax.tree_util.tree_leaves_with_path(batch)
    lengths = {jax.tree_util.keystr(path): jnp.shape(leaf)[:1] for path, leaf in leaves}
    if len(set(lengths.values())) != 1 or () in lengths.values():
        raise ValueError(
            f"tbptt: the leaves of batch begin with axes of {lengths}; "
            "expected [time, ...] with one time for all"
        )
    time = next(iter(lengths.values()))[0]
    if time == 0:
        raise ValueError("tbptt: batch has 0 time steps; expected at least 1")
    return time


def check_carry(loss: Loss, params: Any, carry: Any, batch: Any, key: Array | None) -> None:
    """The loss gives its carry back in the form in which it came: it is carried by a scan."""
    _, (after, _) = jax.eval_shape(loss, params, carry, batch, key)
    if jax.tree.structure(after) != jax.tree.structure(carry):
        raise ValueError(
            f"tbptt: carry has structure {jax.tree.structure(carry)} but the loss gives back "
            f"{jax.tree.structure(after)}; start from the state that the model gives, "
            "such as carry=model.initial_state(params, (lanes,))"
        )
    checks.same_tree("tbptt: the carry that the loss gives back", after, carry, "the carry before")
