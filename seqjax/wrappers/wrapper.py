"""A cell around one other cell: everything that a wrapper does not override is as in that cell."""

import dataclasses
from typing import Any

from jaxtyping import Array

from seqjax import checks
from seqjax.cell import Cell, Child, GatedCell, Layered, Mixing, P, Params, S, State, as_gated


class OneCell(Cell[P, S]):
    """Delegates to the wrapped cell; what `Wrapper` and `GatedWrapper` share.

    A leaf is a frozen dataclass with the field `cell`. It overrides `inner_params` and `inner_state`
    where the params and state of the wrapped cell are a part of its own.
    """

    cell: Any

    def inner_params(self, params: P) -> Params:
        """Select the params of the wrapped cell; all of them by default."""
        return params

    def inner_state(self, state: S) -> State:
        """Select the state of the wrapped cell; all of it by default."""
        return state

    def children(self) -> tuple[Child, ...]:
        """Return the wrapped cell."""
        return (Child("", self.cell, self.inner_params, self.inner_state),)

    @property
    def causal(self) -> bool:
        """Whether the wrapped cell is causal."""
        return self.cell.causal

    @property
    def mixing(self) -> Mixing:
        """The mixing of the wrapped cell."""
        return self.cell.mixing

    def init(self, key: Array, in_features: int) -> P:
        """Draw the params of the wrapped cell."""
        return self.cell.init(key, in_features)

    def initial_state(
        self, params: P, batch_shape: tuple[int, ...] = (), *, key: Array | None = None
    ) -> S:
        """Return the initial state of the wrapped cell."""
        return self.cell.initial_state(self.inner_params(params), batch_shape, key=key)

    def redraw(self, state: S, key: Array) -> S:
        """Redraw the noise of the wrapped cell."""
        return self.cell.redraw(state, key)

    def deterministic(self) -> Any:
        """Return the wrapper around the wrapped cell for evaluation."""
        return dataclasses.replace(self, cell=self.cell.deterministic())  # type: ignore[type-var]


class Wrapper(OneCell[P, S], Layered[P, S]):
    """A layer around one cell, which leaves the recurrence of that cell as it is."""

    def __post_init__(self) -> None:
        """Validate the wrapped cell."""
        checks.instance(f"{type(self).__name__}: cell", self.cell, Cell)

    @property
    def features(self) -> int:
        """The size of the outputs of the wrapped cell."""
        return self.cell.out_features


class GatedWrapper(OneCell[P, S], GatedCell[P, S]):
    """A gated cell around another gated cell, whose recurrence it changes."""

    def __post_init__(self) -> None:
        """Validate the wrapped cell."""
        name = type(self).__name__
        checks.instance(f"{name}: cell", self.cell, Cell)
        if as_gated(self.cell) is None:
            raise ValueError(
                f"{name}: cell: expected a gated cell, such as sj.LSTM, got {self.cell!r}; "
                "wrap each layer of a stack, and the cell inside another wrapper"
            )

    @property
    def inner(self) -> GatedCell:
        """The wrapped cell as a gated one."""
        inner = as_gated(self.cell)
        assert inner is not None  # checked in __post_init__, or `gated` returns None
        return inner

    @property
    def features(self) -> int:
        """The width of the wrapped cell."""
        return self.cell.features

    @property
    def out_features(self) -> int:
        """The size of the outputs of the wrapped cell."""
        return self.cell.out_features

    # Properties in place of class attributes: the answer depends on the wrapped cell.
    @property
    def additive(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether the wrapped cell is additive."""
        return self.inner.additive

    @property
    def saves_gates(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether the wrapped cell marks its residuals."""
        return self.inner.saves_gates

    @property
    def memory_path(self) -> str | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The memory path of the wrapped cell."""
        return self.cell.memory_path

    def project(self, params: P, x: Array) -> Array:
        """Delegate to the wrapped cell."""
        return self.inner.project(self.inner_params(params), x)

    def recurrent_input(self, state: S) -> Array:
        """Delegate to the wrapped cell."""
        return self.inner.recurrent_input(self.inner_state(state))

    def recurrent_kernel(self, params: P) -> Array:
        """Delegate to the wrapped cell."""
        return self.inner.recurrent_kernel(self.inner_params(params))

    def gate_params(self, params: P) -> Params:
        """Delegate to the wrapped cell."""
        return self.inner.gate_params(self.inner_params(params))

    @property
    def gate_blocks(self) -> tuple[int, ...] | None:
        """The groups of gates of the wrapped cell."""
        return self.inner.gate_blocks

    @property
    def emits(self) -> bool:
        """Whether the wrapped cell defines `emit`."""
        return self.inner.emits

    def emit(self, state: S) -> Array:
        """Delegate to the wrapped cell."""
        return self.inner.emit(self.inner_state(state))

    def output(self, params: P, state: S, x: Array) -> Array:
        """Delegate to the wrapped cell."""
        return self.cell.output(self.inner_params(params), self.inner_state(state), x)
