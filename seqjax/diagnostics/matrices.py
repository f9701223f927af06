"""Singular values and spectral radius of the recurrent matrices, gate by gate."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from threadpoolctl import ThreadpoolController

from seqjax.cell import Cell, GatedCell, Params, as_gated, leaves
from seqjax.diagnostics.gate_counts import label
from seqjax.diagnostics.trajectory import check_params_alone, not_finite
from seqjax.gates import collect_gates
from seqjax.initializers import spectral_radius
from seqjax.numerics import accumulator

SQUARINGS = 22
"""Matrix products alone find a radius in a quarter of the time of an eigenvalue solver. With k = 2²² the
error is log κ / k, at most 4e-6 for eigenvectors whose condition κ float32 can represent."""

SMALL = 512
"""Rows of a matrix up to which the host finds its radius too, on one thread. NumPy's threads spin for a
while after they are done, and what XLA computes meanwhile takes half as long again."""


class Matrix(NamedTuple):
    """One recurrent matrix: that of one gate of one layer, and of one head where there are heads.

    name: "U", or "U of gate f" in a cell with several gates, "layers[1] U of gate f, head 2" in a stack.
        A gate that the cell does not name has its number in the packed order: "U of gate 0".
    singular_values: the largest first.
    radius: the largest |eigenvalue|; None if the matrix is not square.
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
    """Compute the singular values and the spectral radius of each recurrent matrix U.

    The radius tells whether U, applied again and again, grows or shrinks a vector; the largest singular
    value by how much one step may. Packed gates are split, since each gate's matrix meets the state on
    its own. A diagonal recurrence is one diagonal matrix for each gate. Cells without a recurrent matrix
    (`sj.MinGRU`, `sj.LRU`, a user-defined cell) have no entry; the decay of an LRU is |λ|.

    Raises:
        ValueError: params are not those of the cell, or a matrix is not finite.

    >>> import jax, seqjax as sj
    >>> cell = sj.Elman(features=8)
    >>> print(sj.diagnostics.spectrum(cell, cell.init(jax.random.key(0), in_features=2)))
    radius  largest σ  median σ  smallest σ  matrix
     1.000      1.000     1.000       1.000  U
    """
    check_params_alone("spectrum", cell, params)
    return spectrum_of("spectrum", cell, params)


def spectrum_of(name: str, cell: Cell, params: Params) -> Spectrum:
    """Compute `spectrum` of valid params; an error starts with `name`."""
    found = [
        (label(leaf.name, of_leaf), matrix)
        for leaf in leaves(cell, params)
        for of_leaf, matrix in _matrices(leaf.cell, leaf.params)
    ]
    if not all(np.all(np.isfinite(matrix)) for _, matrix in found):
        broken = " and ".join(not_finite("params", params))
        raise ValueError(f"{name}: {broken} is not finite; expected finite weights")
    small = all(max(matrix.shape) <= SMALL for _, matrix in found)
    with _blas().limit(limits=1 if small else None, user_api="blas"):
        return Spectrum(tuple(Matrix(n, _singular_values(m), _radius(m)) for n, m in found))


@functools.cache
def _blas() -> ThreadpoolController:
    """The libraries behind NumPy's linear algebra."""
    return ThreadpoolController()


def _radius(matrix: np.ndarray) -> float | None:
    """The largest |eigenvalue|, on the device if the matrix is large; None if it is not square."""
    if matrix.shape[0] != matrix.shape[1]:
        return None
    where = matrix if len(matrix) <= SMALL else jnp.asarray(matrix)
    return float(spectral_radius(where, SQUARINGS))


def _singular_values(matrix: np.ndarray) -> np.ndarray:
    """The singular values, the largest first.

    Those of float32 come from the eigenvalues of the smaller of A Aᵀ and Aᵀ A in float64, whose rounding
    error, 1e-8 of the largest, is below that of float32 itself; an SVD takes several times as long.
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
        letters = gate_letters(cell, params, gates)
        # A skip connection has its matrix below the other one.
        inputs = max(1, kernel.shape[0] // cell.features)
        return [
            (_name(letters[g], gates, i, inputs), block)
            for i, rows in enumerate(np.split(kernel, inputs))
            for g, block in enumerate(np.split(rows, gates, axis=1))
        ]
    heads, rows, gates, columns = kernel.shape
    letters = gate_letters(cell, params, gates)
    if rows == columns == 1:
        return [(f"u of gate {letters[g]}", np.diag(kernel[:, 0, g, 0])) for g in range(gates)]
    return [
        (f"U of gate {letters[g]}, head {h}", kernel[h, :, g])
        for g in range(gates)
        for h in range(heads)
    ]


def _name(letter: str, gates: int, source: int, sources: int) -> str:
    """Name the gate, and the state that it reads, where there are several."""
    of_gate = f" of gate {letter}" if gates > 1 else ""
    return f"U{of_gate}" + (f" from state {source}" if sources > 1 else "")


def gate_letters(cell: Cell, params: Params, gates: int) -> tuple[str, ...]:
    """Name the packed gates of a leaf cell by their letters, and by number where it names none.

    A gate is the first named activation that its block of the recurrent pre-activation r changes. A cell
    without `GatedCell.gate` has no r, so its gates have numbers.
    """
    if gates == 1 or not isinstance(cell, GatedCell):
        return tuple(str(g) for g in range(gates))
    arrays, structure = jax.tree.flatten(params)
    shapes = tuple((jnp.shape(array), jnp.result_type(array)) for array in arrays)
    return _letters(cell, gates, structure, shapes)


@functools.lru_cache(maxsize=256)  # the device may be busy, and the letters do not change
def _letters(cell: GatedCell, gates: int, structure: Any, shapes: Any) -> tuple[str, ...]:
    """Find the letters from params of zeros, given as structure, shapes and dtypes."""
    names: list[str] = []

    @jax.jit
    def changed() -> list[Array]:
        """Whether each block of r changes a named activation, [gates]; in the order of the names."""
        params = structure.unflatten([jnp.zeros(*shape) for shape in shapes])
        # All is zero in row 0, and row g + 1 differs from it in block g.
        blocks = np.repeat(np.eye(gates + 1, gates, -1), cell.features, axis=1)
        r = jnp.asarray(blocks, accumulator(cell.recurrent_kernel(params).dtype))
        state = cell.initial_state(params, (gates + 1,), key=jax.random.key(0))
        with collect_gates() as found, jax.disable_jit():  # as in `gates_of`
            state = jax.tree.map(jnp.ones_like, state)
            cell.gate(cell.gate_params(params), jnp.zeros_like(r), r, state)
        shown = {name: value for name, (value, kind) in found.items() if kind is not None}
        names.extend(shown)
        return [jnp.any(jnp.abs(v[1:] - v[:1]) > 0, axis=-1) for v in shown.values()]

    moved = jax.device_get(changed())
    first = lambda g: next((n for n, by in zip(names, moved, strict=True) if by[g]), str(g))
    return tuple(first(g) for g in range(gates))
