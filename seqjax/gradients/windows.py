"""Methods that go through a batch in windows: a gradient in each, added up or applied at once."""

import abc
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Float

from seqjax import checks
from seqjax.gradients.method import (
    Gradient,
    GradientFn,
    Method,
    Metrics,
    Update,
    UpdateFn,
    applied,
    check_optimizer,
    with_loss,
)
from seqjax.numerics import accumulator


class WindowGradient(NamedTuple):
    """The gradient of one window.

    grads: shaped like params, in at least float32. weight: how much the window counts among others.
    carry: after the window. metrics: of its new steps.
    """

    grads: Any
    loss: Float[Array, ""]
    weight: Float[Array, ""]
    carry: Any
    metrics: Metrics


Visit: TypeAlias = Callable[[Any, Callable[[Any], WindowGradient]], tuple[Any, Any, Any]]
"""`visit(model, gradient) -> (model, carry, out)`, where gradient(params) is that of one window."""

Walk: TypeAlias = Callable[[Visit, Any, Any, Any, Any, Array | None], tuple[Any, Any, Any]]
"""`walk(visit, model, params, carry, batch, key) -> (model, carry, out)`: calls visit in each window.

`out` has a leading axis with one entry for each window.
"""


class Windowed(Method):
    """A method that goes through a batch in windows; a leaf says by `walk` what each of them is."""

    @abc.abstractmethod
    def walk(self, loss: Any) -> Walk:
        """Return the walk through the windows of a batch under this loss."""

    def gradient(self, loss: Any) -> GradientFn:
        """Σ_j n_j g_j / Σ_j n_j over windows j of gradient g_j and weight n_j; params stay."""
        walk = self.walk(loss)

        def gradient(params: Any, carry: Any, batch: Any, key: Array | None) -> Gradient:
            def visit(total: Any, window: Callable[[Any], WindowGradient]) -> tuple[Any, Any, Any]:
                found = window(params)
                add = lambda t, g: t + g * found.weight.astype(t.dtype)
                total = jax.tree.map(add, total, found.grads)
                return total, found.carry, found._replace(grads=None, carry=None)

            total, carry, found = walk(visit, zeros(params), params, carry, batch, key)
            wide = accumulator(found.loss.dtype)
            weights = found.weight.astype(wide)
            value = mean(jnp.sum(found.loss.astype(wide) * weights), jnp.sum(weights))
            grads = as_params(jax.tree.map(lambda t: mean(t, jnp.sum(weights)), total), params)
            metrics = jax.tree.map(lambda m: jnp.sum(m, axis=0), found.metrics)
            return Gradient(grads, carry, with_loss(value, metrics))

        return gradient

    def update(self, loss: Any, optimizer: optax.GradientTransformation) -> UpdateFn:
        """Return the update function: one scan over the windows, with an update in each."""
        walk = self.walk(loss)
        check_optimizer(self.name, optimizer)

        def visit(model: Any, window: Callable[[Any], WindowGradient]) -> tuple[Any, Any, Metrics]:
            params, opt_state = model
            found = window(params)
            model = applied(optimizer, as_params(found.grads, params), params, opt_state)
            return model, found.carry, with_loss(found.loss, found.metrics)

        def update(
            params: Any, opt_state: Any, carry: Any, batch: Any, key: Array | None
        ) -> Update:
            model = params, opt_state
            model, carry, metrics = walk(visit, model, params, carry, batch, key)
            params, opt_state = model
            return Update(params, opt_state, carry, metrics)

        return update


def zeros(params: Any) -> Any:
    """Sums over windows and steps: thousands may be added, so they are at least float32."""
    return jax.tree.map(lambda p: jnp.zeros(jnp.shape(p), accumulator(jnp.result_type(p))), params)


def as_params(grads: Any, params: Any) -> Any:
    """Gradients in the dtypes of params."""
    return jax.tree.map(lambda g, p: g.astype(jnp.result_type(p)), grads, params)


def mean(total: Array, weight: Array) -> Array:
    """`total / weight`, and 0 where nothing was counted."""
    return total / jnp.where(weight == 0, jnp.ones_like(weight), weight).astype(total.dtype)


class Blocks(NamedTuple):
    """A batch cut in blocks of the same number of steps, each with a key of its own.

    batch: [whole, steps, ...]. rest: the steps that are left over, [tail, ...].
    keys: [whole], and rest_key; None where the batch has none.
    """

    batch: Any
    rest: Any
    keys: Array | None
    rest_key: Array | None

    @property
    def whole(self) -> int:
        """The number of whole blocks."""
        return jax.tree.leaves(self.batch)[0].shape[0]

    @property
    def tail(self) -> int:
        """The number of steps that are left over."""
        return jax.tree.leaves(self.rest)[0].shape[0]

    def scan(self, step: Callable[[Any, Any], tuple[Any, Any]], state: Any) -> tuple[Any, Any]:
        """`step(state, (number, batch, key)) -> (state, out)` for each block, and for what is left.

        `out` has one entry for each.
        """
        inputs = jnp.arange(self.whole), self.batch, self.keys
        state, out = lax.scan(step, state, inputs)
        if self.tail:
            state, last = step(state, (jnp.asarray(self.whole), self.rest, self.rest_key))
            out = jax.tree.map(lambda m, n: jnp.concatenate([m, jnp.asarray(n)[None]]), out, last)
        return state, out


def cut(batch: Any, steps: int, key: Array | None) -> Blocks:
    """[time, ...] as [whole, steps, ...], and the steps that are left over."""
    whole = jax.tree.leaves(batch)[0].shape[0] // steps
    keys = None if key is None else jax.random.split(key, whole + 1)
    return Blocks(
        batch=jax.tree.map(lambda a: a[: whole * steps].reshape(whole, steps, *a.shape[1:]), batch),
        rest=jax.tree.map(lambda a: a[whole * steps :], batch),
        keys=None if keys is None else keys[:-1],
        rest_key=None if keys is None else keys[-1],
    )


def arrays(name: str, tree: Any) -> Any:
    """`tree` with its leaves as arrays; a ValueError names a leaf that is none."""
    as_array = lambda path, leaf: checks.array(f"{name}{jax.tree_util.keystr(path)}", leaf)
    return jax.tree_util.tree_map_with_path(as_array, tree)


def time_steps(name: str, batch: Any) -> int:
    """The length of the first axis, on which all leaves of the batch must agree."""
    leaves = jax.tree_util.tree_leaves_with_path(batch)
    lengths = {jax.tree_util.keystr(path): jnp.shape(leaf)[:1] for path, leaf in leaves}
    if len(set(lengths.values())) != 1 or () in lengths.values():
        raise ValueError(
            f"{name}: the leaves of batch begin with axes of {lengths}; "
            "expected [time, ...] with one time for all"
        )
    time = next(iter(lengths.values()))[0]
    if time == 0:
        raise ValueError(f"{name}: batch has 0 time steps; expected at least 1")
    return time
