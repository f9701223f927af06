"""Several layers, each fed with the outputs of the one before."""

import dataclasses
from typing import NamedTuple

import jax
from jaxtyping import Array

from seqjax.cell import Cell, Child, Layered, Params, RunChild, State
from seqjax.plan import Plan


class StackParams(NamedTuple):
    """The params of each layer."""

    layers: tuple[Params, ...]


class StackState(NamedTuple):
    """The state of each layer."""

    layers: tuple[State, ...]


@dataclasses.dataclass(frozen=True, repr=False, init=False)
class Stack(Layered[StackParams, StackState]):
    """y⁽¹⁾_t = cell₁(x_t), y⁽ˡ⁾_t = cell_l(y⁽ˡ⁻¹⁾_t); the output is that of the last layer.

    cells: a tuple of at least one cell, the first nearest to the input. Widths may differ.

    Raises a ValueError for an empty or unhashable sequence of cells.
    Reference: Schmidhuber 1992; with LSTM layers: Graves, Mohamed, Hinton 2013.
    Choose it where one layer does not learn the task: two or three usually do.
    """

    cells: tuple[Cell, ...]

    def __init__(self, cells: tuple[Cell, ...], *more: Cell) -> None:
        """Validate and store the cells."""
        if more:
            raise ValueError(
                f"Stack: got {1 + len(more)} arguments; expected one tuple of cells, "
                "as in sj.Stack((sj.LSTM(8), sj.LSTM(8)))"
            )
        if not isinstance(cells, tuple) or not cells:
            raise ValueError(
                f"Stack: cells is {cells!r}; expected a tuple of at least one cell, "
                "as in sj.Stack((sj.LSTM(8), sj.LSTM(8)))"
            )
        for cell in cells:
            if not isinstance(cell, Cell):
                raise ValueError(f"Stack: cells holds {cell!r}; expected only seqjax cells")
        object.__setattr__(self, "cells", cells)

    def children(self) -> tuple[Child, ...]:
        """Return the layers, the first nearest to the input."""
        return tuple(
            Child(f"layers[{i}]", cell, lambda p, i=i: p.layers[i], lambda s, i=i: s.layers[i])
            for i, cell in enumerate(self.cells)
        )

    @property
    def features(self) -> int:
        """The features of the last layer."""
        return self.cells[-1].out_features

    @property
    def causal(self) -> bool:
        """Where every layer is."""
        return all(cell.causal for cell in self.cells)

    def init(self, key: Array, in_features: int) -> StackParams:
        """Each layer's params by its own key."""
        keys = jax.random.split(key, len(self.cells))
        sizes = (in_features, *(cell.out_features for cell in self.cells[:-1]))
        return StackParams(
            tuple(cell.init(k, size) for cell, k, size in zip(self.cells, keys, sizes, strict=True))
        )

    def initial_state(
        self, params: StackParams, batch_shape: tuple[int, ...] = (), *, key: Array | None = None
    ) -> StackState:
        """Each layer's initial state."""
        keys = [None] * len(self.cells) if key is None else jax.random.split(key, len(self.cells))
        return StackState(
            tuple(
                cell.initial_state(p, batch_shape, key=k)
                for cell, p, k in zip(self.cells, params.layers, keys, strict=True)
            )
        )

    def step(self, params: StackParams, state: StackState, x: Array) -> tuple[StackState, Array]:
        """All layers at one time."""
        states = []
        for cell, p, s in zip(self.cells, params.layers, state.layers, strict=True):
            s, x = cell.step(p, s, x)
            states.append(s)
        return StackState(tuple(states)), x

    def unroll_with(
        self, run: RunChild, params: StackParams, state: StackState, xs: Array, plan: Plan
    ) -> tuple[StackState, Array]:
        """Run all time, one layer after another."""
        states = []
        for child in self.children():
            s, xs = run(child, params, state, xs, plan)
            states.append(s)
        return StackState(tuple(states)), xs

    def redraw(self, state: StackState, key: Array) -> StackState:
        """New noise in each layer."""
        keys = jax.random.split(key, len(self.cells))
        return StackState(
            tuple(c.redraw(s, k) for c, s, k in zip(self.cells, state.layers, keys, strict=True))
        )

    def deterministic(self) -> "Stack":
        """Each layer for evaluation."""
        return Stack(tuple(cell.deterministic() for cell in self.cells))
