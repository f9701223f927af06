"""Zoneout: at each step, units drawn at random keep the value that they had."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from seqjax import checks
from seqjax.cell import Cell, GatedCell, Layered, P, Params, State, as_gated, noise_only
from seqjax.wrappers.wrapper import GatedWrapper


class ZoneoutState(NamedTuple):
    """The inner state, and for each row of the batch the key of the masks that come next."""

    cell: State
    key: Key[Array, "*batch"]


@dataclasses.dataclass(frozen=True, repr=False)
class Zoneout(GatedWrapper[P, ZoneoutState]):
    """h_t = d_t ⊙ h_{t-1} + (1 - d_t) ⊙ ĥ_t,   d_{t,j} ~ Bernoulli(rate)
    c_t = e_t ⊙ c_{t-1} + (1 - e_t) ⊙ ĉ_t,   e_{t,j} ~ Bernoulli(memory_rate)
    y_t = output(h_t, c_t)

    ĥ_t and ĉ_t are what the inner cell gives for h_{t-1}, c_{t-1} and x_t. The masks are drawn anew at
    every step, for each row, unit and leaf: the state holds a key for each row, which `step` splits
    and `redraw` replaces, so equal keys give equal runs. `rate` is the share of units that keep their
    value; `memory_rate` is that of c, None for the same. (The paper has 0.05 for h and 0.5 for c of an
    LSTM on characters.) `deterministic()` takes the expectation: rate · h_{t-1} + (1 - rate) · ĥ_t.

    What can be kept is a single leaf of memory [*batch, features], whatever its name, or the two leaves
    h and c. Clocks and masks are never kept. Other states are refused: the c, n and m of an sLSTM have a
    meaning only together, and a history of past states says which step each entry belongs to.

    Params are those of the inner cell. Gated where the inner cell is gated and has `emit`.

    Raises a ValueError for a layered cell (wrap the cells inside it), one without `output`, a state of
    another form, a rate outside [0, 1), and where noise is wanted without a key.
    Reference: Krueger et al. 2017, "Zoneout: regularizing RNNs by randomly preserving hidden
    activations".
    Choose it to regularise what a cell remembers, where dropout on its outputs is not enough.
    """

    cell: Cell[P, Any]
    rate: float
    memory_rate: float | None = None
    averaged: bool = False
    """The expectation in place of masks: what `deterministic()` gives."""

    def __post_init__(self) -> None:
        """Validate the wrapped cell, which need not be gated, and the rates."""
        checks.instance("Zoneout: cell", self.cell, Cell)
        if isinstance(self.cell, Layered):
            raise ValueError(
                f"Zoneout: cell: expected a cell with a step of its own, got {self.cell!r}; "
                "wrap the cells inside it, sj.Stack((sj.Zoneout(...), ...))"
            )
        checks.fraction("Zoneout: rate", self.rate)
        if self.memory_rate is not None:
            checks.fraction("Zoneout: memory_rate", self.memory_rate)

    def inner_state(self, state: ZoneoutState) -> State:
        """Beside the keys."""
        return state.cell

    def gated(self) -> GatedCell | None:
        """Itself, where the inner cell is gated and its y is read off the state alone."""
        inner = as_gated(self.cell)
        return self if inner is not None and inner.emits else None

    def initial_state(
        self, params: P, batch_shape: tuple[int, ...] = (), *, key: Array | None = None
    ) -> ZoneoutState:
        """The inner cell's initial state, and a key for each row, drawn with `key`."""
        if key is None and not self.averaged and max(self._rates()) > 0:
            raise ValueError(
                f"Zoneout: key is None; masks at rate {max(self._rates())} need a key "
                "(sj.unroll(..., key=key)), and evaluation needs cell.deterministic()"
            )
        cell_key, row_key = (None, jax.random.key(0)) if key is None else jax.random.split(key)
        state = self.cell.initial_state(params, batch_shape, key=cell_key)
        self._rate_of_each_leaf(state, len(batch_shape))  # refuses what cannot be kept
        return ZoneoutState(state, _key_of_each_row(row_key, batch_shape))

    def step(self, params: P, state: ZoneoutState, x: Array) -> tuple[ZoneoutState, Array]:
        """The inner step, some units kept, and the output of the state that results."""
        after, _ = self.cell.step(params, state.cell, x)
        state = self.zone_out(state, after)
        return state, self.output(params, state, x)

    def gate(
        self, gate_params: Params, z: Array, r: Array, state: ZoneoutState
    ) -> tuple[ZoneoutState, Array]:
        """The inner rule, some units kept, and the y of the state that results."""
        after, _ = self.inner.gate(gate_params, z, r, state.cell)
        state = self.zone_out(state, after)
        return state, self.emit(state)

    def zone_out(self, before: ZoneoutState, after: State) -> ZoneoutState:
        """`after`, the inner state after a step, with units of the state before it kept."""
        old, (new, structure) = jax.tree.leaves(before.cell), jax.tree.flatten(after)
        rates = self._rate_of_each_leaf(after, before.key.ndim)
        if self.averaged:
            kept = [
                b if p is None else p * a + (1 - p) * b
                for p, a, b in zip(rates, old, new, strict=True)
            ]
            return ZoneoutState(jax.tree.unflatten(structure, kept), before.key)
        next_key, *keys = _split_each_row(before.key, 1 + len(rates))
        kept = [
            b if p is None else jnp.where(_draw_each_row(k, p, b.shape), a, b)
            for p, k, a, b in zip(rates, keys, old, new, strict=True)
        ]
        return ZoneoutState(jax.tree.unflatten(structure, kept), next_key)

    def redraw(self, state: ZoneoutState, key: Array) -> ZoneoutState:
        """New keys, and new noise in the inner cell."""
        cell_key, row_key = jax.random.split(key)
        inner = self.cell.redraw(state.cell, cell_key)
        return ZoneoutState(inner, _key_of_each_row(row_key, state.key.shape))

    def deterministic(self) -> "Zoneout[P]":
        """The expectation of each step; the keys stay in the state, unused."""
        return dataclasses.replace(self, cell=self.cell.deterministic(), averaged=True)

    def _rates(self) -> tuple[float, float]:
        """Those of h and of c."""
        h = float(self.rate)
        return h, h if self.memory_rate is None else float(self.memory_rate)

    def _rate_of_each_leaf(self, state: State, batch_axes: int) -> list[float | None]:
        """The rate for each leaf of the inner state; None for clocks, masks and noise."""
        leaves = jax.tree_util.tree_leaves_with_path(state)
        noise = jax.tree.leaves(noise_only(self.cell, state))
        memory = {
            i: jax.tree_util.keystr(path[-1:], simple=True)
            for i, (path, leaf) in enumerate(leaves)
            if jnp.issubdtype(leaf.dtype, jnp.inexact) and not noise[i]
        }
        alone = len(memory) == 1
        vectors = all(leaves[i][1].ndim == batch_axes + 1 for i in memory)
        if not vectors or not (alone or sorted(memory.values()) == ["c", "h"]):
            came = ", ".join(
                f"{name or 'one leaf'} {list(leaves[i][1].shape[batch_axes:])}"
                for i, name in memory.items()
            )
            raise ValueError(
                f"Zoneout: the memory of {self.cell!r} is {came or 'empty'} (without the batch); "
                "expected one leaf [features], or h and c, whose units can be kept one by one"
            )
        h, c = self._rates()
        rates = {i: c if name == "c" and not alone else h for i, name in memory.items()}
        return [rates.get(i) for i in range(len(leaves))]


def _key_of_each_row(key: Array, batch_shape: tuple[int, ...]) -> Key[Array, "*batch"]:
    """A key for each row, drawn with `key`, and of the default kind whatever kind that is.

    So that the state has one form, and fits one that was drawn with a key of another kind.
    """
    default = jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0)))
    words = jax.random.bits(key, (*batch_shape, *default.shape), default.dtype)
    return jax.random.wrap_key_data(words)


def _split_each_row(key: Key[Array, "*batch"], number: int) -> list[Key[Array, "*batch"]]:
    """`number` new keys for each row."""
    keys = jax.vmap(lambda k: jax.random.split(k, number))(key.reshape(-1))
    return [keys[:, i].reshape(key.shape) for i in range(number)]


def _draw_each_row(key: Key[Array, "*batch"], rate: float, shape: tuple[int, ...]) -> Array:
    """A mask [*batch, features], each row with its own key; True with probability `rate`."""
    draw = lambda k: jax.random.bernoulli(k, rate, shape[-1:])
    return jax.vmap(draw)(key.reshape(-1)).reshape(shape)
