"""Long short-term memory with one gate that forgets and admits: coupled input and forget gate."""

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from seqjax.cells.packed import PackedCell, draw_kernels
from seqjax.gates import name_gate, packed_gates
from seqjax.initializers import Initializer


class CIFGParams(NamedTuple):
    """W, U and b, packed in the order f, g, o."""

    input_kernel: Float[Array, "in_features 3*features"]
    recurrent_kernel: Float[Array, "features 3*features"]
    bias: Float[Array, " 3*features"]


class CIFGState(NamedTuple):
    """Hidden state and memory, at least float32."""

    h: Float[Array, "*batch features"]
    c: Float[Array, "*batch features"]


@dataclasses.dataclass(frozen=True, repr=False)
class CIFG(PackedCell[CIFGParams, CIFGState]):
    """f_t = σ(W_f x_t + U_f h_{t-1} + b_f)
    g_t = tanh(W_g x_t + U_g h_{t-1} + b_g)
    o_t = σ(W_o x_t + U_o h_{t-1} + b_o)
    c_t = f_t ⊙ c_{t-1} + (1 - f_t) ⊙ g_t
    h_t = o_t ⊙ tanh(c_t)
    y_t = h_t

    An LSTM whose input gate is i_t = 1 - f_t: what is forgotten is replaced, so |c_t| stays below 1
    where it starts below 1. Packed kernels: W [in_features, 3 · features], U [features, 3 · features],
    b [3 · features]. b_f starts at `forget_bias`, 1 by default; `Chrono(T)` spreads memories up to
    T steps, and needs no opposite bias, since 1 - σ(b) = σ(-b).

    Raises a ValueError for features below 1 and for an unknown initialiser.
    Reference: Greff, Srivastava, Koutník, Steunebrink, Schmidhuber 2017, "LSTM: a search space
    odyssey"; here without their peepholes.
    Choose it for the memory of an LSTM with three quarters of its weights, and where c must stay
    bounded.
    """

    state_type = CIFGState
    additive = True
    saves_gates = True
    memory_path = "f"
    longer_memory = "forget_bias=sj.initializers.Chrono({steps})"

    features: int
    forget_bias: Initializer | float = 1.0
    input_init: Initializer | str = "glorot"
    recurrent_init: Initializer | str = "orthogonal"
    bias_init: Initializer | str = "zeros"
    param_dtype: DTypeLike = jnp.float32
    dtype: DTypeLike | None = None

    def init(self, key: Array, in_features: int) -> CIFGParams:
        """Each gate's W, U and b by its own draw; b_f by `forget_bias`."""
        # Packed order f, g, o: that of the LSTM without its i.
        biases = (self.forget_bias, self.bias_init, self.bias_init)
        return CIFGParams(*draw_kernels(self, key, in_features, biases))

    def gate(
        self, gate_params: tuple[()], z: Array, r: Array, state: CIFGState
    ) -> tuple[CIFGState, Array]:
        """c_t and h_t from the packed pre-activations z_t + r_t."""
        f, g, o = packed_gates(z + r, f="sigmoid", g="tanh", o="sigmoid")
        c = f * state.c + (1 - f) * g
        h = o * name_gate("tanh(c)", jnp.tanh(c), "tanh")
        state = CIFGState(h, c)
        return state, self.emit(state)
