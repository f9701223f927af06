"""Eligibility propagation and RFLO: forward gradients of a network whose recurrent input is cut."""

import dataclasses
from typing import Any

import jax
from jaxtyping import Array

from seqjax import checks
from seqjax.cell import Cell, Params, State, as_gated
from seqjax.cells.elman import Elman
from seqjax.gradients.online import Signal
from seqjax.gradients.rtrl import InfluenceRule
from seqjax.wrappers.wrapper import GatedWrapper


@dataclasses.dataclass(frozen=True, repr=False)
class Cut(GatedWrapper):
    """The same cell with a constant recurrent_input(s_{t-1}), which cuts r_t = recurrent_input U."""

    cell: Any

    def recurrent_input(self, state: State) -> Array:
        """Return the input of the inner cell, as a constant."""
        return jax.lax.stop_gradient(self.inner.recurrent_input(state))

    def gate(self, gate_params: Params, z: Array, r: Array, state: State) -> tuple[State, Array]:
        """Apply the gate of the inner cell."""
        return self.inner.gate(gate_params, z, r, state)


class CutRule(InfluenceRule):
    """RTRL of a gated cell whose recurrent input is cut; leaves have a field `signal`."""

    def __post_init__(self) -> None:
        """Validate the cell and the signal."""
        super().__post_init__()
        if self.signal is not None:
            checks.function(f"{self.name}: signal", self.signal)
        if as_gated(self.cell) is None:
            raise ValueError(
                f"{self.name}: cell is {self.cell!r}; expected a gated cell, such as sj.LSTM or sj.GRU. "
                "sj.rtrl, sj.snap and sj.uoro serve every causal cell; for linear and diagonal ones "
                "sj.rtrl is exact at the cost of the step"
            )

    @property
    def differentiated(self) -> Cell:
        """The cell with its recurrent input cut."""
        return Cut(as_gated(self.cell))


@dataclasses.dataclass(frozen=True)
class EProp(CutRule):
    """ε_t = ∂s_t/∂s_{t-1}|_r ε_{t-1} + ∂⁺s_t/∂θ
    dL_t/dθ ≈ (∂y_t/∂s_t · ε_t) summed with the learning signal ∂L_t/∂y_t

    Eligibility propagation, an `OnlineRule`. Each unit keeps an eligibility trace ε of how its own
    memory depends on its own weights; the path through the recurrent kernel, r_t =
    recurrent_input(s_{t-1}) U, is cut, while U itself learns. For an LSTM: ε_t = f_t ⊙ ε_{t-1} +
    ∂⁺c_t/∂θ, and the gradient is that of ∂L_t/∂h_t alone. So it is RTRL of the cell with that one path
    cut: biased, and exact where the path does not matter.

    With P params each row of the batch needs memory O(P) and time O(P), those of the step.

    Args:
        cell: A gated cell (`sj.as_gated`); a normalisation over units, as in `sj.LayerNorm`, mixes them
            again and costs what RTRL costs.
        every: Steps from one update to the next; None is one update a batch.
        signal: `signal(head, y, target) -> [*batch, out_features]` in place of ∂L_t/∂y_t. The paper's
            random e-prop sends the error of the readout back by fixed random weights B. The head learns
            by its own gradient in either case.

    Raises a ValueError for a cell that is not gated.
    Reference: Bellec, Scherr, Subramoney, Hajek, Salaj, Legenstein, Maass 2020, "A solution to the
    learning dilemma for recurrent networks of spiking neurons".

    >>> import jax, seqjax as sj
    >>> B = jax.random.normal(jax.random.key(1), (2, 8))
    >>> feedback = lambda head, y, target: (y @ head - target) @ B
    >>> random_eprop = sj.eprop(sj.LSTM(features=8), signal=feedback)
    """

    cell: Cell
    every: int | None = 1
    signal: Signal | None = None


eprop = EProp


@dataclasses.dataclass(frozen=True)
class RFLO(CutRule):
    """P_t = (1 - α) P_{t-1} + α φ'(a_t) ⊗ v_t,   v_t = [x_t, h_{t-1}, 1]
    dL_t/dθ_{ji} ≈ (∂L_t/∂y_t)_j P_{t,ji}

    Random-feedback local online learning, an `OnlineRule`: e-prop of a leaky Elman network
    h_t = (1 - α) h_{t-1} + α φ(a_t), a_t = x_t W + h_{t-1} U + b. Each weight keeps a trace of its
    inputs, low-passed as its unit is. The path through U is left out, so the gradient is biased; it is
    RTRL of the network with that path cut.

    With P params each row of the batch needs memory O(P) and time O(P), those of the step.

    Args:
        cell: An `sj.Elman` network, leaky (`leak` below 1) or not: at 1 the trace has no past.
        every: Steps from one update to the next; None is one update a batch.
        signal: `signal(head, y, target) -> [*batch, out_features]` in place of ∂L_t/∂y_t. The paper
            sends the error of the readout back by fixed random weights B, as in the example; by
            default it is the true gradient. The head learns by its own gradient in either case.

    Raises a ValueError for a cell that is not an Elman network.
    Reference: Murray 2019, "Local online learning in recurrent networks with random feedback".

    >>> import jax, seqjax as sj
    >>> B = jax.random.normal(jax.random.key(1), (2, 8))
    >>> feedback = lambda head, y, target: (y @ head - target) @ B
    >>> rule = sj.rflo(sj.Elman(features=8, leak=0.1), signal=feedback)
    """

    cell: Cell
    every: int | None = 1
    signal: Signal | None = None

    def __post_init__(self) -> None:
        """Validate that the cell is an Elman network."""
        if isinstance(self.cell, Cell) and not isinstance(self.cell, Elman):
            raise ValueError(
                f"rflo: cell is {self.cell!r}; expected a (leaky) sj.Elman network. sj.eprop is the "
                "same for gated cells; sj.rtrl, sj.snap and sj.uoro serve every causal cell"
            )
        super().__post_init__()


rflo = RFLO
