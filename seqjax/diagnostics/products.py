"""Norms of products of Jacobians, by lag, and the bound on them in a simple network."""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Key

from seqjax import checks
from seqjax._tree import to_vector
from seqjax.cell import Cell, Params, State, leaves
from seqjax.diagnostics.trajectory import (
    check_params_alone,
    check_sizes,
    finite_walk,
    step_vector,
)
from seqjax.numerics import accumulator, one_by_one

FULL_STATE = 64
"""Entries of a row's state up to which the whole product of Jacobians is computed by default."""

PROBES = 16
"""How many rows of it are computed beyond that."""


class Jacobians(NamedTuple):
    """Norms of J_ℓ = ∂s_t/∂s_{t-ℓ} for one t, with the state as one real vector.

    lags: ℓ = 0, 1, …; J_0 is the identity. A report on many steps holds some of them only.
    frobenius: [lags, rows], √Σ J², for each row of the batch. With m probes of N entries its square is
        an unbiased estimate, with a relative standard error below √(2/m).
    spectral: [lags, rows], the largest singular value; with probes a lower bound of it.
    bound: [lags], (γ‖U‖)^ℓ, never below the largest singular value; None where there is none.
    end: t, as the number of the step that returns s_t, counted from 0 as in `xs[end]`.
    exact: whether all rows of J_ℓ were computed. probes: how many.
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

    for each row of the batch, in reverse mode: start from m orthonormal rows Q [m, N] and compute
    Q ← Q D_j from j = t down. With m = N, Q starts as the identity and becomes the Jacobian itself. With
    fewer, the rows are drawn at random, uniformly among all directions: N/m · E‖Q J‖²_F = ‖J‖²_F, and
    σ_max(Q J) ≤ σ_max(J). The state is one real vector of N entries: clocks, masks and keys are left
    out, complex entries count twice.

    Args:
        cell: a causal cell.
        params: the params of the cell.
        xs: [time, *batch, in_features].
        state: the initial state, as in `sj.unroll`.
        key: draws the noise of the run, as in `sj.unroll`.
        end: the step that returns s_t; None is the last.
        lags: how far back to go; None is to the first state.
        probes: m; None is N up to 64 and 16 beyond.
        rows: at most so many rows of the batch; None is all.

    Raises:
        ValueError: the cell is not causal, a state is not finite, `end` is not a step, a size is below
            1, or `sj.unroll` raises for these arguments.

    >>> import jax, jax.numpy as jnp, seqjax as sj
    >>> cell = sj.IRNN(features=4, scale=0.5)
    >>> params = cell.init(jax.random.key(0), in_features=2)
    >>> state = sj.diagnostics.jacobians(cell, params, jnp.ones((3, 2)), jax.tree.map(
    ...     lambda h: h + 1, cell.initial_state(params)))
    >>> print(state.spectral[:, 0], state.bound)
    [1.    0.5   0.25  0.125] [1.    0.5   0.25  0.125]
    """
    check_sizes("jacobians", lags=lags, probes=probes)
    if end is not None:
        checks.size("jacobians: end", end)
    path = finite_walk("jacobians", cell, params, xs, state, key, rows)
    time, size = path.xs.shape[0], path.entries
    end = time - 1 if end is None else end
    if end >= time:
        raise ValueError(f"jacobians: end: expected a step below the {time} of xs, got {end}")
    reach = end + 1 if lags is None else min(lags, end + 1)
    if probes is None:
        probes = size if size <= FULL_STATE else PROBES
    m = min(probes, size)
    steps = slice(end + 1 - reach, end + 1)
    before, inputs = jax.tree.map(lambda a: a[steps], (path.before, path.xs))
    frobenius, spectral = _products(cell, params, path.start, before, inputs, m)
    numbers = np.arange(reach + 1)
    limit = bound_of(cell, params, jnp.asarray(numbers, spectral.dtype))
    return Jacobians(numbers, frobenius, spectral, limit, end, m == size, m)


