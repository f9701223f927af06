"""How large ∂s_t/∂s_k is, by lag: whether a gradient can come through at all."""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Key

from seqjax import checks
from seqjax._tree import to_vector
from seqjax.cell import Cell, Params, State
from seqjax.diagnostics.bounds import bound_of
from seqjax.diagnostics.norms import norm
from seqjax.diagnostics.trajectory import Trajectory, check_finite, evenly, step_vector, walk
from seqjax.numerics import one_by_one

FULL_STATE = 64
"""Entries of a row's state up to which the product of Jacobians is taken whole by default."""

PROBES = 16
"""How many rows of it are taken beyond that."""


class Jacobians(NamedTuple):
    """Norms of J_ℓ = ∂s_t/∂s_{t-ℓ} for one t, of the state as one real vector.

    lags: ℓ = 0, 1, …; J_0 is the identity. In a report on many steps some of them.
    frobenius: [lags, rows], √Σ J², for each row of the batch. By m probes of N entries its square is
        estimated without bias, with a relative standard error below √(2/m).
    spectral: [lags, rows], the largest singular value; by probes a lower bound of it.
    bound: [lags], (γ‖U‖)^ℓ, never below the largest singular value; None where there is none.
    end: t, as the number of the step that s_t comes out of, counted from 0 as in `xs[end]`.
    exact: the whole of J_ℓ was taken. probes: how many rows of it.
    """

    lags: np.ndarray
    frobenius: Float[Array, "lags rows"]
    spectral: Float[Array, "lags rows"]
    bound: Float[Array | np.ndarray, " lags"] | None
    end: int
    exact: bool
    probes: int


def jacobians(
    cell: Cell,
    params: Params,
    xs: ArrayLike,
    state: State = None,
    *,
    key: Key[Array, ""] | None = None,
    end: int | None = None,
    lags: int | None = None,
    probes: int | None = None,
    rows: int | None = None,
) -> Jacobians:
    """‖∂s_t/∂s_{t-ℓ}‖ = ‖D_t D_{t-1} ⋯ D_{t-ℓ+1}‖, D_j = ∂s_j/∂s_{j-1}, for ℓ = 0 … lags

    for each row of the batch, by reverse mode: from m orthonormal rows Q [m, N], Q ← Q D_j from j = t
    down. With m = N the rows are the identity and Q is the Jacobian itself. With fewer they are drawn at
    random, evenly among all directions: N/m · E‖Q J‖²_F = ‖J‖²_F, and σ_max(Q J) ≤ σ_max(J).

    xs, state, key: as in `sj.unroll`. The state counts as one real vector of N entries: clocks, masks
    and keys are left out, complex entries are two.
    end: the step that s_t comes out of, the last by default. lags: how far back, to the first state by
    default. probes: m, by default N up to 64 and 16 beyond. rows: at most so many rows of the batch.

    Raises a ValueError for a cell that is not causal, states that are not finite, an `end` that is no
    step, sizes below 1, and what `sj.unroll` refuses.

    >>> import jax, jax.numpy as jnp, seqjax as sj
    >>> cell = sj.IRNN(features=4, scale=0.5)
    >>> params = cell.init(jax.random.key(0), in_features=2)
    >>> state = sj.diagnostics.jacobians(cell, params, jnp.ones((3, 2)), jax.tree.map(
    ...     lambda h: h + 1, cell.initial_state(params)))
    >>> print(state.spectral[:, 0], state.bound)
    [1.    0.5   0.25  0.125] [1.    0.5   0.25  0.125]
    """
    for name, value in (("lags", lags), ("probes", probes), ("rows", rows)):
        if value is not None:
            checks.positive(f"jacobians: {name}", value)
    if end is not None:
        checks.size("jacobians: end", end)
    path = walk("jacobians", cell, params, xs, state, key)
    check_finite("jacobians", path)
    time = path.xs.shape[0]
    end = time - 1 if end is None else end
    if end >= time:
        raise ValueError(f"jacobians: end: expected a step below the {time} of xs, got {end}")
    path = path.take_rows(evenly(path.xs.shape[1], rows))
    return jacobians_of(cell, params, path, end, lags, probes)


def jacobians_of(
    cell: Cell,
    params: Params,
    path: Trajectory,
    end: int,
    lags: int | None = None,
    probes: int | None = None,
) -> Jacobians:
    """`jacobians` of a run that is there, over all its rows."""
    size = path.entries
    reach = end + 1 if lags is None else min(lags, end + 1)
    if probes is None:
        probes = size if size <= FULL_STATE else PROBES
    m = min(probes, size)
    steps = slice(end + 1 - reach, end + 1)
    before, xs = jax.tree.map(lambda a: a[steps], (path.before, path.xs))
    frobenius, spectral = _products(cell, params, path.start, before, xs, m)
    numbers = np.arange(reach + 1)
    simple = bound_of(cell, params, jnp.asarray(numbers, spectral.dtype))
    return Jacobians(numbers, frobenius, spectral, simple, end, m == size, m)


@functools.partial(jax.jit, static_argnames=("cell", "m"))
def _products(cell, params, start, before, xs, m):
    """The norms from lag 0 on, [lags, rows] each."""
    like = to_vector(start, 1)
    rows, size = like.shape
    measure = lambda Q: measured(jnp.moveaxis(Q, 0, 1))

    def one_step_back(Q, inputs):
        state, x = inputs
        _, pull = jax.vjp(lambda s: step_vector(cell, params, state, s, x)[0], to_vector(state, 1))
        (Q,) = jax.vmap(pull)(Q)
        return Q, measure(Q)

    Q = jnp.broadcast_to(orthonormal(size, m, like.dtype).T[:, None], (m, rows, size))
    _, norms = lax.scan(one_step_back, Q, (before, xs), reverse=True)
    return jax.tree.map(lambda a, b: jnp.concatenate([a[None], b[::-1]]), measure(Q), norms)


def measured(
    Q: Float[Array, "*which m size"],
) -> tuple[Float[Array, "*which"], Float[Array, "*which"]]:
    """√Σ J² and the largest singular value, of each Jacobian by m of its rows."""
    which, (m, size) = Q.shape[:-2], Q.shape[-2:]
    each = Q.reshape(-1, m, size)
    found = math.sqrt(size / max(m, 1)) * norm(each, (1, 2)), largest_singular_value(each)
    return jax.tree.map(lambda x: x.reshape(which), found)


def largest_singular_value(Q: Float[Array, "rows m size"]) -> Float[Array, " rows"]:
    """σ_max of each matrix: of m short rows the root of an eigenvalue of Q Qᵀ, which is far quicker."""
    size = norm(Q, (1, 2))  # taken out first, as the squares of what has vanished would be zero
    unit = Q / jnp.where(size > 0, size, 1)[:, None, None]
    gram = jnp.einsum("rik,rjk->rij", unit, unit)
    largest = jax.vmap(one_by_one(lambda gram: jnp.linalg.eigvalsh(gram)[-1]))(gram)
    return size * jnp.sqrt(jnp.maximum(largest, 0))


def orthonormal(size: int, columns: int, dtype) -> Float[Array, "size columns"]:
    """Orthonormal columns: the identity where they are all, else drawn evenly, with a fixed key."""
    if columns == size:
        return jnp.eye(size, dtype=dtype)
    return jax.random.orthogonal(jax.random.key(0), size, m=columns, dtype=dtype)
