"""What gated cells with packed kernels share: their affine maps, and their initial values."""

from collections.abc import Sequence
from typing import Any, ClassVar, cast

import jax
import jax.numpy as jnp
from jaxtyping import Array

from seqjax import checks
from seqjax.cell import GatedCell, P, Params, S, State
from seqjax.fields import check_fields
from seqjax.initializers import Chrono, Initializer, draw_gates
from seqjax.numerics import affine, compute_dtype, state_dtype

Rule = Initializer | str | float


class PackedCell(GatedCell[P, S]):
    """z_t = x_t W + b
    r_t = h_{t-1} U
    y_t = h_t

    A gated cell whose params have the fields input_kernel (W), recurrent_kernel (U) and bias (b), each
    packed gate by gate along the last axis, and whose state is a NamedTuple of [*batch, features],
    zero at first, one of them h. A leaf adds `state_type`, `init` and `gate`.
    """

    state_type: ClassVar[type[tuple[Any, ...]]]
    param_dtype: Any
    dtype: Any

    def __post_init__(self) -> None:
        """Validate hyperparameters."""
        check_fields(self)

    def initial_state(
        self, params: P, batch_shape: tuple[int, ...] = (), *, key: Array | None = None
    ) -> S:
        """Return a state of zeros."""
        fields = getattr(self.state_type, "_fields")  # noqa: B009 - a NamedTuple, for the type checker
        zeros = lambda: jnp.zeros((*batch_shape, self.features), state_dtype(self))
        return cast(S, self.state_type(*(zeros() for _ in fields)))

    def project(self, params: Params, x: Array) -> Array:
        """W x_t + b, for all gates."""
        name = f"{type(self).__name__}: x"
        return affine(name, x, params.input_kernel, params.bias, compute_dtype(self))

    def recurrent_input(self, state: State) -> Array:
        """h_{t-1}."""
        return state.h

    def recurrent_kernel(self, params: Params) -> Array:
        """U."""
        return params.recurrent_kernel.astype(compute_dtype(self))

    def emit(self, state: State) -> Array:
        """y_t = h_t."""
        return state.h.astype(compute_dtype(self))


def draw_kernels(
    cell: Any, key: Array, in_features: int, biases: Sequence[Rule], rows: int | None = None
) -> tuple[Array, Array, Array]:
    """W [in_features, gates · features], U [rows, gates · features] and b, a gate for each bias.

    cell: with the fields features, input_init, recurrent_init and param_dtype.
    rows: how many entries U multiplies; None is `features`.
    """
    checks.size(f"{type(cell).__name__}: in_features", in_features)
    input_key, recurrent_key, bias_key = jax.random.split(key, 3)
    gates, size, dtype = len(biases), cell.features, cell.param_dtype
    return (
        draw_gates((cell.input_init,) * gates, input_key, (in_features, size), dtype),
        draw_gates((cell.recurrent_init,) * gates, recurrent_key, (rows or size, size), dtype),
        draw_gates(biases, bias_key, (size,), dtype),
    )


def oppose_input_gate(forget_bias: Rule, bias: Array, gates: int = 4) -> Array:
    """b_i = -b_f where the forget gate's bias is `Chrono`: what is kept long is written slowly.

    bias: packed i, f, …. With any other rule it is returned as it came.
    Reference: Tallec, Ollivier 2018, equation 16.
    """
    if not isinstance(forget_bias, Chrono):
        return bias
    blocks = jnp.split(bias, gates)
    return jnp.concatenate([-blocks[1], *blocks[1:]])
