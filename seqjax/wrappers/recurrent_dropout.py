"""Dropout on what the recurrent kernel multiplies, with one mask for a whole sequence or window."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from seqjax import checks
from seqjax.numerics import scale_kept
from seqjax.cell import Cell, Params, State
from seqjax.wrappers.gated import GatedWrapper, check_gated


class RecurrentDropoutState(NamedTuple):
    """The inner state, and the mask: True where an entry is kept."""

    cell: State
    mask: Bool[Array, "*batch rows"]


@dataclasses.dataclass(frozen=True, repr=False)
class RecurrentDropout(GatedWrapper):
    """r_t = (m ⊙ h_{t-1}) U / (1 - rate),   m_j ~ Bernoulli(1 - rate)

    The mask m is drawn once, in `initial_state` or `redraw`, lives in the state and is the same at every
    step and for every gate, so a sequence has one network to itself. Only what the recurrent kernel
    multiplies is dropped: the memory h or c itself goes on whole. `rate` is the share that is
    dropped. Together with `sj.Dropout` between the layers this is the variational dropout of the
    paper: `sj.Dropout(sj.RecurrentDropout(sj.LSTM(256), 0.25), 0.25)`.

    Params are those of the inner cell; `deterministic()` drops nothing.

    Raises a ValueError for a cell that is not gated (wrap each layer of a stack), a rate outside [0, 1),
    and where noise is wanted without a key.
    Reference: Gal, Ghahramani 2016, "A theoretically grounded application of dropout in recurrent
    neural networks".
    Choose it against overfitting that dropout between the layers leaves, with `sj.Dropout` or alone.
    """

    cell: Cell
    rate: float

    def __post_init__(self) -> None:
        """Refuse what is no gated cell and what is no rate."""
        check_gated("RecurrentDropout", self.cell)
        checks.fraction("RecurrentDropout: rate", self.rate)

    def inner_state(self, state: RecurrentDropoutState) -> State:
        """Beside the mask."""
        return state.cell

    def initial_state(
        self, params: Params, batch_shape: tuple[int, ...] = (), *, key: Array | None = None
    ) -> RecurrentDropoutState:
        """The inner cell's initial state, and a mask drawn with `key`."""
        if key is None and self.rate > 0:
            raise ValueError(
                f"RecurrentDropout: key is None; a mask at rate {self.rate} needs a key "
                "(sj.unroll(..., key=key)), and evaluation needs cell.deterministic()"
            )
        cell_key, mask_key = (None, None) if key is None else jax.random.split(key)
        state = self.cell.initial_state(params, batch_shape, key=cell_key)
        mask = jnp.ones(jax.eval_shape(self.inner.recurrent_input, state).shape, jnp.bool_)
        return RecurrentDropoutState(
            state, mask if mask_key is None else self._draw(mask, mask_key)
        )

    def recurrent_input(self, state: RecurrentDropoutState) -> Array:
        """The masked h_{t-1}, m ⊙ h_{t-1} / (1 - rate)."""
        h = super().recurrent_input(state)
        return scale_kept(h, state.mask, self.rate) if self.rate > 0 else h

    def gate(
        self, gate_params: Params, z: Array, r: Array, state: RecurrentDropoutState
    ) -> tuple[RecurrentDropoutState, Array]:
        """The inner rule; the mask stays."""
        inner, y = self.inner.gate(gate_params, z, r, state.cell)
        return RecurrentDropoutState(inner, state.mask), y

    def redraw(self, state: RecurrentDropoutState, key: Array) -> RecurrentDropoutState:
        """A new mask, and new noise in the inner cell."""
        cell_key, mask_key = jax.random.split(key)
        inner = self.cell.redraw(state.cell, cell_key)
        return RecurrentDropoutState(inner, self._draw(state.mask, mask_key))

    def deterministic(self) -> "RecurrentDropout":
        """Nothing dropped; the mask stays in the state, unused."""
        return RecurrentDropout(self.cell.deterministic(), rate=0.0)

    def _draw(self, mask: Array, key: Array) -> Array:
        return jax.random.bernoulli(key, 1 - self.rate, mask.shape) if self.rate > 0 else mask
