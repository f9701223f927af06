"""Dropout on the outputs of a cell, with one mask for a whole sequence or window."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from seqjax import checks
from seqjax.numerics import scale_kept
from seqjax.cell import Cell, Layered, Params, Run, State
from seqjax.plan import Plan


class DropoutState(NamedTuple):
    """The inner state, and the mask: True where an output is kept."""

    cell: State
    mask: Bool[Array, "*batch features"]


@dataclasses.dataclass(frozen=True, repr=False)
class Dropout(Layered):
    """y_t = m ⊙ cell(x)_t / (1 - rate), m_j ~ Bernoulli(1 - rate)

    The mask m is drawn once, in `initial_state` or `redraw`, and lives in the state: it stays the
    same over time until a new key comes (Gal, Ghahramani 2016, between the layers). `rate` is the
    share that is dropped. Params are those of the inner cell; `deterministic()` drops nothing.
    Around an `sj.RecurrentDropout` it completes the variational dropout of the paper.

    Raises a ValueError for a rate outside [0, 1), and where noise is wanted without a key.
    References: Srivastava et al. 2014; Gal, Ghahramani 2016.
    Choose it first where a network learns its training data by heart.
    """

    cell: Cell
    rate: float

    def __post_init__(self) -> None:
        """Refuse what is no cell and what is no rate."""
        checks.instance("Dropout: cell", self.cell, Cell)
        checks.fraction("Dropout: rate", self.rate)

    @property
    def features(self) -> int:
        """Those of the inner cell."""
        return self.cell.out_features

    def init(self, key: Array, in_features: int) -> Params:
        """The inner cell's params."""
        return self.cell.init(key, in_features)

    def initial_state(
        self, params: Params, batch_shape: tuple[int, ...] = (), *, key: Array | None = None
    ) -> DropoutState:
        """The inner cell's initial state, and a mask drawn with `key`."""
        if key is None and self.rate > 0:
            raise ValueError(
                f"Dropout: key is None; a mask at rate {self.rate} needs a key "
                "(sj.unroll(..., key=key)), and evaluation needs cell.deterministic()"
            )
        mask = jnp.ones((*batch_shape, self.features), jnp.bool_)
        if key is None:
            return DropoutState(self.cell.initial_state(params, batch_shape), mask)
        cell_key, mask_key = jax.random.split(key)
        state = self.cell.initial_state(params, batch_shape, key=cell_key)
        return DropoutState(state, self._draw(mask, mask_key))

    def step(self, params: Params, state: DropoutState, x: Array) -> tuple[DropoutState, Array]:
        """The inner step, its output masked."""
        inner, y = self.cell.step(params, state.cell, x)
        return DropoutState(inner, state.mask), self._drop(y, state.mask)

    def unroll_with(
        self, run: Run, params: Params, state: DropoutState, xs: Array, plan: Plan
    ) -> tuple[DropoutState, Array]:
        """The inner run, every output under the same mask."""
        inner, ys = run(self.cell, params, state.cell, xs, plan.of(lambda s: s.cell))
        return DropoutState(inner, state.mask), self._drop(ys, state.mask)

    def redraw(self, state: DropoutState, key: Array) -> DropoutState:
        """A new mask, and new noise in the inner cell."""
        cell_key, mask_key = jax.random.split(key)
        inner = self.cell.redraw(state.cell, cell_key)
        return DropoutState(inner, self._draw(state.mask, mask_key))

    def deterministic(self) -> "Dropout":
        """Nothing dropped; the mask stays in the state, unused."""
        return Dropout(self.cell.deterministic(), rate=0.0)

    @property
    def causal(self) -> bool:
        """Where the inner cell is."""
        return self.cell.causal

    @property
    def mixing(self):
        """That of the inner cell: the mask acts on what leaves it."""
        return self.cell.mixing

    def _draw(self, mask: Array, key: Array) -> Array:
        return jax.random.bernoulli(key, 1 - self.rate, mask.shape) if self.rate > 0 else mask

    def _drop(self, y: Array, mask: Array) -> Array:
        return scale_kept(y, mask, self.rate) if self.rate > 0 else y
