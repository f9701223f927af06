"""The LSTM with exponential gates and a normaliser, and memory that mixes within heads alone."""

import dataclasses
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from seqjax import checks
from seqjax.cell import Mixing
from seqjax.cells.packed import PackedCell
from seqjax.gates import name_gate
from seqjax.initializers import Initializer, draw, draw_gates
from seqjax.numerics import compute_dtype

ForgetGate = Literal["sigmoid", "exp"]

FORGET_BIAS = {"sigmoid": 1.0, "exp": 0.0}
"""Where the forget gate's bias starts: it keeps most of the memory, or all of it."""


class SLSTMParams(NamedTuple):
    """W, R and b, packed in the order i, f, z, o; R has a block for each head."""

    input_kernel: Float[Array, "in_features 4*features"]
    recurrent_kernel: Float[Array, "heads head_features 4 head_features"]
    bias: Float[Array, " 4*features"]


class SLSTMState(NamedTuple):
    """Hidden state, memory, normaliser and stabiliser, at least float32."""

    h: Float[Array, "*batch features"]
    c: Float[Array, "*batch features"]
    n: Float[Array, "*batch features"]
    m: Float[Array, "*batch features"]


@dataclasses.dataclass(frozen=True, repr=False)
class SLSTM(PackedCell[SLSTMParams, SLSTMState]):
    """i_t = exp(W_i x_t + R_i h_{t-1} + b_i)
    f_t = σ(W_f x_t + R_f h_{t-1} + b_f), or exp of the same
    z_t = tanh(W_z x_t + R_z h_{t-1} + b_z)
    o_t = σ(W_o x_t + R_o h_{t-1} + b_o)
    c_t = f_t ⊙ c_{t-1} + i_t ⊙ z_t
    n_t = f_t ⊙ n_{t-1} + i_t
    h_t = o_t ⊙ c_t / n_t
    y_t = h_t

    So c_t / n_t is a weighted mean of all z so far: step k weighs i_k f_{k+1} ⋯ f_t, and a step with a
    large i makes the cell revise what it stored. Since i and, with `forget_gate="exp"`, f have no
    bound, the state holds c and n divided by e^{m_t}, which cancels in h:

    m_t = max(log f_t + m_{t-1}, log i_t)
    i'_t = exp(log i_t - m_t), f'_t = exp(log f_t + m_{t-1} - m_t)
    c_t = f'_t ⊙ c_{t-1} + i'_t ⊙ z_t, n_t = f'_t ⊙ n_{t-1} + i'_t

    The state starts at h = c = n = m = 0. A memory whose n is not above 0 is empty: neither its c nor
    its m has a say, and the first step gives h = o ⊙ z exactly. After it n ≥ 1, as i' or f' is 1.

    R is block-diagonal, [heads, features / heads, 4, features / heads]: a unit reads the h of its own
    head alone. One head is a dense R, as many heads as features a diagonal one.
    W: [in_features, 4 · features], b: [4 · features], packed i, f, z, o.
    forget_gate: with "sigmoid", the default, m never passes the largest log i so far; with "exp" it
    may grow at every step, and float32 then loses digits of log i - m.
    forget_bias: where b_f starts. None is 1 with "sigmoid" and 0 with "exp", so that f = 1 there: more
    would let the first steps outweigh all later ones. Scaling all i alike does not change h, so b_i
    needs no counterpart to it, not even with `Chrono`.

    Raises a ValueError for features below 1, heads that do not divide them, and an unknown forget
    gate or initialiser.
    Reference: Beck et al. 2024, "xLSTM: Extended long short-term memory", equations 8 to 17.
    Choose it where what is stored has to be revised when something better comes, and memory has to
    mix, as tracking a state asks.
    """

    state_type = SLSTMState  # m_0 = 0, not -∞: weight decay would turn a learned -∞ into NaN
    additive = True
    memory_path = "1 - i'/n"
    longer_memory = "a higher forget_bias"

    features: int
    heads: int = 1
    forget_gate: ForgetGate = "sigmoid"
    forget_bias: Initializer | float | None = None
    input_init: Initializer | str = "glorot"
    recurrent_init: Initializer | str = "orthogonal"
    bias_init: Initializer | str = "zeros"
    param_dtype: DTypeLike = jnp.float32
    dtype: DTypeLike | None = None

    def __post_init__(self) -> None:
        """Validate hyperparameters."""
        super().__post_init__()
        checks.one_of("SLSTM: forget_gate", self.forget_gate, tuple(FORGET_BIAS))
        checks.positive("SLSTM: heads", self.heads)
        if self.features % self.heads:
            raise ValueError(
                f"SLSTM: heads: expected a divisor of the {self.features} features, "
                f"got {self.heads}"
            )

    @property
    def mixing(self) -> Mixing:
        """Within each head; dense where there is one, elementwise where each unit is one."""
        if self.heads == self.features:
            return "elementwise"
        return "dense" if self.heads == 1 else "heads"

    def init(self, key: Array, in_features: int) -> SLSTMParams:
        """Each gate's W and b, and each head's R of each gate, by its own draw."""
        checks.size("SLSTM: in_features", in_features)
        input_key, recurrent_key, bias_key = jax.random.split(key, 3)
        size, head_size, dtype = self.features, self.features // self.heads, self.param_dtype
        forget_bias = (
            FORGET_BIAS[self.forget_gate] if self.forget_bias is None else self.forget_bias
        )
        # Packed order i, f, z, o, as that of an LSTM, whose candidate g is here named z.
        biases = (self.bias_init, forget_bias, self.bias_init, self.bias_init)
        keys = jax.random.split(recurrent_key, (self.heads, 4))
        block = lambda key: draw(self.recurrent_init, key, (head_size, head_size), dtype)
        return SLSTMParams(
            draw_gates((self.input_init,) * 4, input_key, (in_features, size), dtype),
            jax.vmap(jax.vmap(block, out_axes=1))(keys),
            draw_gates(biases, bias_key, (size,), dtype),
        )

    def recurrent_kernel(self, params: SLSTMParams) -> Array:
        """R, as a matrix where there is one head."""
        kernel = params.recurrent_kernel.astype(compute_dtype(self))
        return kernel.reshape(self.features, 4 * self.features) if self.heads == 1 else kernel

    def gate(
        self, gate_params: tuple[()], z: Array, r: Array, state: SLSTMState
    ) -> tuple[SLSTMState, Array]:
        """The state after from the packed pre-activations; log i and log f are never exponentiated."""
        log_i, f, z, o = jnp.split(z + r, 4, axis=-1)
        if self.forget_gate == "sigmoid":
            name_gate("f", jax.nn.sigmoid(f))
        log_f = jax.nn.log_sigmoid(f) if self.forget_gate == "sigmoid" else f
        z, o = name_gate("z", jnp.tanh(z), "tanh"), name_gate("o", jax.nn.sigmoid(o))
        # An empty memory does not decay: otherwise it could set m, and i' underflow.
        decay = jnp.where(state.n > 0, log_f + state.m, -jnp.inf)
        m = jnp.maximum(decay, log_i)
        i, f = jnp.exp(log_i - m), jnp.exp(decay - m)
        c = f * state.c + i * z
        n = f * state.n + i
        # In h = c / n a step keeps the share f' n_{t-1} / n_t, and f' n_{t-1} = n_t - i'.
        name_gate("1 - i'/n", 1 - i / n, None)
        h = o * c / n
        state = SLSTMState(h, c, n, m)
        return state, self.emit(state)
