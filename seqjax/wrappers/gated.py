"""What wrappers around a gated cell share: they are gated themselves, by the parts of the inner cell."""

from typing import Any

from jaxtyping import Array

from seqjax import checks
from seqjax.cell import Cell, GatedCell, Mixing, Params, State, as_gated


def check_gated(name: str, cell: Cell) -> None:
    """Raise a ValueError that says what to do, where `cell` is not gated."""
    checks.instance(f"{name}: cell", cell, Cell)
    if as_gated(cell) is None:
        raise ValueError(
            f"{name}: cell: expected a gated cell, such as sj.LSTM, got {cell!r}; "
            "wrap each layer of a stack, and the cell inside another wrapper"
        )


class GatedWrapper(GatedCell):
    """A gated cell around another: what a leaf does not say otherwise is as in the inner cell.

    Leaves have the field `cell`, and say by `inner_params` and `inner_state` where those of the inner
    cell are within their own.
    """

    cell: Any

    def inner_params(self, params: Params) -> Params:
        """The params of the inner cell; all of them, unless a leaf has its own beside."""
        return params

    def inner_state(self, state: State) -> State:
        """The state of the inner cell; all of it, unless a leaf has its own beside."""
        return state

    @property
    def inner(self) -> GatedCell:
        """The inner cell as a gated one."""
        inner = as_gated(self.cell)
        assert inner is not None  # a leaf refuses other cells, or says that it is not gated
        return inner

    @property
    def features(self) -> int:
        """The width of the inner cell."""
        return self.cell.features

    @property
    def out_features(self) -> int:
        """Those of the inner cell."""
        return self.cell.out_features

    @property
    def causal(self) -> bool:
        """Where the inner cell is."""
        return self.cell.causal

    @property
    def mixing(self) -> Mixing:
        """That of the inner cell."""
        return self.cell.mixing

    def init(self, key: Array, in_features: int) -> Params:
        """The inner cell's params."""
        return self.cell.init(key, in_features)

    def project(self, params: Params, x: Array) -> Array:
        """That of the inner cell."""
        return self.inner.project(self.inner_params(params), x)

    def recurrent_input(self, state: State) -> Array:
        """That of the inner cell."""
        return self.inner.recurrent_input(self.inner_state(state))

    def recurrent_kernel(self, params: Params) -> Array:
        """That of the inner cell."""
        return self.inner.recurrent_kernel(self.inner_params(params))

    def gate_params(self, params: Params) -> Params:
        """Those of the inner cell."""
        return self.inner.gate_params(self.inner_params(params))

    @property
    def gate_blocks(self) -> tuple[int, ...] | None:
        """Those of the inner cell."""
        return self.inner.gate_blocks

    @property
    def emits(self) -> bool:
        """Where the inner cell does."""
        return self.inner.emits

    def emit(self, state: State) -> Array:
        """That of the inner cell."""
        return self.inner.emit(self.inner_state(state))

    def output(self, params: Params, state: State, x: Array) -> Array:
        """That of the inner cell."""
        return self.cell.output(self.inner_params(params), self.inner_state(state), x)
