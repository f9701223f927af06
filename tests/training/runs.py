"""Batches that say where they are, and the smallest training that uses them."""

from typing import Any

import jax
import jax.numpy as jnp

from seqjax.losses import mean_over
from seqjax.training import TrainState


class Data:
    """Random batches without end, [3, 2], with a place to go on from."""

    def __init__(self):
        self.position = 0

    def __iter__(self):
        return self

    def __next__(self):
        self.position += 1
        return jax.random.normal(jax.random.key(self.position), (3, 2))

    def get_state(self):
        return {"position": self.position}

    def set_state(self, state):
        self.position = state["position"]


def loss(params, carry, batch, key):
    """Uses all that a run carries: the state of the last batch, and the key of this one."""
    noise = 0.1 * jax.random.normal(key, batch.shape)
    error = mean_over((params * batch + carry + noise - 1) ** 2)
    return error.value, (batch.mean() + 0.0 * carry, {"error": error})


def begin(optimizer, params: Any = 0.0, carry: Any = 0.0):
    return TrainState.create(jnp.array(params), optimizer, jax.random.key(0), jnp.array(carry))
