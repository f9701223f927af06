"""What online rules refuse, at one door, before anything is computed."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from seqjax import checks
from seqjax.cell import Cell, State
from seqjax.engines import validate
from seqjax.gradients.online_rule import Online, OnlineParams, OnlineStep
from seqjax.gradients.width import check_width, input_of


def check_rule(name: str, cell: Any, step_loss: Any, signal: Any = None) -> None:
    """A cell that has a step, and functions for loss and signal."""
    checks.instance(f"{name}: cell", cell, Cell)
    with validate.named(name):
        validate.check_cell(cell)
    if not cell.causal:
        raise ValueError(
            f"{name}: cell is {cell!r}, whose y_t needs inputs after t; expected one with a step: "
            "online rules serve every causal cell, and sj.bptt this one"
        )
    checks.function(f"{name}: step_loss", step_loss)
    if signal is not None:
        checks.function(f"{name}: signal", signal)


def checked(
    name: str, cell: Cell, begin: Callable[..., Any], update: Callable[..., OnlineStep]
) -> Online:
    """A rule whose `init` and `update` refuse arguments that are not those of this cell.

    begin: `begin(params, batch_shape, x, state, key)`, the online state; x is the form of one row.
    update: as in `Online`. What it is given fits together: x is an array.
    """

    def init(
        params: OnlineParams,
        batch_shape: tuple[int, ...] = (),
        *,
        state: State = None,
        key: Array | None = None,
    ) -> Any:
        check_params(name, params)
        batch_shape = checks.shape(f"{name}: batch_shape", batch_shape)
        key = typed_key(name, key)
        x = input_of(name, cell, params.cell)

        def start(params: Any, x: Array) -> State:
            state = cell.initial_state(params, batch_shape, key=jax.random.key(0))
            with validate.named(name):
                validate.check_batch(cell, state, batch_shape)
                validate.check_step(cell, params, state, x[None])
            return state

        xs = jax.ShapeDtypeStruct((*batch_shape, *x.shape), x.dtype)
        expected = jax.eval_shape(start, params.cell, xs)
        if state is not None:
            source = f"{cell!r}.initial_state(params, {batch_shape})"
            checks.same_tree(f"{name}: state", state, expected, source)
        return begin(params, batch_shape, x, state, key)

    def checked_update(
        params: OnlineParams,
        online_state: Any,
        x: Array,
        target: Any,
        *,
        reset: Array | None = None,
    ) -> OnlineStep:
        check_params(name, params)
        x = checks.array(f"{name}: x", x)
        check_width(name, cell, params.cell, x)
        if not jnp.issubdtype(x.dtype, jnp.floating):
            raise ValueError(
                f"{name}: x is {x.dtype}; expected floating point: embed token ids beforehand"
            )
        batch_shape, row = x.shape[:-1], jax.ShapeDtypeStruct(x.shape[-1:], x.dtype)
        expected = jax.eval_shape(
            lambda params: begin(params, batch_shape, row, None, jax.random.key(0)), params
        )
        source = f"init(params, {batch_shape}), for x of shape {x.shape},"
        # Dtypes are the caller's affair: a narrow influence saves memory, and stays narrow.
        checks.same_tree(f"{name}: online_state", online_state, expected, source, dtypes=False)
        if reset is not None:
            reset = checks.array(f"{name}: reset", reset)
            check_reset(f"{name}: reset", reset, batch_shape, "one for each row of the batch")
        return update(params, online_state, x, target, reset=reset)

    return Online(init, checked_update)


def typed_key(name: str, key: Any) -> Array | None:
    """One form of key, and so of what states hold, whichever form of key is given."""
    checks.key(f"{name}: key", key)
    if key is None or jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        return key
    return jax.random.wrap_key_data(key)


def check_params(name: str, params: Any) -> None:
    """Params of the cell and of the loss, all of which can be differentiated."""
    if not isinstance(params, OnlineParams):
        raise ValueError(
            f"{name}: params is a {type(params).__name__}; "
            "expected sj.OnlineParams(cell, head), with the params of the cell and those of the loss"
        )
    checks.differentiable(f"{name}: params", params)


def check_reset(name: str, reset: Array, shape: tuple[int, ...], meaning: str) -> None:
    """A bool for each row: of another shape it would cut the state along one axis and its past along
    another.
    """
    if reset.shape != shape or reset.dtype != jnp.bool_:
        raise ValueError(
            f"{name} is {reset.dtype}{list(reset.shape)}; expected bool{list(shape)}, {meaning}"
        )
