"""Table of the parameters of a cell or model."""

import math
from typing import NamedTuple

import jax

from seqjax.cell import Cell, Params


class ParameterRow(NamedTuple):
    """Path, shape, dtype and number of entries of one array."""

    path: str
    shape: tuple[int, ...]
    dtype: str
    size: int


class Summary(NamedTuple):
    """The parameters of a cell or model; prints as a table."""

    name: str
    rows: tuple[ParameterRow, ...]

    @property
    def size(self) -> int:
        """The number of parameters."""
        return sum(row.size for row in self.rows)

    @property
    def bytes(self) -> int:
        """Their memory in bytes."""
        return sum(row.size * jax.numpy.dtype(row.dtype).itemsize for row in self.rows)

    def __str__(self) -> str:
        """One line per array, and the total."""
        cells = [
            (row.path, "×".join(map(str, row.shape)) or "scalar", row.dtype, f"{row.size:,}")
            for row in self.rows
        ]
        cells = [("parameter", "shape", "dtype", "size"), *cells]
        cells.append(("total", "", f"{self.bytes:,} bytes", f"{self.size:,}"))
        widths = [max(len(row[i]) for row in cells) for i in range(4)]
        lines = [
            f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c:<{widths[2]}}  {d:>{widths[3]}}"
            for a, b, c, d in cells
        ]
        rule = "─" * len(lines[0])
        return "\n".join([self.name, lines[0], rule, *lines[1:-1], rule, lines[-1]])


def summary(cell: Cell | object, params: Params) -> Summary:
    """Tabulate the parameters of a cell or model: path, shape, dtype and size of each array.

    `params` may be shapes: `sj.summary(cell, jax.eval_shape(lambda: cell.init(key, 64)))`.

    >>> import jax, seqjax as sj
    >>> cell = sj.GRU(features=8)
    >>> sj.summary(cell, cell.init(jax.random.key(0), in_features=4)).size
    320
    """
    rows = tuple(
        ParameterRow(
            jax.tree_util.keystr(path).lstrip("."),
            tuple(leaf.shape),
            str(leaf.dtype),
            math.prod(leaf.shape),
        )
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    )
    return Summary(repr(cell), rows)
