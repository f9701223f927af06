"""A connection around a cell."""

import dataclasses

from jaxtyping import Array

from seqjax import checks
from seqjax.cell import Cell, Layered, Params, Run, State
from seqjax.plan import Plan


@dataclasses.dataclass(frozen=True, repr=False)
class Residual(Layered):
    """y_t = x_t + cell(x)_t

    The gradient has a path around the cell at every step, which makes deep stacks trainable. Params
    and states are those of the inner cell.

    Raises a ValueError where in_features and the features of the cell differ.
    Reference: He et al. 2016; in recurrent stacks: Wu et al. 2016, section 3.1.
    Choose it in stacks of more than three layers.
    """

    cell: Cell

    def __post_init__(self) -> None:
        """Refuse what is no cell."""
        checks.instance("Residual: cell", self.cell, Cell)

    @property
    def features(self) -> int:
        """Those of the inner cell."""
        return self.cell.out_features

    def init(self, key: Array, in_features: int) -> Params:
        """The inner cell's params."""
        if in_features != self.cell.out_features:
            raise ValueError(
                f"Residual: in_features is {in_features} but the cell has {self.cell.out_features} "
                "features; x + y needs them equal"
            )
        return self.cell.init(key, in_features)

    def initial_state(
        self, params: Params, batch_shape: tuple[int, ...] = (), *, key: Array | None = None
    ) -> State:
        """The inner cell's initial state."""
        return self.cell.initial_state(params, batch_shape, key=key)

    def step(self, params: Params, state: State, x: Array) -> tuple[State, Array]:
        """The inner step, plus x."""
        state, y = self.cell.step(params, state, x)
        return state, x.astype(y.dtype) + y

    def unroll_with(
        self, run: Run, params: Params, state: State, xs: Array, plan: Plan
    ) -> tuple[State, Array]:
        """The inner run, plus xs."""
        state, ys = run(self.cell, params, state, xs, plan)
        return state, xs.astype(ys.dtype) + ys

    def redraw(self, state: State, key: Array) -> State:
        """The inner cell's noise."""
        return self.cell.redraw(state, key)

    def deterministic(self) -> "Residual":
        """The inner cell for evaluation."""
        return Residual(self.cell.deterministic())

    @property
    def causal(self) -> bool:
        """Where the inner cell is."""
        return self.cell.causal

    @property
    def mixing(self):
        """That of the inner cell: the state does not see the connection."""
        return self.cell.mixing