@functools.partial(jax.jit, static_argnames=("cell", "m"))
def _products(cell, params, start, before, xs, m):
    """Both norms from lag 0 on, [lags, rows] each."""
    vector = to_vector(start, 1)
    measure = lambda Q: measured(jnp.moveaxis(Q, 0, 1))

    def one_step_back(Q, inputs):
        state, x = inputs
        _, pull = jax.vjp(lambda s: step_vector(cell, params, state, s, x)[0], to_vector(state, 1))
        (Q,) = jax.vmap(pull)(Q)
        return Q, measure(Q)

    Q = probe_rows(vector, m)
    _, norms = lax.scan(one_step_back, Q, (before, xs), reverse=True)
    return jax.tree.map(lambda a, b: jnp.concatenate([a[None], b[::-1]]), measure(Q), norms)


def probe_rows(vector: Float[Array, "rows size"], m: int) -> Float[Array, "m rows size"]:
    """Orthonormal rows, the same m for each row of the batch."""
    Q = orthonormal(vector.shape[1], m, vector.dtype).T
    return jnp.broadcast_to(Q[:, None], (m, *vector.shape))


def orthonormal(size: int, columns: int, dtype) -> Float[Array, "size columns"]:
    """Orthonormal columns: the identity, or fewer columns drawn uniformly with a fixed key."""
    if columns == size:
        return jnp.eye(size, dtype=dtype)
    return jax.random.orthogonal(jax.random.key(0), size, m=columns, dtype=dtype)


def measured(
    Q: Float[Array, "*which m size"],
) -> tuple[Float[Array, "*which"], Float[Array, "*which"]]:
    """√Σ J² and the largest singular value of each Jacobian, from m of its rows."""
    which, (m, size) = Q.shape[:-2], Q.shape[-2:]
    each = Q.reshape(-1, m, size)
    found = math.sqrt(size / max(m, 1)) * norm(each, (1, 2)), largest_singular_value(each)
    return jax.tree.map(lambda x: x.reshape(which), found)


def largest_singular_value(Q: Float[Array, "rows m size"]) -> Float[Array, " rows"]:
    """σ_max of each matrix, the root of an eigenvalue of Q Qᵀ: far faster than an SVD of few rows."""
    size = norm(Q, (1, 2))  # divided out first: the squares of vanishing entries would be zero
    unit = Q / jnp.where(size > 0, size, 1)[:, None, None]
    gram = jnp.einsum("rik,rjk->rij", unit, unit)
    largest = jax.vmap(one_by_one(lambda gram: jnp.linalg.eigvalsh(gram)[-1]))(gram)
    return size * jnp.sqrt(jnp.maximum(largest, 0))


def factor(cell: Cell, params: Params) -> Float[Array, ""] | None:
    """γ‖U‖, with ‖U‖ the largest singular value: no step multiplies a gradient by more.

    This follows from ∂s_t/∂s_{t-1} = diag(φ'(a_t)) Uᵀ, or Uᵀ diag(φ'(h_{t-1})) where the state is the
    pre-activation. With a leak α the factor is 1 - α + α γ‖U‖. γ = sup|φ'| is 1 for tanh, relu and
    identity and ¼ for the logistic function. Below 1 the gradient must vanish; above 1 it may explode,
    but need not.

    Returns:
        None for a cell without such a bound: any but `sj.Elman` (with `sj.IRNN`) and
        `sj.PreActivationRNN`, alone or in `sj.Dropout`, `sj.Residual` or `sj.LearnedState`. The product
        of the gates and the state of an LSTM has no bound that follows from its weights alone.

    Raises:
        ValueError: params are not those of the cell.

    Reference: Pascanu, Mikolov, Bengio 2013, section 2.1.

    >>> import jax, seqjax as sj
    >>> cell = sj.Elman(features=8, activation="sigmoid")  # U is orthogonal
    >>> print(f"{factor(cell, cell.init(jax.random.key(0), in_features=2)):.2f}")
    0.25
    """
    check_params_alone("factor", cell, params)
    return factor_of(cell, params)


def bound(cell: Cell, params: Params, lags: ArrayLike) -> Float[Array, " lags"] | None:
    """(γ‖U‖)^ℓ ≥ ‖∂s_t/∂s_{t-ℓ}‖ for each lag ℓ of `lags`, [lags]; None where `factor` is.

    Raises:
        ValueError: params are not those of the cell, or lags is not a row of real numbers.
    """
    check_params_alone("bound", cell, params)
    lags = checks.array("bound: lags", lags)
    if lags.ndim != 1 or jnp.issubdtype(lags.dtype, jnp.complexfloating):
        raise ValueError(f"bound: lags is {lags.dtype}{list(lags.shape)}; expected numbers, [lags]")
    return bound_of(cell, params, lags)


