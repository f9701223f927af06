"""The width of the inputs that params were made for."""

import math

import jax
import jax.numpy as jnp

from seqjax import checks
from seqjax._tree import to_vector
from seqjax.cell import Cell, Params
from seqjax.engines.validate import params_of


def input_of(name: str, cell: Cell, params: Params) -> jax.ShapeDtypeStruct:
    """The shape of one row of the x that goes with these params: [in_features].

    An online rule is set up before it sees an input. Nothing is computed: of the sizes that the params
    have, and the one that follows from their number, it is the one for which `cell.init` gives such
    params and, where several do, with which `cell.step` can be traced. Raises a ValueError where none
    is.
    """
    dtype = jax.eval_shape(to_vector, params).dtype
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(params)]
    sizes = {size for shape in shapes for size in shape}
    sizes |= {0, 1, int(cell.features), int(cell.out_features), _by_count(cell, params)}
    widths = [size for size in sorted(sizes) if _gives(cell, size, params)]
    if not widths:
        raise ValueError(
            f"{name}: params.cell is {type(params).__name__} of shapes {shapes}; "
            f"expected what {cell!r}.init(key, in_features) gives"
        )
    # The last is not tried: a step that can be traced with none says by itself what is wrong with it.
    takes = (
        size for size in widths[:-1] if _takes(cell, params, jax.ShapeDtypeStruct((size,), dtype))
    )
    return jax.ShapeDtypeStruct((next(takes, widths[-1]),), dtype)


def check_width(name: str, cell: Cell, params: Params, x: jax.Array) -> None:
    """x, [*batch, in_features], is as wide as the params were made for."""
    if x.ndim == 0 or not _gives(cell, x.shape[-1], params):
        checks.trailing(f"{name}: x", x, input_of(name, cell, params).shape[0])


def _by_count(cell: Cell, params: Params) -> int:
    """The width for which a cell has so many params, if each feature of the input takes as many more."""
    count = lambda tree: sum(math.prod(jnp.shape(leaf)) for leaf in jax.tree.leaves(tree))
    try:
        one, two = (count(params_of(cell, width)) for width in (1, 2))
    except Exception:  # whatever a cell raises for a width that it does not take
        return 0
    return max(0, 1 + (count(params) - one) // max(1, two - one))


def _gives(cell: Cell, in_features: int, params: Params) -> bool:
    """Whether params for inputs of that width have this form."""
    try:
        made = params_of(cell, in_features)
    except Exception:  # as above
        return False
    shapes = lambda tree: [jnp.shape(leaf) for leaf in jax.tree.leaves(tree)]
    return jax.tree.structure(made) == jax.tree.structure(params) and shapes(made) == shapes(params)


def _takes(cell: Cell, params: Params, x: jax.ShapeDtypeStruct) -> bool:
    """Whether the cell can take a step with such an input."""

    def step(params: Params, x: jax.Array) -> None:
        cell.step(params, cell.initial_state(params, (), key=jax.random.key(0)), x)

    try:
        jax.eval_shape(step, params, x)
    except Exception:  # as above
        return False
    return True
