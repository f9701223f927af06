"""Singular values and spectral radius of the recurrent matrices, gate by gate."""

import functools
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from threadpoolctl import ThreadpoolController

from seqjax.cell import Cell, Params, as_gated, leaves
from seqjax.diagnostics.gate_counts import label
from seqjax.diagnostics.refusals import check_alone
from seqjax.diagnostics.trajectory import not_finite
from seqjax.initializers import spectral_radius
from seqjax.numerics import accumulator

SQUARINGS = 22
"""Products of matrices alone find a radius in a quarter of what a solver of eigenvalues takes. The error
with k = 2²² is log κ / k, at most 4e-6 of eigenvectors whose condition κ float32 can tell."""

SMALL = 512
"""Rows of a matrix up to which the host finds its radius too, and one thread does all of it. NumPy's
threads, having done, turn for a while, in wait for more, and what XLA computes beside them takes half as
long again."""


class Matrix(NamedTuple):
    """One recurrent matrix: that of one gate of one layer, and of one head where there are heads.

    name: "U", "U of gate 0" in the packed order of the cell, "layers[1] U of gate 0, head 2".
    singular_values: the largest first.
    radius: the largest |eigenvalue|; None where the matrix is not square.
    """

    name: str
    singular_values: np.ndarray
    radius: float | None


class Spectrum(NamedTuple):
    """The recurrent matrices of a cell; prints as a table."""

    matrices: tuple[Matrix, ...]

    def __str__(self) -> str:
        """One line for each matrix."""
        lines = ["radius  largest σ  median σ  smallest σ  matrix"]
        for matrix in self.matrices:
            s = matrix.singular_values
            radius = "     –" if matrix.radius is None else f"{matrix.radius:6.3f}"
            lines.append(
                f"{radius}  {s[0]:9.3f}  {np.median(s):8.3f}  {s[-1]:10.3f}  {matrix.name}"
            )
        return "\n".join(lines)


def spectrum(cell: Cell, params: Params) -> Spectrum:
    """The singular values and the spectral radius of each U.

    The radius says whether U alone, again and again, grows or shrinks what it multiplies; the largest
    singular value by how much one step may. Packed gates are taken apart, since it is one gate's matrix
    that meets the state. A diagonal recurrence is one diagonal matrix for each gate. Cells without a
    recurrent matrix (`sj.MinGRU`, `sj.LRU`, a user's own) have no entry; of an LRU |λ| is the decay.

    Raises a ValueError for params of another cell, and for a matrix that is not finite.

    >>> import jax, seqjax as sj
    >>> cell = sj.Elman(features=8)
    >>> print(sj.diagnostics.spectrum(cell, cell.init(jax.random.key(0), in_features=2)))
    radius  largest σ  median σ  smallest σ  matrix
     1.000      1.000     1.000       1.000  U
    """
    check_alone("spectrum", cell, params)
    return spectrum_of("spectrum", cell, params)


def spectrum_of(name: str, cell: Cell, params: Params) -> Spectrum:
    """`spectrum` of params that are those of the cell; a refusal begins with `name`."""
    named = [
        (label(leaf.name, of_leaf), matrix)
        for leaf in leaves(cell, params)
        for of_leaf, matrix in _matrices(leaf.cell, leaf.params)
    ]
    if not all(np.all(np.isfinite(matrix)) for _, matrix in named):
        broken = " and ".join(not_finite("params", params))
        raise ValueError(f"{name}: {broken} is not finite; expected finite weights")
    small = all(max(matrix.shape) <= SMALL for _, matrix in named)
    with _blas().limit(limits=1 if small else None, user_api="blas"):
        return Spectrum(tuple(Matrix(n, _singular_values(m), _radius(m)) for n, m in named))


@functools.cache
def _blas() -> ThreadpoolController:
    """The libraries behind NumPy's linear algebra."""
    return ThreadpoolController()


def _radius(matrix: np.ndarray) -> float | None:
    """The largest |eigenvalue|; None where the matrix is not square. Large ones are for the device."""
    if matrix.shape[0] != matrix.shape[1]:
        return None
    where = matrix if len(matrix) <= SMALL else jnp.asarray(matrix)
    return float(spectral_radius(where, SQUARINGS))


def _singular_values(matrix: np.ndarray) -> np.ndarray:
    """The largest first.

    Of float32, by eigenvalues of the smaller of A Aᵀ and Aᵀ A in float64, whose rounding, 1e-8 of the
    largest, is below what float32 itself leaves; the decomposition takes several times as long.
    """
    if matrix.dtype != np.float32:
        return np.linalg.svd(matrix, compute_uv=False)
    wide = matrix.astype(np.float64)
    squares = np.linalg.eigvalsh(wide @ wide.T if len(wide) < len(wide.T) else wide.T @ wide)
    return np.sqrt(np.maximum(squares[::-1], 0)).astype(matrix.dtype)


def _matrices(cell: Cell, params: Params) -> list[tuple[str, np.ndarray]]:
    """The recurrent matrices of a leaf cell, each with its name."""
    gated = as_gated(cell)
    kernel: Any = None
    if gated is not None:
        kernel = gated.recurrent_kernel(params)
    elif hasattr(params, "recurrent_kernel"):  # ChoGRU, MGU, a projected LSTM: packed as the others
        kernel = params.recurrent_kernel
    if kernel is None:
        return []
    kernel = np.asarray(kernel).astype(accumulator(kernel.dtype))
    if kernel.ndim == 2:
        gates = kernel.shape[1] // cell.features
        # A skip connection has its matrix below the other one.
        inputs = max(1, kernel.shape[0] // cell.features)
        return [
            (_name(g, gates, i, inputs), block)
            for i, rows in enumerate(np.split(kernel, inputs))
            for g, block in enumerate(np.split(rows, gates, axis=1))
        ]
    heads, rows, gates, columns = kernel.shape
    if rows == columns == 1:
        return [(f"u of gate {g}", np.diag(kernel[:, 0, g, 0])) for g in range(gates)]
    return [
        (f"U of gate {g}, head {h}", kernel[h, :, g]) for g in range(gates) for h in range(heads)
    ]


def _name(gate: int, gates: int, source: int, sources: int) -> str:
    """Which gate, and which of the states it reads, where there are several."""
    of_gate = f" of gate {gate}" if gates > 1 else ""
    return f"U{of_gate}" + (f" from state {source}" if sources > 1 else "")
