"""Dropout: on the outputs of a cell, on the operand of its recurrent kernel, and on its weights."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from seqjax import checks
from seqjax.cell import Cell, P, Params, RunChild, State
from seqjax.numerics import scale_kept
from seqjax.plan import Plan
from seqjax.wrappers.wrapper import GatedWrapper, Wrapper


class DropoutState(NamedTuple):
    """The state of the wrapped cell, and the mask: True where an output is kept."""

    cell: State
    mask: Bool[Array, "*batch features"]


@dataclasses.dataclass(frozen=True, repr=False)
class Dropout(Wrapper[P, DropoutState]):
    """y_t = m ⊙ cell(x)_t / (1 - rate), m_j ~ Bernoulli(1 - rate)

    The mask m is drawn once, in `initial_state` or `redraw`, and lives in the state: it stays the
    same over time until a new key comes (Gal, Ghahramani 2016, between the layers). `rate` is the
    share that is dropped. Params are those of the inner cell; `deterministic()` drops nothing.
    Around an `sj.RecurrentDropout` it completes the variational dropout of the paper.

    Raises a ValueError for a rate outside [0, 1), and where noise is wanted without a key.
    References: Srivastava et al. 2014; Gal, Ghahramani 2016.
    Choose it first where a network learns its training data by heart.
    """

    cell: Cell[P, Any]
    rate: float

    def __post_init__(self) -> None:
        """Validate the wrapped cell and the rate."""
        super().__post_init__()
        checks.fraction("Dropout: rate", self.rate)

    def inner_state(self, state: DropoutState) -> State:
        """Select the state beside the mask."""
        return state.cell

    def initial_state(
        self, params: P, batch_shape: tuple[int, ...] = (), *, key: Array | None = None
    ) -> DropoutState:
        """Return the initial state of the wrapped cell, and a mask drawn with `key`."""
        cell_key, mask_key = _mask_key(self, key)
        state = self.cell.initial_state(params, batch_shape, key=cell_key)
        return DropoutState(state, _draw(self.rate, mask_key, (*batch_shape, self.features)))

    def step(self, params: P, state: DropoutState, x: Array) -> tuple[DropoutState, Array]:
        """Compute a step of the wrapped cell and mask its output."""
        inner, y = self.cell.step(params, state.cell, x)
        return DropoutState(inner, state.mask), self._drop(y, state.mask)

    def unroll_with(
        self, run: RunChild, params: P, state: DropoutState, xs: Array, plan: Plan
    ) -> tuple[DropoutState, Array]:
        """Run the wrapped cell and mask all its outputs with the same mask."""
        (child,) = self.children()
        inner, ys = run(child, params, state, xs, plan)
        return DropoutState(inner, state.mask), self._drop(ys, state.mask)

    def redraw(self, state: DropoutState, key: Array) -> DropoutState:
        """Draw a new mask, and redraw the noise of the wrapped cell."""
        return DropoutState(*_redrawn(self, state, key))

    def deterministic(self) -> "Dropout[P]":
        """Drop nothing; the mask stays in the state, unused."""
        return dataclasses.replace(self, cell=self.cell.deterministic(), rate=0.0)

    def _drop(self, y: Array, mask: Array) -> Array:
        return scale_kept(y, mask, self.rate) if self.rate > 0 else y


class RecurrentDropoutState(NamedTuple):
    """The state of the wrapped cell, and the mask: True where an entry is kept."""

    cell: State
    mask: Bool[Array, "*batch rows"]


@dataclasses.dataclass(frozen=True, repr=False)
class RecurrentDropout(GatedWrapper[P, RecurrentDropoutState]):
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

    cell: Cell[P, Any]
    rate: float

    def __post_init__(self) -> None:
        """Validate the wrapped cell and the rate."""
        super().__post_init__()
        checks.fraction("RecurrentDropout: rate", self.rate)

    def inner_state(self, state: RecurrentDropoutState) -> State:
        """Select the state beside the mask."""
        return state.cell

    def initial_state(
        self, params: P, batch_shape: tuple[int, ...] = (), *, key: Array | None = None
    ) -> RecurrentDropoutState:
        """Return the initial state of the wrapped cell, and a mask drawn with `key`."""
        cell_key, mask_key = _mask_key(self, key)
        state = self.cell.initial_state(params, batch_shape, key=cell_key)
        shape = jax.eval_shape(self.inner.recurrent_input, state).shape
        return RecurrentDropoutState(state, _draw(self.rate, mask_key, shape))

    def recurrent_input(self, state: RecurrentDropoutState) -> Array:
        """Return the masked h_{t-1}, m ⊙ h_{t-1} / (1 - rate)."""
        h = super().recurrent_input(state)
        return scale_kept(h, state.mask, self.rate) if self.rate > 0 else h

    def gate(
        self, gate_params: Params, z: Array, r: Array, state: RecurrentDropoutState
    ) -> tuple[RecurrentDropoutState, Array]:
        """Apply the rule of the wrapped cell; the mask stays."""
        inner, y = self.inner.gate(gate_params, z, r, state.cell)
        return RecurrentDropoutState(inner, state.mask), y

    def redraw(self, state: RecurrentDropoutState, key: Array) -> RecurrentDropoutState:
        """Draw a new mask, and redraw the noise of the wrapped cell."""
        return RecurrentDropoutState(*_redrawn(self, state, key))

    def deterministic(self) -> "RecurrentDropout[P]":
        """Drop nothing; the mask stays in the state, unused."""
        return dataclasses.replace(self, cell=self.cell.deterministic(), rate=0.0)


def _mask_key(
    wrapper: Dropout | RecurrentDropout, key: Array | None
) -> tuple[Array | None, Array | None]:
    """Split the key for the wrapped cell and for the mask, which needs one unless the rate is 0."""
    if key is None and wrapper.rate > 0:
        raise ValueError(
            f"{type(wrapper).__name__}: key is None; a mask at rate {wrapper.rate} needs a key "
            "(sj.unroll(..., key=key)), and evaluation needs cell.deterministic()"
        )
    return (None, None) if key is None else tuple(jax.random.split(key))


def _draw(rate: float, key: Array | None, shape: tuple[int, ...]) -> Bool[Array, "..."]:
    """Draw a mask, True with probability 1 - rate."""
    if key is None or rate == 0:
        return jnp.ones(shape, jnp.bool_)
    return jax.random.bernoulli(key, 1 - rate, shape)


def _redrawn(
    wrapper: Dropout | RecurrentDropout, state: Any, key: Array
) -> tuple[State, Bool[Array, "..."]]:
    """Redraw the state of the wrapped cell and the mask."""
    cell_key, mask_key = jax.random.split(key)
    inner = wrapper.cell.redraw(state.cell, cell_key)
    mask = _draw(wrapper.rate, mask_key, state.mask.shape) if wrapper.rate > 0 else state.mask
    return inner, mask


def drop_weights(
    params: Params,
    key: Array,
    rate: float,
    *,
    names: str | tuple[str, ...] = ("recurrent_kernel",),
) -> Params:
    """Ũ = M ⊙ U / (1 - rate),   M_{ij} ~ Bernoulli(1 - rate)

    `params` with entries of every leaf called by one of `names` dropped, wherever in the pytree it
    stands, each leaf under a mask of its own; all others are returned as they came. `rate` is the
    share that is dropped. One call draws one mask, so call it once before a run, in the loss: the
    same weights are then missing at all steps and in all rows. U itself is what the optimizer keeps, and
    its dropped entries have gradient 0. For evaluation leave it out.

    names: other weights too, such as ("recurrent_kernel", "skip_kernel") of a `SkipRNN`.

    Raises a ValueError for a rate outside [0, 1), and for a name that no leaf has.
    References: Wan et al. 2013 (DropConnect); on recurrent weights: Merity, Keskar, Socher 2018.

    >>> import jax, jax.numpy as jnp, seqjax as sj
    >>> cell = sj.LSTM(features=4)
    >>> params = cell.init(jax.random.key(0), in_features=2)
    >>> dropped = sj.drop_weights(params, jax.random.key(1), rate=0.5)
    >>> kept = dropped.recurrent_kernel != 0
    >>> bool(jnp.all(jnp.where(kept, dropped.recurrent_kernel == 2 * params.recurrent_kernel, True)))
    True
    >>> dropped.input_kernel is params.input_kernel
    True
    """
    checks.fraction("drop_weights: rate", rate)
    names = (names,) if isinstance(names, str) else tuple(names)
    leaves, structure = jax.tree_util.tree_flatten_with_path(params)
    called = [jax.tree_util.keystr(path[-1:], simple=True) for path, _ in leaves]
    for name in names:
        if name not in called:
            there = ", ".join(repr(n) for n in dict.fromkeys(called))
            raise ValueError(
                f"drop_weights: params has no leaf called {name!r}; "
                f"expected one of the names that are there, {there or 'none'}"
            )
    keys = iter(jax.random.split(key, sum(name in names for name in called)))
    return jax.tree.unflatten(
        structure,
        [
            _dropped(leaf, next(keys), rate) if name in names else leaf
            for name, (_, leaf) in zip(called, leaves, strict=True)
        ],
    )


def _dropped(weights: Array, key: Array, rate: float) -> Array:
    return scale_kept(weights, jax.random.bernoulli(key, 1 - rate, weights.shape), rate)
