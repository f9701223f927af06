"""The bound on how fast a gradient can grow, and must vanish, in a simple network."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from seqjax import checks
from seqjax.cell import Cell, Params, leaves
from seqjax.diagnostics.refusals import check_alone
from seqjax.numerics import accumulator


def factor(cell: Cell, params: Params) -> Float[Array, ""] | None:
    """γ‖U‖, with ‖U‖ the largest singular value: a step multiplies no gradient by more.

    As ∂s_t/∂s_{t-1} = diag(φ'(a_t)) Uᵀ, and Wᵀ diag(φ'(h_{t-1})) where the state is the pre-activation.
    With a leak α it is 1 - α + α γ‖U‖.
    γ = sup|φ'| is 1 for tanh, relu and identity and ¼ for the logistic function. Below 1 the gradient
    must vanish; above 1 it may explode, but need not.

    None for a cell that has no such simple bound: any but `sj.Elman` (with `sj.IRNN`) and
    `sj.PreActivationRNN`, alone or in `sj.Dropout`, `sj.Residual` or `sj.LearnedState`. The product of
    the gates and the state of an LSTM has none that its weights alone would give.

    Raises a ValueError for params of another cell.
    Reference: Pascanu, Mikolov, Bengio 2013, section 2.1.

    >>> import jax, seqjax as sj
    >>> cell = sj.Elman(features=8, activation="sigmoid")  # U is orthogonal
    >>> print(f"{factor(cell, cell.init(jax.random.key(0), in_features=2)):.2f}")
    0.25
    """
    check_alone("factor", cell, params)
    return factor_of(cell, params)


def bound(cell: Cell, params: Params, lags: ArrayLike) -> Float[Array, " lags"] | None:
    """(γ‖U‖)^ℓ ≥ ‖∂s_t/∂s_{t-ℓ}‖ for each lag ℓ of `lags`, [lags]; None where `factor` is.

    Raises a ValueError for params of another cell, and lags that are no row of real numbers.
    """
    check_alone("bound", cell, params)
    lags = checks.array("bound: lags", lags)
    if lags.ndim != 1 or jnp.issubdtype(lags.dtype, jnp.complexfloating):
        raise ValueError(f"bound: lags is {lags.dtype}{list(lags.shape)}; expected numbers, [lags]")
    return bound_of(cell, params, lags)


def factor_of(cell: Cell, params: Params, norm: np.floating | None = None) -> Any:
    """`factor` of params that are those of the cell; `norm` is ‖U‖ where that is known, of NumPy."""
    found = leaves(cell, params)
    if len(found) != 1 or not found[0].plain or found[0].cell.jacobian_bound(1.0) is None:
        return None
    known = _spectral_norm(found[0].params.recurrent_kernel) if norm is None else norm
    return found[0].cell.jacobian_bound(known)


def bound_of(
    cell: Cell, params: Params, lags: Array | np.ndarray, norm: np.floating | None = None
) -> Any:
    """`bound` of params that are those of the cell; `norm` as in `factor_of`."""
    base = factor_of(cell, params, norm)
    with np.errstate(over="ignore", under="ignore"):  # as of JAX: ∞ and 0
        return None if base is None else base ** lags.astype(base.dtype)


def _spectral_norm(matrix: Array) -> Float[Array, ""]:
    """The largest singular value, in at least float32."""
    return jnp.linalg.norm(matrix.astype(accumulator(matrix.dtype)), ord=2)
