"""Eligibility propagation: exact forward gradients of a network whose recurrent input is cut."""

import dataclasses
from typing import Any

import jax
from jaxtyping import Array

from seqjax.cell import Cell, Params, State, as_gated
from seqjax.gradients.influence import influence_rule
from seqjax.gradients.online_refusals import check_rule
from seqjax.gradients.online_rule import Online, Signal, StepLoss
from seqjax.wrappers.wrapper import GatedWrapper


@dataclasses.dataclass(frozen=True, repr=False)
class Cut(GatedWrapper):
    """The same values; of r_t = recurrent_input(s_{t-1}) U the dependence on the past is cut."""

    cell: Any

    def initial_state(
        self, params: Params, batch_shape: tuple[int, ...] = (), *, key: Array | None = None
    ) -> State:
        """That of the inner cell."""
        return self.cell.initial_state(params, batch_shape, key=key)

    def recurrent_input(self, state: State) -> Array:
        """That of the inner cell, as a constant."""
        return jax.lax.stop_gradient(self.inner.recurrent_input(state))

    def gate(self, gate_params: Params, z: Array, r: Array, state: State) -> tuple[State, Array]:
        """The inner rule."""
        return self.inner.gate(gate_params, z, r, state)

    def redraw(self, state: State, key: Array) -> State:
        """That of the inner cell."""
        return self.cell.redraw(state, key)


def eprop(cell: Cell, step_loss: StepLoss, *, signal: Signal | None = None) -> Online:
    """ε_t = ∂s_t/∂s_{t-1}|_r ε_{t-1} + ∂⁺s_t/∂θ
    dL_t/dθ ≈ (∂y_t/∂s_t · ε_t) summed with the learning signal ∂L_t/∂y_t

    Each unit keeps an eligibility trace ε of how its own memory depends on its own weights; what goes
    round through the recurrent kernel, r_t = recurrent_input(s_{t-1}) U, is cut, while U itself
    learns. For an LSTM: ε_t = f_t ⊙ ε_{t-1} + ∂⁺c_t/∂θ, and the gradient is that of ∂L_t/∂h_t alone.
    So it is RTRL of the cell with that one path cut: biased, and exact where the path does not matter.

    cell: a gated cell (`sj.as_gated`); a normalisation over units, as in `sj.LayerNorm`, mixes them
    again and costs what RTRL costs.
    signal: `signal(head, y, target) -> [*batch, out_features]` in place of ∂L_t/∂y_t. The paper's
    random e-prop sends the error of the readout back by fixed random weights B. The head
    learns by its own gradient in either case.

    With P params each row of the batch needs memory O(P) and time O(P), those of the step.

    Raises a ValueError for a cell that is not gated.
    Reference: Bellec, Scherr, Subramoney, Hajek, Salaj, Legenstein, Maass 2020, "A solution to the
    learning dilemma for recurrent networks of spiking neurons".

    >>> import functools, jax, jax.numpy as jnp, seqjax as sj
    >>> B = jax.random.normal(jax.random.key(1), (2, 8))
    >>> loss = lambda head, y, target: jnp.sum((y @ head - target) ** 2) / 2
    >>> feedback = lambda head, y, target: (y @ head - target) @ B
    >>> random_eprop = functools.partial(sj.eprop, signal=feedback)
    >>> rule = random_eprop(sj.LSTM(features=8), loss)
    """
    return cut_rule("eprop", cell, step_loss, signal)


def cut_rule(name: str, cell: Cell, step_loss: StepLoss, signal: Signal | None) -> Online:
    """E-prop under the name of the rule that a user asked for."""
    check_rule(name, cell, step_loss, signal)
    gated = as_gated(cell)
    if gated is None:
        raise ValueError(
            f"{name}: cell is {cell!r}; expected a gated cell, such as sj.LSTM or sj.GRU. "
            "sj.rtrl, sj.snap(n) and sj.uoro serve every causal cell; for linear and diagonal ones "
            "sj.rtrl is exact at the cost of the step"
        )
    return influence_rule(name, cell, step_loss, signal=signal, through=Cut(gated))
