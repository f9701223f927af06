"""Random-feedback local online learning: e-prop of a leaky Elman network."""

from seqjax.cell import Cell
from seqjax.cells.elman import Elman
from seqjax.gradients.eprop import cut_rule
from seqjax.gradients.online_rule import Online, Signal, StepLoss


def rflo(cell: Cell, step_loss: StepLoss, *, signal: Signal | None = None) -> Online:
    """P_t = (1 - α) P_{t-1} + α φ'(a_t) ⊗ v_t,   v_t = [x_t, h_{t-1}, 1]
    dL_t/dθ_{ji} ≈ (∂L_t/∂y_t)_j P_{t,ji}

    For the leaky network h_t = (1 - α) h_{t-1} + α φ(a_t), a_t = x_t W + h_{t-1} U + b: each weight
    keeps a trace of what came in, low-passed as its unit is. What goes round through U is left out, so
    the gradient is biased; it is RTRL of the network with that path cut.

    cell: an `sj.Elman` network, leaky (`leak` below 1) or not: at 1 the trace has no past.
    signal: `signal(head, y, target) -> [*batch, out_features]` in place of ∂L_t/∂y_t. The paper
    sends the error of the readout back by fixed random weights B, as in the example; by
    default it is the true gradient. The head learns by its own gradient in either case.

    With P params each row of the batch needs memory O(P) and time O(P), those of the step.

    Raises a ValueError for a cell that is no Elman network.
    Reference: Murray 2019, "Local online learning in recurrent networks with random feedback".

    >>> import functools, jax, jax.numpy as jnp, seqjax as sj
    >>> B = jax.random.normal(jax.random.key(1), (2, 8))
    >>> loss = lambda head, y, target: jnp.sum((y @ head - target) ** 2) / 2
    >>> feedback = lambda head, y, target: (y @ head - target) @ B
    >>> rule = functools.partial(sj.rflo, signal=feedback)(sj.Elman(features=8, leak=0.1), loss)
    """
    if not isinstance(cell, Elman):
        raise ValueError(
            f"rflo: cell is {cell!r}; expected a (leaky) sj.Elman network. sj.eprop is the same for "
            "gated cells; sj.rtrl, sj.snap(n) and sj.uoro serve every causal cell"
        )
    return cut_rule("rflo", cell, step_loss, signal)
