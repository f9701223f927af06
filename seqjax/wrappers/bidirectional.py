"""Both directions: one cell reads the sequence forward, another backward."""

import dataclasses
from typing import NamedTuple, NoReturn

import jax
import jax.numpy as jnp
from jaxtyping import Array

from seqjax import checks
from seqjax.cell import Cell, Child, Layered, Params, RunChild, State
from seqjax.plan import Plan


class BidirectionalParams(NamedTuple):
    """The params of the two directions."""

    forward: Params
    backward: Params


class BidirectionalState(NamedTuple):
    """The states of the two directions."""

    forward: State
    backward: State


@dataclasses.dataclass(frozen=True, repr=False)
class Bidirectional(Layered[BidirectionalParams, BidirectionalState]):
    """y_t = [y→_t, y←_t]: `forward` reads x_1 … x_t, `backward` reads x_T … x_t.

    features are those of both outputs together. With lengths each sequence turns at its own last
    step; with resets no direction crosses a cut. Walked in reverse, the two change places in time but
    not in y. There is no `step`: y_t needs inputs that come after t.

    Reference: Schuster, Paliwal 1997, "Bidirectional recurrent neural networks".
    Choose it where the whole sequence is there before the first answer is due, as in tagging.
    """

    forward: Cell
    backward: Cell = None  # type: ignore[assignment] - the error below says what is expected

    def __post_init__(self) -> None:
        """Validate the two cells."""
        checks.instance("Bidirectional: forward", self.forward, Cell)
        if self.backward is None:
            raise ValueError(
                "Bidirectional: backward is missing; expected a cell for each direction, "
                "as in sj.Bidirectional(sj.LSTM(8), sj.LSTM(8))"
            )
        checks.instance("Bidirectional: backward", self.backward, Cell)

    def children(self) -> tuple[Child, ...]:
        """Return the cell of each direction."""
        return (
            Child("forward", self.forward, lambda p: p.forward, lambda s: s.forward),
            Child("backward", self.backward, lambda p: p.backward, lambda s: s.backward),
        )

    @property
    def features(self) -> int:
        """Those of both directions together."""
        return self.forward.out_features + self.backward.out_features

    def init(self, key: Array, in_features: int) -> BidirectionalParams:
        """Each direction's params by its own key."""
        forward_key, backward_key = jax.random.split(key)
        return BidirectionalParams(
            self.forward.init(forward_key, in_features),
            self.backward.init(backward_key, in_features),
        )

    def initial_state(
        self,
        params: BidirectionalParams,
        batch_shape: tuple[int, ...] = (),
        *,
        key: Array | None = None,
    ) -> BidirectionalState:
        """Each direction's initial state: before the first step, and after the last."""
        forward_key, backward_key = (None, None) if key is None else jax.random.split(key)
        return BidirectionalState(
            self.forward.initial_state(params.forward, batch_shape, key=forward_key),
            self.backward.initial_state(params.backward, batch_shape, key=backward_key),
        )

    @property
    def causal(self) -> bool:
        """Never: y_t holds what comes after t."""
        return False

    def step(self, params: BidirectionalParams, state: BidirectionalState, x: Array) -> NoReturn:
        """Raise a ValueError: a single step has no future to read."""
        raise ValueError(
            "Bidirectional.step: y_t needs the inputs after t, so there is no step; "
            "run whole sequences with sj.unroll"
        )

    def unroll_with(
        self,
        run: RunChild,
        params: BidirectionalParams,
        state: BidirectionalState,
        xs: Array,
        plan: Plan,
    ) -> tuple[BidirectionalState, Array]:
        """Both directions over all time, outputs side by side."""
        forward, backward = self.children()
        s, ys = run(forward, params, state, xs, plan)
        u, zs = run(backward, params, state, xs, plan.reversed())
        return BidirectionalState(s, u), jnp.concatenate([ys, zs], axis=-1)

    def redraw(self, state: BidirectionalState, key: Array) -> BidirectionalState:
        """New noise in each direction."""
        forward_key, backward_key = jax.random.split(key)
        return BidirectionalState(
            self.forward.redraw(state.forward, forward_key),
            self.backward.redraw(state.backward, backward_key),
        )

    def deterministic(self) -> "Bidirectional":
        """Each direction for evaluation."""
        return Bidirectional(self.forward.deterministic(), self.backward.deterministic())
