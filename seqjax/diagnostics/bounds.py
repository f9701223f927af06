"""The bound on how fast a gradient can grow, and must vanish, in a simple network."""

import functools
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from seqjax import checks
from seqjax.gates import Activation
from seqjax.numerics import accumulator
from seqjax.cell import Cell, Params
from seqjax.cells.elman import Elman, PreActivationRNN
from seqjax.diagnostics.layers import leaves
from seqjax.diagnostics.refusals import check_alone

STEEPEST: dict[Activation, float] = {"tanh": 1.0, "sigmoid": 0.25, "relu": 1.0, "identity": 1.0}
"""γ = sup |φ'|."""


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
    steepness = _steepness(found[0].cell) if len(found) == 1 and found[0].plain else None
    if steepness is None:
        return None
    U = found[0].params.recurrent_kernel
    known = _spectral_norm(U) if norm is None else norm
    leak, steepest = steepness
    return 1 - leak + leak * steepest * known


def bound_of(
    cell: Cell, params: Params, lags: Array | np.ndarray, norm: np.floating | None = None
) -> Any:
    """`bound` of params that are those of the cell; `norm` as in `factor_of`."""
    base = factor_of(cell, params, norm)
    with np.errstate(over="ignore", under="ignore"):  # as of JAX: ∞ and 0
        return None if base is None else base ** lags.astype(base.dtype)


@functools.singledispatch
def _steepness(cell: Cell) -> tuple[float, float] | None:
    """The leak, 1 where there is none, and γ, of a cell that has such a bound."""
    return None


@_steepness.register
def _(cell: Elman) -> tuple[float, float]:
    return float(cell.leak), STEEPEST[cell.activation]


@_steepness.register
def _(cell: PreActivationRNN) -> tuple[float, float]:
    return 1.0, STEEPEST[cell.activation]


def _spectral_norm(matrix: Array) -> Float[Array, ""]:
    """The largest singular value, in at least float32."""
    return jnp.linalg.norm(matrix.astype(accumulator(matrix.dtype)), ord=2)
