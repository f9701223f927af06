"""The plan of a run: lengths, resets and direction, turned once into masks and a fresh state."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Integer

from seqjax.numerics import where_rows


def length_mask(lengths: Integer[Array, "*batch"], time: int) -> Bool[Array, "time *batch"]:
    """Return the mask of valid steps, True at step t where t < length.

    Lengths above `time` mean `time`, lengths below 0 mean 0. Any integer dtype is compared without
    wrapping.
    """
    # Clip before the cast: a length of 2³² would wrap, and int8 cannot hold the steps.
    most = jnp.asarray(min(time, int(jnp.iinfo(lengths.dtype).max)), lengths.dtype)
    lengths = jnp.minimum(lengths, most).astype(jnp.int32)
    shape = (time, *lengths.shape)
    steps = jnp.arange(time, dtype=jnp.int32).reshape(time, *(1,) * lengths.ndim)
    return jnp.broadcast_to(steps, shape) < jnp.broadcast_to(lengths[None], shape)


@dataclasses.dataclass(frozen=True)
class Plan:
    """How an engine walks a sequence; the default is forward over valid steps without resets.

    valid: True at steps inside each length; None if every step is valid.
    resets: True at the first step of a document; None without resets.
    fresh: the state that a document starts from, with None in place of each leaf of noise; None
        without resets.
    reverse: walk from the last step to the first.
    """

    valid: Bool[Array, "time *batch"] | None = None
    resets: Bool[Array, "time *batch"] | None = None
    fresh: Any = None
    reverse: bool = False

    def of(self, select: Callable[[Any], Any]) -> "Plan":
        """Return the plan of an inner cell, whose state is `select(state)` of the whole state."""
        return dataclasses.replace(self, fresh=None if self.fresh is None else select(self.fresh))

    def reversed(self) -> "Plan":
        """Return the plan of the other direction."""
        return dataclasses.replace(self, reverse=not self.reverse)

    def within(
        self, valid: Bool[Array, "steps *batch"] | None, cuts: Bool[Array, "steps *batch"] | None
    ) -> "Plan":
        """Return the forward plan of some steps, given in the order of the walk."""
        return Plan(valid, cuts, self.fresh)

    def cuts(self) -> Bool[Array, "time *batch"] | None:
        """Return a mask of the steps before which the state is reset, in the order of the walk.

        Forward these are the first steps of documents. In reverse the walk enters a document at its
        last step, one before the first of the next document: the marks move back by one step.
        """
        if self.resets is None or not self.reverse:
            return self.resets
        never = jnp.zeros_like(self.resets[:1])
        return jnp.concatenate([self.resets[1:], never])[: self.resets.shape[0]]

    def restart(self, cut: Bool[Array, "*batch"] | None, state: Any) -> Any:
        """Reset the memory of `state` where `cut` is True; noise stays."""
        if cut is None:
            return state
        return jax.tree.map(
            lambda fresh, old: old if fresh is None else where_rows(cut, fresh, old),
            self.fresh,
            state,
            is_leaf=lambda leaf: leaf is None,
        )

    def hold(self, valid: Bool[Array, "*batch"] | None, after: Any, before: Any) -> Any:
        """Return `after` at valid steps and `before` at padding."""
        if valid is None:
            return after
        return jax.tree.map(lambda a, b: where_rows(valid, a, b), after, before)
