"""Long short-term memory."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from seqjax import checks
from seqjax.arithmetic import accumulator, affine, compute_dtype
from seqjax.cell import GatedCell
from seqjax.initializers import (
    Constant,
    Initializer,
    check_initializer,
    draw_gates,
)


class LSTMParams(NamedTuple):
    """W, U and b, packed in the order i, f, g, o."""

    input_kernel: Float[Array, "in_features 4*features"]
    recurrent_kernel: Float[Array, "features 4*features"]
    bias: Float[Array, " 4*features"]


class LSTMState(NamedTuple):
    """Hidden state and memory, at least float32."""

    h: Float[Array, "*batch features"]
    c: Float[Array, "*batch features"]


@dataclasses.dataclass(frozen=True, repr=False)
class LSTM(GatedCell):
    """i_t = σ(W_i x_t + U_i h_{t-1} + b_i)
    f_t = σ(W_f x_t + U_f h_{t-1} + b_f)
    g_t = tanh(W_g x_t + U_g h_{t-1} + b_g)
    o_t = σ(W_o x_t + U_o h_{t-1} + b_o)
    c_t = f_t ⊙ c_{t-1} + i_t ⊙ g_t
    h_t = o_t ⊙ tanh(c_t)
    y_t = h_t

    Packed kernels: W [in_features, 4 · features], U [features, 4 · features], b [4 · features].
    b_f starts at `forget_bias`, 1 by default, in `init`: the step adds nothing.

    Raises a ValueError for features below 1 and for an unknown initialiser.
    References: Hochreiter, Schmidhuber 1997; the forget gate: Gers, Schmidhuber, Cummins 2000; its
    bias of 1: Jozefowicz, Zaremba, Sutskever 2015.
    """

    features: int
    forget_bias: float = 1.0
    input_init: Initializer | str = "glorot"
    recurrent_init: Initializer | str = "orthogonal"
    bias_init: Initializer | str = "zeros"
    param_dtype: DTypeLike = jnp.float32
    dtype: DTypeLike | None = None

    def __post_init__(self) -> None:
        """Refuse hyperparameters that make no cell."""
        checks.positive("LSTM: features", self.features)
        checks.floating("LSTM: param_dtype", self.param_dtype)
        checks.floating("LSTM: dtype", self.dtype)
        check_initializer("LSTM: input_init", self.input_init)
        check_initializer("LSTM: recurrent_init", self.recurrent_init)
        check_initializer("LSTM: bias_init", self.bias_init)

    def init(self, key: Array, in_features: int) -> LSTMParams:
        """Each gate's W, U and b by its own draw; b_f is `forget_bias`."""
        input_key, recurrent_key, bias_key = jax.random.split(key, 3)
        size, dtype = self.features, self.param_dtype
        bias = self.bias_init
        # Packed order i, f, g, o, as PyTorch has it, so that its weights import unpermuted.
        biases = (bias, Constant(self.forget_bias), bias, bias)
        return LSTMParams(
            input_kernel=draw_gates((self.input_init,) * 4, input_key, (in_features, size), dtype),
            recurrent_kernel=draw_gates(
                (self.recurrent_init,) * 4, recurrent_key, (size, size), dtype
            ),
            bias=draw_gates(biases, bias_key, (size,), dtype),
        )

    def initial_state(
        self, params: LSTMParams, batch_shape: tuple[int, ...] = (), *, key: Array | None = None
    ) -> LSTMState:
        """h_0 = c_0 = 0."""
        dtype = accumulator(compute_dtype(self.dtype, self.param_dtype))
        zeros = jnp.zeros((*batch_shape, self.features), dtype)
        return LSTMState(h=zeros, c=zeros)

    def project(self, params: LSTMParams, x: Array) -> Array:
        """z_t = W x_t + b."""
        dtype = compute_dtype(self.dtype, self.param_dtype)
        return affine("LSTM: x", x, params.input_kernel, params.bias, dtype)

    def recurrent_input(self, state: LSTMState) -> Array:
        """h_{t-1}."""
        return state.h

    def recurrent_kernel(self, params: LSTMParams) -> Array:
        """U."""
        return params.recurrent_kernel.astype(compute_dtype(self.dtype, self.param_dtype))

    def gate(
        self, gate_params: tuple[()], z: Array, r: Array, state: LSTMState
    ) -> tuple[LSTMState, Array]:
        """c_t and h_t from the packed pre-activations z_t + r_t."""
        i, f, g, o = jnp.split(z + r, 4, axis=-1)
        i, f, g, o = jax.nn.sigmoid(i), jax.nn.sigmoid(f), jnp.tanh(g), jax.nn.sigmoid(o)
        c = f * state.c + i * g
        h = o * jnp.tanh(c)
        return LSTMState(h, c), h.astype(compute_dtype(self.dtype, self.param_dtype))
