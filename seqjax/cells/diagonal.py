"""LSTM and GRU whose recurrent matrices are diagonal: a unit sees the past of no unit but itself."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from seqjax import checks
from seqjax.cell import Mixing
from seqjax.cells.packed import PackedCell, Rule, oppose_input_gate
from seqjax.gates import name_gate, packed_gates
from seqjax.initializers import Initializer, as_rule, draw_gates
from seqjax.numerics import compute_dtype


class DiagonalLSTMParams(NamedTuple):
    """W, u and b, packed in the order i, f, g, o."""

    input_kernel: Float[Array, "in_features 4*features"]
    recurrent_scale: Float[Array, " 4*features"]
    bias: Float[Array, " 4*features"]


class DiagonalLSTMState(NamedTuple):
    """Hidden state and memory, at least float32."""

    h: Float[Array, "*batch features"]
    c: Float[Array, "*batch features"]


@dataclasses.dataclass(frozen=True, repr=False)
class DiagonalLSTM(PackedCell[DiagonalLSTMParams, DiagonalLSTMState]):
    """i_t = σ(W_i x_t + u_i ⊙ h_{t-1} + b_i)
    f_t = σ(W_f x_t + u_f ⊙ h_{t-1} + b_f)
    g_t = tanh(W_g x_t + u_g ⊙ h_{t-1} + b_g)
    o_t = σ(W_o x_t + u_o ⊙ h_{t-1} + b_o)
    c_t = f_t ⊙ c_{t-1} + i_t ⊙ g_t
    h_t = o_t ⊙ tanh(c_t)
    y_t = h_t

    An LSTM with diagonal U: W [in_features, 4 · features], u [4 · features], b [4 · features]. Units
    of one layer do not see one another; they mix in the W of the next. b_f starts at `forget_bias`;
    with `forget_bias=Chrono(T)` b_i starts at -b_f.

    `recurrent_init` draws each entry of u as a matrix of one row and one column: "uniform_fan_in",
    the default, gives U(-1, 1), so that units differ in how strongly they feed back, and none feeds
    back more than it emits; "orthogonal" gives 1 or -1, "identity" 1, "glorot" U(-√3, √3).

    Raises a ValueError for features below 1 and for an unknown initialiser.
    References: the diagonal U: Li, Li, Cook, Zhu, Gao 2018, "Independently recurrent neural network
    (IndRNN)", who draw u from U(0, 1), since a unit of theirs forgets by u, where here the gates do;
    in an LSTM, so that Newton's method is cheap: Danieli et al. 2025, "ParaRNN".
    Choose it in stacks, where the weights of a recurrent matrix cost more than they bring.
    """

    state_type = DiagonalLSTMState
    additive = True
    saves_gates = True
    memory_path = "f"
    longer_memory = "forget_bias=sj.initializers.Chrono({steps})"

    features: int
    forget_bias: Initializer | float = 1.0
    input_init: Initializer | str = "glorot"
    recurrent_init: Initializer | str = "uniform_fan_in"
    bias_init: Initializer | str = "zeros"
    param_dtype: DTypeLike = jnp.float32
    dtype: DTypeLike | None = None

    @property
    def mixing(self) -> Mixing:
        """Elementwise: ∂s_t/∂s_{t-1} has one block for each unit, h and c of that unit."""
        return "elementwise"

    def init(self, key: Array, in_features: int) -> DiagonalLSTMParams:
        """Each gate's W and b, and each entry of u, by its own draw; b_f by `forget_bias`."""
        # Packed order i, f, g, o, as the LSTM has it.
        biases = (self.bias_init, self.forget_bias, self.bias_init, self.bias_init)
        W, u, b = draw_diagonal_kernels(self, key, in_features, biases)
        return DiagonalLSTMParams(W, u, oppose_input_gate(self.forget_bias, b))

    def recurrent_kernel(self, params: DiagonalLSTMParams) -> Array:
        """diag(u), as one block for each unit: [features, 1, 4, 1]."""
        return diagonal_blocks(params.recurrent_scale.astype(compute_dtype(self)), 4)

    def gate(
        self, gate_params: tuple[()], z: Array, r: Array, state: DiagonalLSTMState
    ) -> tuple[DiagonalLSTMState, Array]:
        """c_t and h_t from the packed pre-activations z_t + r_t."""
        i, f, g, o = packed_gates(z + r, i="sigmoid", f="sigmoid", g="tanh", o="sigmoid")
        c = f * state.c + i * g
        h = o * name_gate("tanh(c)", jnp.tanh(c), "tanh")
        state = DiagonalLSTMState(h, c)
        return state, self.emit(state)


class DiagonalGRUParams(NamedTuple):
    """W, u and b, packed in the order r, z, n."""

    input_kernel: Float[Array, "in_features 3*features"]
    recurrent_scale: Float[Array, " 3*features"]
    bias: Float[Array, " 3*features"]


class DiagonalGRUState(NamedTuple):
    """The hidden state, at least float32."""

    h: Float[Array, "*batch features"]