def factor_of(cell: Cell, params: Params, known: np.floating | None = None) -> Any:
    """Compute `factor` of valid params; `known` is ‖U‖ where NumPy has computed it."""
    found = leaves(cell, params)
    if len(found) != 1 or not found[0].plain or found[0].cell.jacobian_bound(1.0) is None:
        return None
    if known is None:
        U = found[0].params.recurrent_kernel
        return found[0].cell.jacobian_bound(jnp.linalg.norm(U.astype(accumulator(U.dtype)), ord=2))
    return found[0].cell.jacobian_bound(known)


def bound_of(
    cell: Cell, params: Params, lags: Array | np.ndarray, known: np.floating | None = None
) -> Any:
    """Compute `bound` of valid params; `known` as in `factor_of`."""
    base = factor_of(cell, params, known)
    with np.errstate(over="ignore", under="ignore"):  # as JAX does: ∞ and 0
        return None if base is None else base ** lags.astype(base.dtype)


def norm(x: Float[Array, "..."], axes: int | tuple[int, ...] | None = None) -> Array:
    """√Σ x² over `axes`, all of them by default, in at least float32.

    In float32, squares overflow from 2⁶⁴ on and vanish below 2⁻⁷⁵, which a gradient that explodes or
    vanishes soon reaches. Where the plain sum shows either, x is scaled by a power of two first.
    (Scaling by the largest entry is more usual, but finding it takes as long as all the rest.)

    Reference: Blue 1978, "A portable Fortran program to find the Euclidean norm of a vector".
    """
    x = x.astype(accumulator(x.dtype))
    squares = lambda x: jnp.sum(jnp.square(x), axis=axes, keepdims=True)
    scale = _scale(squares(x), x.size)
    # The compiler may draw a factor out of a sum of squares, and its own square overflows.
    scaled = lax.optimization_barrier(x * jnp.broadcast_to(scale, x.shape))
    return jnp.squeeze(jnp.sqrt(squares(scaled)) / scale, axes)


def norms(tree: Any) -> Float[Array, " leaves"]:
    """`norm` of each leaf, in the widest of their dtypes.

    Computed from inner products, which on a CPU are far faster than sums of squares.
    """
    parts = widened(tree)
    squares = dots(parts, parts)
    scale = _scale(squares, np.array([part.size for part in parts]))

    def again() -> Array:
        scaled = [part * jnp.broadcast_to(scale[i], part.shape) for i, part in enumerate(parts)]
        scaled = lax.optimization_barrier(scaled)  # as in `norm`
        return dots(scaled, scaled)

    # Read all numbers a second time only where it is needed.
    squares = lax.cond(jnp.all(scale == 1), lambda: squares, again)
    return jnp.sqrt(squares) / scale


def dots(a: list[Array], b: list[Array]) -> Float[Array, " leaves"]:
    """Σ a b over the entries of each pair."""
    return jnp.stack([jnp.vdot(x, y, precision="highest") for x, y in zip(a, b, strict=True)])


def widened(tree: Any) -> list[Array]:
    """The leaves in the widest of their dtypes, at least float32."""
    parts = jax.tree.leaves(tree)
    widest = max((accumulator(part.dtype) for part in parts), key=lambda dtype: dtype.itemsize)
    return [part.astype(widest) for part in parts]


def _scale(sums: Array, count: int | np.ndarray) -> Array:
    """The power of two to scale `count` numbers by whose squares have the sum `sums`."""
    numbers = jnp.finfo(sums.dtype)
    far = 2.0 ** (2 * numbers.maxexp // 3)
    # Above this the squares that have vanished, below `tiny` each, are less than one rounding.
    least = jnp.broadcast_to(jnp.asarray(count * float(numbers.tiny / numbers.eps)), sums.shape)
    scale = jnp.where(jnp.isfinite(sums), 1.0, 1 / far)
    return jnp.where(sums <= least.astype(sums.dtype), far, scale).astype(sums.dtype)
