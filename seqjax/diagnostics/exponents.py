"""Lyapunov exponents: how fast nearby states diverge or converge, averaged over a long run."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Key

from seqjax import checks
from seqjax._tree import to_vector
from seqjax.cell import Cell, Params, State
from seqjax.diagnostics.products import orthonormal
from seqjax.diagnostics.trajectory import (
    Trajectory,
    check_sizes,
    finite_walk,
    step_vector,
)
from seqjax.numerics import one_by_one

LEADING = 4
"""How many exponents are computed by default."""


class Lyapunov(NamedTuple):
    """The leading exponents, in nats per step, the largest first.

    exponents: [rows, count], for each row of the batch; -∞ if a direction is lost for good.
    steps: how many steps they are averaged over.
    """

    exponents: Float[Array, "rows count"]
    steps: int


def lyapunov(
    cell: Cell,
    params: Params,
    xs: ArrayLike,
    state: State = None,
    *,
    key: Key[Array, ""] | None = None,
    count: int | None = LEADING,
    align: int | None = None,
    rows: int | None = None,
) -> Lyapunov:
    """Q_t R_t = D_t Q_{t-1},   D_t = ∂s_t/∂s_{t-1}
    λ_i = 1/T Σ_t log |R_{t,ii}|

    With λ_1 > 0 nearby states diverge, and gradients explode in that direction; with λ_1 < 0 they
    converge, and all gradients vanish. e^{λ_i} is the mean factor of one step. Q_0 is random and needs
    some steps to turn into the leading directions: these are run and not counted. The state is one real
    vector. The cost is `count` directions of forward mode and a QR of [entries, count] at each step.

    Args:
        cell: a causal cell.
        params: the params of the cell.
        xs: [time, *batch, in_features].
        state: the initial state, as in `sj.unroll`.
        key: draws the noise of the run, as in `sj.unroll`.
        count: how many exponents; None is the whole spectrum.
        align: steps that are not counted; None is a tenth of them.
        rows: at most so many rows of the batch; None is all.

    Raises:
        ValueError: the cell is not causal, a state is not finite, a size is out of range, or `sj.unroll`
            raises for these arguments.

    References: Benettin, Galgani, Giorgilli, Strelcyn 1980; for recurrent networks: Engelken, Wolf,
    Abbott 2023, "Lyapunov spectra of chaotic recurrent neural networks".

    >>> import jax, jax.numpy as jnp, seqjax as sj
    >>> cell = sj.IRNN(features=4, scale=0.5)
    >>> params = cell.init(jax.random.key(0), in_features=2)
    >>> state = jax.tree.map(lambda h: h + 1, cell.initial_state(params))
    >>> print(jnp.exp(lyapunov(cell, params, jnp.zeros((9, 2)), state, count=2).exponents))
    [[0.5 0.5]]
    """
    check_sizes("lyapunov", count=count)
    if align is not None:
        checks.size("lyapunov: align", align)
    path = finite_walk("lyapunov", cell, params, xs, state, key, rows)
    time = path.xs.shape[0]
    if time == 0:
        raise ValueError(f"lyapunov: xs has shape {jnp.shape(xs)}; expected at least 1 step")
    align = time // 10 if align is None else align
    if align >= time:
        raise ValueError(
            f"lyapunov: align: expected fewer than the {time} steps of xs, got {align}"
        )
    return exponents_of(cell, params, path, count, align)


def exponents_of(
    cell: Cell, params: Params, path: Trajectory, count: int | None, align: int
) -> Lyapunov:
    """Compute `lyapunov` from all rows of a run."""
    size = path.entries
    count = size if count is None else min(count, size)
    exponents = _exponents(cell, params, path.start, path.before, path.xs, count, align)
    return Lyapunov(exponents, path.xs.shape[0] - align)


@functools.partial(jax.jit, static_argnames=("cell", "count", "align"))
def _exponents(cell, params, start, before, xs, count, align):
    """[rows, count], averaged over the steps from `align` on."""
    like = to_vector(start, 1)

    def one_step(Q, inputs):
        state, x = inputs
        step = lambda s: step_vector(cell, params, state, s, x)[0]
        _, push = jax.linearize(step, to_vector(state, 1))
        moved = jax.vmap(push)(jnp.moveaxis(Q, 2, 0))
        Q, R = jax.vmap(one_by_one(jnp.linalg.qr))(jnp.moveaxis(moved, 0, 2))
        return Q, jnp.diagonal(R, axis1=1, axis2=2)

    Q = orthonormal(like.shape[1], count, like.dtype)
    Q = jnp.broadcast_to(Q[None], (like.shape[0], *Q.shape))
    grown = jnp.log(jnp.abs(lax.scan(one_step, Q, (before, xs))[1][align:]))
    # Over a short run QR does not yet bring them into order.
    return -jnp.sort(-jnp.mean(grown, axis=0), axis=-1)
