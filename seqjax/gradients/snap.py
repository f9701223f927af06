"""Sparse n-step approximation: the influence of each param on the states that it soon reaches."""

import dataclasses

from seqjax import checks
from seqjax.cell import Cell
from seqjax.gradients.influence import influence_rule
from seqjax.gradients.online_refusals import check_rule
from seqjax.gradients.online_rule import Online, StepLoss


@dataclasses.dataclass(frozen=True)
class SnAp:
    """Influence cut to what is reached within n steps; made by `snap`."""

    n: int

    def __post_init__(self) -> None:
        """Refuse what is no number of steps."""
        checks.positive("snap: n", self.n)

    def __call__(self, cell: Cell, step_loss: StepLoss) -> Online:
        """The rule for one cell and loss."""
        name = f"snap({self.n})"
        check_rule(name, cell, step_loss)
        return influence_rule(name, cell, step_loss, steps=self.n)


def snap(n: int) -> SnAp:
    """J_t = M_n ⊙ (D_t J_{t-1} + I_t),   D_t = ∂s_t/∂s_{t-1},   I_t = ∂⁺s_t/∂θ
    dL_t/dθ ≈ ∂L_t/∂s_{t-1} · J_{t-1} + ∂⁺L_t/∂θ

    RTRL whose influence is cut to the pattern M_n of the entries that can differ from zero within n
    steps: SnAp-1 keeps, for each param, the states that it enters directly. Biased, unless n steps
    reach all that is ever reached: then it is RTRL. Where units do not mix n = 1 is enough for one
    leaf of state, n = 2 for an h that is read off a c. The pattern is read off the program of
    `cell.step`, never off values. The step that is under way counts whole (the paper cuts once more,
    before it multiplies by ∂L_t/∂s_t), which costs nothing and errs less.

    With P params that each reach d states within n steps, each row of the batch needs memory O(d P),
    and time O(d² P) beside that of D_t, which takes one VJP for each entry of the state of a dense cell.

    Raises a ValueError for an n below 1, and, when called, for a cell that has no step.
    Reference: Menick, Elsen, Evci, Osindero, Simonyan, Graves 2021, "Practical real time recurrent
    learning with a sparse approximation".

    >>> snap(1)
    SnAp(n=1)
    """
    return SnAp(n)
