"""The leaf cells inside a cell, each with its own part of the params."""

import functools
from collections.abc import Iterator
from typing import NamedTuple

from seqjax.cell import Cell, Params
from seqjax.wrappers.bidirectional import Bidirectional
from seqjax.wrappers.dropout import Dropout
from seqjax.wrappers.gated import GatedWrapper
from seqjax.wrappers.glu import GLU
from seqjax.wrappers.learned_state import LearnedState
from seqjax.wrappers.residual import Residual
from seqjax.wrappers.stack import Stack


class Leaf(NamedTuple):
    """A cell that holds no other, where it stands, and its params.

    name: "layers[1].forward", or "" for a cell that stands alone or in wrappers around one cell.
    plain: nothing between the recurrence and the outside changes it: at most `sj.Dropout`,
        `sj.Residual`, `sj.GLU` and `sj.LearnedState` stand around it.
    """

    name: str
    cell: Cell
    params: Params
    plain: bool


def leaves(cell: Cell, params: Params) -> list[Leaf]:
    """All leaf cells, the first nearest to the input. What no rule below knows is a leaf."""
    return list(_inside(cell, params, "", True))


def label(name: str, what: str) -> str:
    """`what`, and of which layer it is, where there are several."""
    return f"{name} {what}" if name else what


@functools.singledispatch
def _inside(cell: Cell, params: Params, name: str, plain: bool) -> Iterator[Leaf]:
    yield Leaf(name.lstrip("."), cell, params, plain)


@_inside.register
def _(cell: Stack, params: Params, name: str, plain: bool) -> Iterator[Leaf]:
    for i, inner in enumerate(cell.cells):
        yield from _inside(inner, params.layers[i], f"{name}.layers[{i}]", plain)


@_inside.register
def _(cell: Bidirectional, params: Params, name: str, plain: bool) -> Iterator[Leaf]:
    yield from _inside(cell.forward, params.forward, f"{name}.forward", plain)
    yield from _inside(cell.backward, params.backward, f"{name}.backward", plain)


@_inside.register(Dropout)
@_inside.register(Residual)
def _(cell: Dropout | Residual, params: Params, name: str, plain: bool) -> Iterator[Leaf]:
    yield from _inside(cell.cell, params, name, plain)


@_inside.register(GLU)
@_inside.register(LearnedState)
def _(cell: GLU | LearnedState, params: Params, name: str, plain: bool) -> Iterator[Leaf]:
    yield from _inside(cell.cell, params.cell, name, plain)


@_inside.register
def _(cell: GatedWrapper, params: Params, name: str, plain: bool) -> Iterator[Leaf]:
    yield from _inside(cell.cell, cell.inner_params(params), name, False)
