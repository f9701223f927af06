"""The plan of a run: what `lengths`, `resets`, `reverse` and `key` mean, worked out once."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from seqjax.numerics import where_rows


@dataclasses.dataclass(frozen=True)
class Plan:
    """How a sequence is walked. An engine sees only this, never the arguments it came from.

    real: True at steps inside each length; None where every step is real.
    resets: True at the first step of a document; None where there is no cut.
    fresh: the state that a document starts from, with None in place of each leaf of noise;
        None where there is no cut.
    reverse: walk from the last step to the first.
    """

    real: Bool[Array, "time *batch"] | None
    resets: Bool[Array, "time *batch"] | None
    fresh: Any
    reverse: bool

    def of(self, select: Callable[[Any], Any]) -> "Plan":
        """The plan as an inner cell sees it, whose state is `select(state)` of the whole state."""
        return dataclasses.replace(self, fresh=None if self.fresh is None else select(self.fresh))

    def reversed(self) -> "Plan":
        """The same sequence walked the other way."""
        return dataclasses.replace(self, reverse=not self.reverse)

    def cuts(self) -> Bool[Array, "time *batch"] | None:
        """True where the state starts afresh before that step, in the order of the walk.

        Forward that is at the first step of a document. In reverse the walk enters a document at its
        last step, one before the next document's first: the marks move back by one step.
        """
        if self.resets is None or not self.reverse:
            return self.resets
        never = jnp.zeros_like(self.resets[:1])
        return jnp.concatenate([self.resets[1:], never])[: self.resets.shape[0]]

    def restart(self, cut: Bool[Array, "*batch"] | None, state: Any) -> Any:
        """`state` with its memory as at the start of a document where `cut` is True; noise stays."""
        if cut is None:
            return state
        return jax.tree.map(
            lambda fresh, old: old if fresh is None else where_rows(cut, fresh, old),
            self.fresh,
            state,
            is_leaf=lambda leaf: leaf is None,
        )

    def hold(self, real: Bool[Array, "*batch"] | None, after: Any, before: Any) -> Any:
        """`after` at real steps, `before` at padding."""
        if real is None:
            return after
        return jax.tree.map(lambda a, b: where_rows(real, a, b), after, before)
