"""What all diagnostics refuse, in sentences that begin with the function that was called."""

import jax
import jax.numpy as jnp

from seqjax.cell import Cell, Params
from seqjax.engines.validate import check_cell, named, params_of


def check_alone(name: str, cell: Cell, params: Params) -> None:
    """The params are those of this cell, for inputs as wide as one of the sizes that they have."""
    with named(name):
        check_cell(cell)
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(params)]
    for width in dict.fromkeys([size for shape in shapes for size in shape] + [1]):
        try:
            made = params_of(cell, width)
        except Exception:  # whatever a cell raises for a width that it does not take
            continue
        alike = jax.tree.structure(made) == jax.tree.structure(params)
        if alike and [leaf.shape for leaf in jax.tree.leaves(made)] == shapes:
            return
    raise ValueError(
        f"{name}: params is {type(params).__name__} of shapes {shapes}; "
        f"expected what {cell!r}.init(key, in_features) gives"
    )
