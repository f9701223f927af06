"""Real-time recurrent learning: the exact gradient, forward in time."""

from seqjax.cell import Cell
from seqjax.gradients.influence import influence_rule
from seqjax.gradients.online_refusals import check_rule
from seqjax.gradients.online_rule import Online, StepLoss


def rtrl(cell: Cell, step_loss: StepLoss) -> Online:
    """J_t = D_t J_{t-1} + I_t,   D_t = ∂s_t/∂s_{t-1},   I_t = ∂⁺s_t/∂θ,   J_0 = ∂s_0/∂θ
    dL_t/dθ = ∂L_t/∂s_{t-1} · J_{t-1} + ∂⁺L_t/∂θ

    Exact: with params held constant, the gradients of all steps add up to that of BPTT. Where they are
    updated on the way J_t mixes derivatives at older params, as with every online rule.

    cell: any causal cell, stacks included; clocks, masks and keys in its state are passed by. A row of
    the batch has a J of its own. Which entries of J can ever differ from zero is read off the program of
    `cell.step`, never off values, and only those are kept. With n entries of the state and P
    params, each row needs at each step

    - where units mix, memory O(n P) and time O(n² P): for a dense cell of k units O(k³) and O(k⁴);
    - where they do not (diagonal, element-wise and linear cells), memory O(P) and time O(P): those of
      the step itself. In a stack of such cells this holds for the last layer alone.

    Raises a ValueError for a cell that has no step.
    References: Williams, Zipser 1989, "A learning algorithm for continually running fully recurrent
    neural networks"; for cells whose units do not mix: Mozer 1989; Zucchet, Meier, Schug, Mujika,
    Sacramento 2023, "Online learning of long-range dependencies".

    >>> import jax, jax.numpy as jnp, seqjax as sj
    >>> cell = sj.GRU(features=4)
    >>> params = sj.OnlineParams(cell.init(jax.random.key(0), in_features=2))
    >>> rule = sj.rtrl(cell, lambda head, y, target: jnp.mean((y - target) ** 2))
    >>> state = rule.init(params, (3,))
    >>> state, grads, loss, y = rule.update(params, state, jnp.ones((3, 2)), jnp.zeros((3, 4)))
    >>> grads.cell.bias.shape
    (12,)
    """
    check_rule("rtrl", cell, step_loss)
    return influence_rule("rtrl", cell, step_loss)
