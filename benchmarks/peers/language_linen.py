"""Flax, linen: `nn.Embed`, `nn.RNN` around two cells, `nn.Dense`; optax, and one compiled update."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from benchmarks.peers.flax_linen import unpacked
from benchmarks.peers.language import Step, Task


class Model(nn.Module):
    """Logits of the token after each, and the state of each layer after the last."""

    vocabulary: int
    features: int

    @nn.compact
    def __call__(self, carries: tuple[Any, ...], ids: Any) -> tuple[tuple[Any, ...], Any]:
        """ids: [time, batch]."""
        xs, kept = nn.Embed(self.vocabulary, self.features, name="embedding")(ids), []
        for number, carry in enumerate(carries):
            cell = nn.OptimizedLSTMCell(self.features, name=f"cell_{number}")
            layer = nn.RNN(cell, time_major=True, return_carry=True)
            carry, xs = layer(xs, initial_carry=carry)
            kept.append(carry)
        return tuple(kept), nn.Dense(self.vocabulary, name="readout")(xs)


def prepare(task: Task) -> Step:
    """The compiled update; parameters, moments and recurrent state are given to the next one."""
    vocabulary, features, batch, _ = task.sizes
    forward: Any = Model(vocabulary, features).apply
    optimizer = optax.chain(optax.clip_by_global_norm(task.clip), optax.adam(task.learning_rate))

    def loss(params: Any, carries: Any, ids: Any) -> Any:
        carries, logits = forward({"params": params}, carries, ids[:-1])
        nats = optax.softmax_cross_entropy_with_integer_labels(logits, ids[1:])
        return jnp.mean(nats), carries

    @functools.partial(jax.jit, donate_argnums=0)
    def update(state: Any, ids: Any) -> Any:
        params, moments, carries = state
        (value, carries), grads = jax.value_and_grad(loss, has_aux=True)(params, carries, ids)
        updates, moments = optimizer.update(grads, moments, params)
        return (optax.apply_updates(params, updates), moments, carries), value

    params: dict[str, Any] = {
        "embedding": {"embedding": task.embedding},
        "readout": {"kernel": task.readout_kernel, "bias": task.readout_bias},
    }
    params |= {f"cell_{number}": unpacked(layer) for number, layer in enumerate(task.layers)}
    params = jax.tree.map(jnp.asarray, params)
    # (c, h) of each layer, each with a buffer of its own.
    carries = tuple(
        (jnp.zeros((batch, features)), jnp.zeros((batch, features))) for _ in task.layers
    )
    state = (params, optimizer.init(params), carries)
    windows = iter(task.ids)

    def step() -> float:
        nonlocal state
        state, value = update(state, next(windows))
        return float(value)

    return step