@dataclasses.dataclass(frozen=True, repr=False)
class DiagonalGRU(PackedCell[DiagonalGRUParams, DiagonalGRUState]):
    """r_t = σ(W_r x_t + u_r ⊙ h_{t-1} + b_r)
    z_t = σ(W_z x_t + u_z ⊙ h_{t-1} + b_z)
    n_t = tanh(W_n x_t + b_n + r_t ⊙ u_n ⊙ h_{t-1})
    h_t = (1 - z_t) ⊙ n_t + z_t ⊙ h_{t-1}
    y_t = h_t

    A GRU with diagonal U: W [in_features, 3 · features], u [3 · features], b [3 · features]. A reset
    before the product with u is a reset after it, so the two forms of the GRU are one here, and there
    is no inner bias. b_z starts at `update_bias`: above 0 the cell keeps longer, and `Chrono(T)`
    spreads memories up to T steps. `recurrent_init` draws u as in a `DiagonalLSTM`: U(-1, 1).

    Raises a ValueError for features below 1 and for an unknown initialiser.
    References: the gates: Cho et al. 2014; the diagonal U: Li, Li, Cook, Zhu, Gao 2018,
    "Independently recurrent neural network (IndRNN)"; in a GRU, so that Newton's method is cheap:
    Danieli et al. 2025, "ParaRNN".
    Choose it where a `DiagonalLSTM` is too large: one state in place of two.
    """

    state_type = DiagonalGRUState
    memory_path = "z"
    longer_memory = "update_bias=sj.initializers.Chrono({steps})"

    features: int
    input_init: Initializer | str = "glorot"
    recurrent_init: Initializer | str = "uniform_fan_in"
    bias_init: Initializer | str = "zeros"
    param_dtype: DTypeLike = jnp.float32
    dtype: DTypeLike | None = None
    update_bias: Initializer | float | None = None

    @property
    def mixing(self) -> Mixing:
        """Elementwise: ∂h_t/∂h_{t-1} is diagonal."""
        return "elementwise"

    @property
    def gate_blocks(self) -> tuple[int, ...]:
        """Two and one: r comes between the halves of n, while those of r and z are only added."""
        return (2, 1)

    def init(self, key: Array, in_features: int) -> DiagonalGRUParams:
        """Each gate's W and b, and each entry of u, by its own draw; b_z by `update_bias`."""
        update_bias = self.bias_init if self.update_bias is None else self.update_bias
        # Packed order r, z, n, as the GRU has it.
        biases = (self.bias_init, update_bias, self.bias_init)
        return DiagonalGRUParams(*draw_diagonal_kernels(self, key, in_features, biases))

    def recurrent_kernel(self, params: DiagonalGRUParams) -> Array:
        """diag(u), as one block for each unit: [features, 1, 3, 1]."""
        return diagonal_blocks(params.recurrent_scale.astype(compute_dtype(self)), 3)

    def gate(
        self, gate_params: tuple[()], z: Array, r: Array, state: DiagonalGRUState
    ) -> tuple[DiagonalGRUState, Array]:
        """h_t from the two packed halves, which meet only inside the gates."""
        input_r, input_z, input_n = jnp.split(z, 3, axis=-1)
        recurrent_r, recurrent_z, recurrent_n = jnp.split(r, 3, axis=-1)
        reset = name_gate("r", jax.nn.sigmoid(input_r + recurrent_r))
        update = name_gate("z", jax.nn.sigmoid(input_z + recurrent_z))
        candidate = name_gate("n", jnp.tanh(input_n + reset * recurrent_n), "tanh")
        h = (1 - update) * candidate + update * state.h
        state = DiagonalGRUState(h)
        return state, self.emit(state)


def diagonal_blocks(u: Float[Array, " packed"], gates: int) -> Float[Array, "features 1 gates 1"]:
    """diag(u_g) for each gate g, as `seqjax.numerics.recurrent_matmul` takes it: a head is a unit."""
    return u.reshape(gates, -1).T[:, None, :, None]


def draw_diagonal_kernels(
    cell: DiagonalLSTM | DiagonalGRU, key: Array, in_features: int, biases: Sequence[Rule]
) -> tuple[Array, Array, Array]:
    """W [in_features, gates · features], u [gates · features] and b, a gate for each bias.

    Each entry of u is drawn as a matrix of one row and one column, the block of one unit in one gate:
    so it has the fan-in that it has, one, and a rule for matrices is a rule for u.
    """
    checks.size(f"{type(cell).__name__}: in_features", in_features)
    input_key, recurrent_key, bias_key = jax.random.split(key, 3)
    gates, size, dtype = len(biases), cell.features, cell.param_dtype
    rule = as_rule(cell.recurrent_init)
    blocks = jax.vmap(lambda key: rule(key, (1, 1), dtype))
    return (
        draw_gates((cell.input_init,) * gates, input_key, (in_features, size), dtype),
        blocks(jax.random.split(recurrent_key, gates * size)).reshape(gates * size),
        draw_gates(biases, bias_key, (size,), dtype),
    )
