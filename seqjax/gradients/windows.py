"""A batch as blocks of k1 steps and what is left over, and the carries that blocks start from."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array


class Block(NamedTuple):
    """What one call of the loss takes: the carry before its first step, its steps, its key."""

    start: Any
    batch: Any
    key: Array | None

    @property
    def steps(self) -> int:
        """The number of its steps."""
        return jax.tree.leaves(self.batch)[0].shape[0]

    def first(self, steps: int) -> "Block":
        """Its first steps alone."""
        return self._replace(batch=jax.tree.map(lambda a: a[:steps], self.batch))

    def after(self, steps: int, carry: Any) -> "Block":
        """Its other steps, with the carry after the first ones; the key is the same."""
        return self._replace(start=carry, batch=jax.tree.map(lambda a: a[steps:], self.batch))


class Blocks(NamedTuple):
    """A batch cut in blocks of k1 steps, each with a key of its own.

    batch: [whole, k1, ...]. rest: the steps that are left over, [tail, ...].
    keys: [whole], and rest_key; None where the batch has none.
    """

    batch: Any
    rest: Any
    keys: Array | None
    rest_key: Array | None

    @property
    def whole(self) -> int:
        """The number of blocks of k1 steps."""
        return jax.tree.leaves(self.batch)[0].shape[0]

    @property
    def tail(self) -> int:
        """The number of steps that are left over."""
        return jax.tree.leaves(self.rest)[0].shape[0]

    def at(self, number: Array, start: Any) -> Block:
        """A whole block, whose number may be traced."""
        batch, key = jax.tree.map(lambda a: entry(a, number), (self.batch, self.keys))
        return Block(start, batch, key)


class Ring(NamedTuple):
    """The carries before the newest blocks, `room` of them: that of block n is entry n mod room.

    entries: [room, ...].
    """

    entries: Any

    @classmethod
    def of(cls, carry: Any, room: int) -> "Ring":
        """A ring with room for so many carries of this form; what it holds means nothing yet."""
        return cls(jax.tree.map(lambda a: jnp.broadcast_to(a[None], (room, *a.shape)), carry))

    def get(self, number: Array) -> Any:
        """The carry before block `number`, one of the newest."""
        return jax.tree.map(lambda a: entry(a, number % len(a)), self.entries)

    def put(self, number: Array, carry: Any) -> "Ring":
        """With the carry before block `number` in the place of the oldest."""

        def replaced(ring: Array, new: Array) -> Array:
            if len(ring) == 0:
                return ring
            return lax.dynamic_update_index_in_dim(ring, new, number % len(ring), 0)

        return Ring(jax.tree.map(replaced, self.entries, carry))


def cut(batch: Any, k1: int, key: Array | None) -> Blocks:
    """[time, ...] as [whole, k1, ...], and the steps that are left over."""
    whole = jax.tree.leaves(batch)[0].shape[0] // k1
    keys = None if key is None else jax.random.split(key, whole + 1)
    return Blocks(
        batch=jax.tree.map(lambda a: a[: whole * k1].reshape(whole, k1, *a.shape[1:]), batch),
        rest=jax.tree.map(lambda a: a[whole * k1 :], batch),
        keys=None if keys is None else keys[:-1],
        rest_key=None if keys is None else keys[-1],
    )


def entry(a: Array, number: Array) -> Array:
    """Entry `number` of the first axis."""
    return lax.dynamic_index_in_dim(a, number, keepdims=False)
