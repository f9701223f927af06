"""Long short-term memory whose gates see the memory itself, through peepholes."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from seqjax.cells.packed import PackedCell, draw_kernels, oppose_input_gate
from seqjax.gates import name_gate
from seqjax.initializers import Initializer, Normal, draw_gates

SMALL = Normal(0.1)
"""How all weights of Greff et al. 2017 start."""


class PeepholeLSTMParams(NamedTuple):
    """W, U and b, packed in the order i, f, g, o, and the peepholes p, packed i, f, o."""

    input_kernel: Float[Array, "in_features 4*features"]
    recurrent_kernel: Float[Array, "features 4*features"]
    bias: Float[Array, " 4*features"]
    peephole: Float[Array, " 3*features"]


class PeepholeLSTMState(NamedTuple):
    """Hidden state and memory, at least float32."""

    h: Float[Array, "*batch features"]
    c: Float[Array, "*batch features"]


@dataclasses.dataclass(frozen=True, repr=False)
class PeepholeLSTM(PackedCell[PeepholeLSTMParams, PeepholeLSTMState]):
    """i_t = σ(W_i x_t + U_i h_{t-1} + p_i ⊙ c_{t-1} + b_i)
    f_t = σ(W_f x_t + U_f h_{t-1} + p_f ⊙ c_{t-1} + b_f)
    g_t = tanh(W_g x_t + U_g h_{t-1} + b_g)
    c_t = f_t ⊙ c_{t-1} + i_t ⊙ g_t
    o_t = σ(W_o x_t + U_o h_{t-1} + p_o ⊙ c_t + b_o)
    h_t = o_t ⊙ tanh(c_t)
    y_t = h_t

    Packed kernels: W [in_features, 4 · features], U [features, 4 · features], b [4 · features], in
    the order i, f, g, o; peepholes p [3 · features], in the order i, f, o. The output gate sees the
    new memory. A gate sees the memory of its own unit alone, and so also while the output gate hides
    it from h. b_f starts at `forget_bias`; with `forget_bias=Chrono(T)` b_i starts at -b_f.

    The peepholes start small, N(0, 0.1²), as all weights do in Greff et al. 2017; with
    `peephole_init="zeros"` the cell starts as an `LSTM`.

    Raises a ValueError for features below 1 and for an unknown initialiser.
    References: Gers, Schmidhuber 2000, "Recurrent nets that time and count"; Gers, Schraudolph,
    Schmidhuber 2002, "Learning precise timing with LSTM recurrent networks"; with the tanh of c_t:
    Graves 2013, "Generating sequences with recurrent neural networks".
    Choose it where the task is to count steps or to time them exactly.
    """

    state_type = PeepholeLSTMState
    additive = True
    memory_path = "f"
    longer_memory = "forget_bias=sj.initializers.Chrono({steps})"

    features: int
    forget_bias: Initializer | float = 1.0
    peephole_init: Initializer | str = SMALL
    input_init: Initializer | str = "glorot"
    recurrent_init: Initializer | str = "orthogonal"
    bias_init: Initializer | str = "zeros"
    param_dtype: DTypeLike = jnp.float32
    dtype: DTypeLike | None = None

    def init(self, key: Array, in_features: int) -> PeepholeLSTMParams:
        """Each gate's W, U, b and p by its own draw; b_f by `forget_bias`."""
        kernel_key, peephole_key = jax.random.split(key)
        # Packed order i, f, g, o, as the LSTM has it.
        biases = (self.bias_init, self.forget_bias, self.bias_init, self.bias_init)
        W, U, b = draw_kernels(self, kernel_key, in_features, biases)
        rules, shape = (self.peephole_init,) * 3, (self.features,)
        p = draw_gates(rules, peephole_key, shape, self.param_dtype)
        return PeepholeLSTMParams(W, U, oppose_input_gate(self.forget_bias, b), p)

    def gate_params(self, params: PeepholeLSTMParams) -> Array:
        """p: the only weights that meet the memory, which lives between the gates."""
        return params.peephole

    def gate(
        self, gate_params: Array, z: Array, r: Array, state: PeepholeLSTMState
    ) -> tuple[PeepholeLSTMState, Array]:
        """c_t and h_t from the packed pre-activations z_t + r_t and the peepholes."""
        i, f, g, o = jnp.split(z + r, 4, axis=-1)
        shape = (*state.c.shape[:-1], gate_params.size)
        p = jnp.broadcast_to(gate_params.astype(state.c.dtype), shape)
        p_i, p_f, p_o = jnp.split(p, 3, axis=-1)
        i = name_gate("i", jax.nn.sigmoid(i + p_i * state.c))
        f = name_gate("f", jax.nn.sigmoid(f + p_f * state.c))
        g = name_gate("g", jnp.tanh(g), "tanh")
        c = f * state.c + i * g
        o = name_gate("o", jax.nn.sigmoid(o + p_o * c))
        h = o * name_gate("tanh(c)", jnp.tanh(c), "tanh")
        state = PeepholeLSTMState(h, c)
        return state, self.emit(state)
