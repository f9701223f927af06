"""One update on many devices: each has its part of the batch, and their gradients are summed once."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.core import Tracer
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float

from seqjax.gradients import (
    Gradient,
    GradientFn,
    Loss,
    Method,
    Metrics,
    OnlineRule,
    Update,
    UpdateFn,
)
from seqjax.gradients.method import as_means, check_method, check_optimizer, checked
from seqjax.losses import Mean
from seqjax.numerics import accumulator
from seqjax.training import devices
from seqjax.training.devices import AUTO, SHARDS, specs_of
from seqjax.training.state import TrainState


def sharded(method: Method, *, weight: str | None = None, batch_axes: Any = AUTO) -> Method:
    """`method` on all devices at once, with the result that it has on one.

    L = Σ_i L_i n_i / Σ_j n_j,   ∇L = Σ_i ∇(L_i n_i / Σ_j n_j)

    Device i has its part of the batch and of the carry, and the params that all have. L_i is the mean
    over its n_i targets without padding, so that devices with few valid tokens weigh little. The n_i
    are added before the gradient, the gradients once for each update, the metrics once for each batch.

    Args:
      method: `sj.bptt`, `sj.tbptt(k1, k2)`, or another that hands the gradient of its loss to the
        optimizer, and nothing that is not linear in it.
      weight: the metric of the loss whose `Mean.count` is n; None takes the one that counts most. A
        loss is a mean over what that metric counts, plus terms that no sequence enters, such as a norm
        of params. One that mixes sequences, as batch normalisation does, differs on each device.
      batch_axes: where the batch lies in a batch. "auto" is the convention of this library: [time,
        batch, ...], and [batch] with one axis; every leaf of the carry is [batch, ...]. Otherwise an
        axis, or a tree of them, as `in_axes` of `jax.vmap`; None is for what all devices share.

    Each device draws noise from its own key: under dropout results equal those of one device in
    distribution only. With one device this is `method` itself. On a CPU `sj.training.use_cores()` makes
    a device of every core, and `fit` does the rest; GPUs and TPUs go the same way.

    Outside `fit`, `sharded(method).update(loss, optimizer)` is a compiled update function that waits
    until its devices are done: programs that add over devices of a CPU may wait for each other for ever
    where several are under way. Do not wrap it in `jax.jit`, whose call would not wait. All this holds
    for the gradient function `sharded(method)(loss)` too.

    Raises a ValueError for an online rule, whose loss does not say how much it counts, and for several
    processes; and, when called, for a loss without a `Mean` or without the `weight`, for a batch that
    the devices cannot share evenly, and inside another compiled function.

    >>> import jax.numpy as jnp, optax, seqjax as sj
    >>> def loss(params, carry, batch, key):
    ...     error = sj.losses.mean_over((batch - params) ** 2)
    ...     return error.value, (carry, {"error": error})
    >>> optimizer = optax.sgd(0.25)
    >>> update = sharded(sj.bptt).update(loss, optimizer)
    >>> params = jnp.zeros(())
    >>> result = update(params, optimizer.init(params), None, jnp.array([[1.0, 3.0]]), None)
    >>> print(result.params, result.metrics["error"].value)
    1.0 [5.]
    """
    check_method("sharded", method)
    if isinstance(method, OnlineRule):
        raise ValueError(
            f"sharded: method is {method!r}, whose step_loss does not say how much it counts; expected "
            "one of a whole loss, such as sj.tbptt, or one device: leave out sharded and use_cores"
        )
    if jax.process_count() > 1:
        raise ValueError(f"sharded: JAX runs in {jax.process_count()} processes; expected one")
    local = jax.local_devices()
    if len(local) == 1:
        return method
    return Sharded(method, weight, batch_axes, Mesh(np.asarray(local), (SHARDS,)))


@dataclasses.dataclass(frozen=True)
class Sharded(Method):
    """A method on all devices of `mesh`; made by `sharded`."""

    method: Method
    weight: str | None
    batch_axes: Any
    mesh: Mesh

    def update(self, loss: Loss, optimizer: optax.GradientTransformation) -> "ShardedUpdate":
        """Return the update function."""
        check_optimizer("sharded", optimizer)
        return ShardedUpdate(self, self.method.update(self._share(loss), summed(optimizer)))

    def gradient(self, loss: Loss) -> GradientFn:
        """Return the gradient function, as one update whose optimizer keeps the gradient."""
        keep: Any = lambda grads, state, params: (jax.tree.map(jnp.zeros_like, grads), grads)
        keeper = summed(optax.GradientTransformation(lambda params: params, keep))
        update = ShardedUpdate(self, Method.update(self.method, self._share(loss), keeper))

        def gradient(params: Any, carry: Any, batch: Any, key: Array | None) -> Gradient:
            found = update(params, params, carry, batch, key)
            metrics = jax.tree.map(lambda m: m[0], found.metrics)
            return Gradient(found.opt_state, found.carry, metrics)

        return gradient

    def _share(self, loss: Loss) -> Loss:
        return share_of(checked("sharded", loss), self.weight, self.mesh.size)


class ShardedUpdate:
    """An update on all devices. A call waits for them; `traced` is for a caller that waits itself."""

    def __init__(self, how: Sharded, of_shard: UpdateFn) -> None:
        """of_shard: what each device does with its part."""
        self.how, self._of_shard = how, of_shard
        self._compiled = jax.jit(self.traced)

    def __call__(
        self, params: Any, opt_state: Any, carry: Any, batch: Any, key: Array | None
    ) -> Update:
        """The update, done."""
        arguments = params, opt_state, carry, batch, key
        if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(arguments)):
            raise ValueError(
                "sharded: the update is called inside another compiled function, which would not wait "
                "for its devices; expected it as it is, without jax.jit, or sj.training.fit"
            )
        every = self.place((params, opt_state, key), PartitionSpec())
        carry = self.place(carry, PartitionSpec(SHARDS))
        result = self._compiled(*every[:2], carry, self.parts(carry, batch), every[2])
        return jax.block_until_ready(result)

    def traced(
        self, params: Any, opt_state: Any, carry: Any, batch: Any, key: Array | None
    ) -> Update:
        """The update as a pure function, for a caller that compiles it and waits after each call."""
        every, part = PartitionSpec(), PartitionSpec(SHARDS)
        on_all = jax.shard_map(
            self._on_one,
            mesh=self.how.mesh,
            in_specs=(every, every, part, self._specs(carry, batch), every),
            out_specs=(every, every, part, every),
            check_vma=False,  # custom gradients do not say over which axes they vary
        )
        return Update(*on_all(params, opt_state, carry, batch, key))

    def parts(self, carry: Any, batch: Any) -> Any:
        """The batch in parts, each on its device."""
        return jax.tree.map(self.place, batch, self._specs(carry, batch))

    def place(self, tree: Any, spec: PartitionSpec) -> Any:
        """A tree on the devices."""
        return jax.device_put(tree, NamedSharding(self.how.mesh, spec))

    def _specs(self, carry: Any, batch: Any) -> Any:
        return specs_of(batch, carry, self.how.batch_axes, self.how.mesh.size)

    def _on_one(
        self, params: Any, opt_state: Any, carry: Any, batch: Any, key: Array | None
    ) -> tuple[Any, Any, Any, Metrics]:
        if key is not None:
            key = jax.random.fold_in(key, lax.axis_index(SHARDS))
        result = self._of_shard(params, opt_state, carry, batch, key)
        totals = lax.psum({name: mean.total for name, mean in result.metrics.items()}, SHARDS)
        metrics = {name: Mean(totals[name], mean.count) for name, mean in result.metrics.items()}
        return result.params, result.opt_state, result.carry, metrics


def share_of(loss: Loss, weight: str | None, count: int) -> Loss:
    """L_i n_i / Σ_j n_j: what a part adds to the loss of the whole batch.

    Its metrics have the counts of the whole, by which a method may weigh windows, and the totals of the
    part. A scalar among them is weighted as the loss is.
    """

    def share(params: Any, carry: Any, batch: Any, key: Array | None) -> Any:
        value, (carry, reported) = loss(params, carry, batch, key)
        metrics = as_means(reported)
        means = {name: mean for name, mean in metrics.items() if isinstance(reported[name], Mean)}
        own = {name: lax.stop_gradient(jnp.asarray(mean.count)) for name, mean in means.items()}
        whole = lax.psum(own, SHARDS)
        n, of = counted(own, whole, weight, accumulator(value.dtype))
        some = of != 0
        # Without any valid token only the terms beside the mean are left, in equal parts.
        part = jnp.where(some, n / jnp.where(some, of, 1), 1 / count)
        metrics = {
            # A scalar does not say how much it counts: its share is that of the loss.
            name: mean._replace(count=whole[name])
            if name in means
            else Mean(mean.total * part.astype(jnp.result_type(mean.total)), mean.count)
            for name, mean in metrics.items()
        }
        return value * part.astype(value.dtype), (carry, metrics)

    return share


def counted(
    own: dict[str, Array], whole: dict[str, Array], weight: str | None, dtype: Any
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """n_i and Σ_j n_j, by the metric that is named or else by the one that counts most."""
    numbers = sorted(name for name, count in own.items() if not count.shape)
    if not numbers or weight not in (None, *numbers):
        raise ValueError(
            f"sharded: weight is {weight!r}, and the loss reports one count for {numbers}; expected one "
            'such metric, as {"loss": sj.losses.mean_over(values, mask)}, or its name: a mean of the '
            "means of all devices would be wrong for unequal numbers of valid tokens"
        )
    names = numbers if weight is None else [weight]
    n, of = (jnp.stack([counts[name].astype(dtype) for name in names]) for counts in (own, whole))
    most = jnp.argmax(of)
    return n[most], of[most]


def summed(optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    """The optimizer, given the sum of the gradients of all devices."""

    def update(updates: Any, state: Any, params: Any = None) -> Any:
        return optimizer.update(lax.psum(updates, SHARDS), state, params)

    return optax.GradientTransformation(optimizer.init, update)


def on_cores(method: Method) -> Method:
    """`method` as `fit` runs it: sharded after `use_cores`."""
    return sharded(method) if devices.in_use() and not isinstance(method, Sharded) else method


def place(update: UpdateFn, state: TrainState) -> TrainState:
    """For a sharded update, its carry in parts and all else on every device."""
    if not isinstance(update, ShardedUpdate):
        return state
    rest = update.place(state._replace(carry=None), PartitionSpec())
    return rest._replace(carry=update.place(state.carry, PartitionSpec(SHARDS)))


def gather(update: UpdateFn, state: TrainState) -> TrainState:
    """For a sharded update, all of it on the first device, as every other program takes it."""
    sharded = isinstance(update, ShardedUpdate)
    return jax.device_put(state, update.how.mesh.devices.flat[0]) if sharded else state
