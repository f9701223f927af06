"""The width of the inputs that params were made for."""

from typing import Any

import jax
import jax.numpy as jnp

from seqjax.cell import Cell, Params, State
from seqjax.real_vector import to_vector


def input_of(name: str, cell: Cell, params: Params, state: State) -> jax.ShapeDtypeStruct:
    """The shape of one row of the x that goes with these params: [in_features].

    An online rule is set up before it sees an input. Nothing is computed: of the sizes that the params
    have, it is the one for which `cell.init` gives such params and with which `cell.step` can be
    traced. Raises a ValueError where none is.
    """
    params = jax.eval_shape(lambda: params)
    dtype = jax.eval_shape(to_vector, params).dtype
    sizes = {size for leaf in jax.tree.leaves(params) for size in leaf.shape}
    for size in sorted(sizes | {0, 1, int(cell.features), int(cell.out_features)}):
        x = jax.ShapeDtypeStruct((size,), dtype)
        if _gives(cell, size, params) and _takes(cell, params, state, x):
            return x
    raise ValueError(
        f"{name}: params.cell has leaves of shape {[leaf.shape for leaf in jax.tree.leaves(params)]}; "
        f"expected those that {cell!r}.init(key, in_features) gives"
    )


def _gives(cell: Cell, in_features: int, params: Params) -> bool:
    """Whether params for inputs of that width have these shapes."""
    try:
        made = jax.eval_shape(lambda: cell.init(jax.random.key(0), in_features))
    except (jax.errors.JAXTypeError, NotImplementedError):
        return True  # a cell of one's own may draw in ways that cannot be traced; its step decides
    except Exception:  # whatever a cell raises for a width that it does not take
        return False
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(made)]
    return shapes == [leaf.shape for leaf in jax.tree.leaves(params)]


def _takes(cell: Cell, params: Params, state: State, x: Any) -> bool:
    """Whether the cell can take a step with such an input."""
    try:
        jax.eval_shape(cell.step, params, state, x)
    except Exception:  # as above
        return False
    return True
