"""Minimal gated unit: one gate that forgets, resets and renews."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from seqjax.cell import Cell, check_state
from seqjax.cells.packed import draw_kernels
from seqjax.fields import check_fields
from seqjax.gates import name_gate
from seqjax.initializers import Initializer
from seqjax.numerics import affine, compute_dtype, matmul, state_dtype


class MGUParams(NamedTuple):
    """W, U and b, packed in the order f, h̃."""

    input_kernel: Float[Array, "in_features 2*features"]
    recurrent_kernel: Float[Array, "features 2*features"]
    bias: Float[Array, " 2*features"]


class MGUState(NamedTuple):
    """The hidden state, at least float32."""

    h: Float[Array, "*batch features"]


@dataclasses.dataclass(frozen=True, repr=False)
class MGU(Cell[MGUParams, MGUState]):
    """f_t = σ(W_f x_t + U_f h_{t-1} + b_f)
    h̃_t = tanh(W_h x_t + U_h (f_t ⊙ h_{t-1}) + b_h)
    h_t = (1 - f_t) ⊙ h_{t-1} + f_t ⊙ h̃_t
    y_t = h_t

    Packed kernels: W [in_features, 2 · features], U [features, 2 · features], b [2 · features].
    It is a `ChoGRU` with r_t = f_t and z_t = 1 - f_t. The paper calls f the forget gate, and where it
    is *shut* the cell keeps: b_f starts at `forget_bias`, like the other where that is None; below 0
    the cell keeps longer, and `Chrono(T, negated=True)` spreads memories up to T steps.
    The `MGUCell` of Flax is another function, whose weights do not carry over: its gate multiplies after
    the recurrent matmul, and keeps where it is open.

    Raises a ValueError for features below 1 and for an unknown initialiser.
    Reference: Zhou, Wu, Zhang, Zhou 2016, "Minimal gated unit for recurrent neural networks".
    Choose it where a GRU is still too large: two thirds of its weights, and one gate to look at.
    """

    memory_path = "1 - f"
    longer_memory = "forget_bias=sj.initializers.Chrono({steps}, negated=True)"

    features: int
    input_init: Initializer | str = "glorot"
    recurrent_init: Initializer | str = "orthogonal"
    bias_init: Initializer | str = "zeros"
    param_dtype: DTypeLike = jnp.float32
    dtype: DTypeLike | None = None
    forget_bias: Initializer | float | None = None

    def __post_init__(self) -> None:
        """Validate hyperparameters."""
        check_fields(self)

    def init(self, key: Array, in_features: int) -> MGUParams:
        """W, U and b of f and of h̃, each by its own draw; b_f by `forget_bias`."""
        forget_bias = self.bias_init if self.forget_bias is None else self.forget_bias
        return MGUParams(*draw_kernels(self, key, in_features, (forget_bias, self.bias_init)))

    def initial_state(
        self, params: MGUParams, batch_shape: tuple[int, ...] = (), *, key: Array | None = None
    ) -> MGUState:
        """h_0 = 0."""
        return MGUState(h=jnp.zeros((*batch_shape, self.features), state_dtype(self)))

    def step(self, params: MGUParams, state: MGUState, x: Array) -> tuple[MGUState, Array]:
        """h_t, by one matmul for the gate and a second for the candidate."""
        check_state(self, params, state, x)
        dtype = compute_dtype(self)
        projected = affine("MGU: x", x, params.input_kernel, params.bias, dtype)
        input_f, input_h = jnp.split(projected, 2, axis=-1)
        gate_kernel, candidate_kernel = jnp.split(params.recurrent_kernel, 2, axis=1)
        forget = name_gate("f", jax.nn.sigmoid(input_f + matmul(state.h, gate_kernel, dtype)))
        name_gate("1 - f", 1 - forget, None)
        candidate = jnp.tanh(input_h + matmul(forget * state.h, candidate_kernel, dtype))
        name_gate("h̃", candidate, "tanh")
        state = MGUState((1 - forget) * state.h + forget * candidate)
        return state, self.output(params, state, x)

    def output(self, params: MGUParams, state: MGUState, x: Array) -> Array:
        """y_t = h_t."""
        return state.h.astype(compute_dtype(self))
