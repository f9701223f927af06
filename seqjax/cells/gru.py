"""Gated recurrent unit: the reset after the recurrent matmul (cuDNN, PyTorch), or before it."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from seqjax.cell import Cell, check_state
from seqjax.cells.packed import PackedCell, draw_kernels
from seqjax.fields import check_fields
from seqjax.gates import name_gate, packed_gates, save_for_backward
from seqjax.initializers import Initializer, draw
from seqjax.numerics import add_vector, affine, compute_dtype, matmul, state_dtype


class GRUParams(NamedTuple):
    """W, U and b, packed in the order r, z, n, and the inner bias c_n."""

    input_kernel: Float[Array, "in_features 3*features"]
    recurrent_kernel: Float[Array, "features 3*features"]
    bias: Float[Array, " 3*features"]
    inner_bias: Float[Array, " features"]


class GRUState(NamedTuple):
    """The hidden state, at least float32."""

    h: Float[Array, "*batch features"]


@dataclasses.dataclass(frozen=True, repr=False)
class GRU(PackedCell[GRUParams, GRUState]):
    """r_t = σ(W_r x_t + U_r h_{t-1} + b_r)
    z_t = σ(W_z x_t + U_z h_{t-1} + b_z)
    n_t = tanh(W_n x_t + b_n + r_t ⊙ (U_n h_{t-1} + c_n))
    h_t = (1 - z_t) ⊙ n_t + z_t ⊙ h_{t-1}
    y_t = h_t

    Packed kernels: W [in_features, 3 · features], U [features, 3 · features], b [3 · features],
    and the inner bias c_n [features]. The reset gate acts after the recurrent matmul. b_z starts at
    `update_bias`: above 0 the cell keeps longer, and `Chrono(T)` spreads memories up to T steps.

    Raises a ValueError for features below 1 and for an unknown initialiser.
    References: Cho et al. 2014; the reset after the matmul: Appleyard, Kočiský, Blunsom 2016.
    Choose it where an LSTM is too large: three gates and one state instead of four and two.
    """

    state_type = GRUState
    saves_gates = True
    memory_path = "z"
    longer_memory = "update_bias=sj.initializers.Chrono({steps})"

    features: int
    input_init: Initializer | str = "glorot"
    recurrent_init: Initializer | str = "orthogonal"
    bias_init: Initializer | str = "zeros"
    param_dtype: DTypeLike = jnp.float32
    dtype: DTypeLike | None = None
    update_bias: Initializer | float | None = None

    @property
    def gate_blocks(self) -> tuple[int, ...]:
        """Two and one: r comes between the halves of n, while those of r and z are only added."""
        return (2, 1)

    def init(self, key: Array, in_features: int) -> GRUParams:
        """Each gate's W, U and b by its own draw; b_z by `update_bias`, c_n like b."""
        update_bias = self.bias_init if self.update_bias is None else self.update_bias
        # Packed order r, z, n, as PyTorch has it, so that its weights import unpermuted.
        biases = (self.bias_init, update_bias, self.bias_init)
        kernel_key, inner_key = jax.random.split(key)
        return GRUParams(
            *draw_kernels(self, kernel_key, in_features, biases),
            inner_bias=draw(self.bias_init, inner_key, (self.features,), self.param_dtype),
        )

    def gate_params(self, params: GRUParams) -> Array:
        """c_n: the only weight that enters between the two matmuls and the gates."""
        return params.inner_bias

    def gate(
        self, gate_params: Array, z: Array, r: Array, state: GRUState
    ) -> tuple[GRUState, Array]:
        """h_t from the two packed halves, which meet only inside the gates."""
        added = 2 * self.features
        recurrent_n = save_for_backward(r[..., added:])
        reset, update = packed_gates(z[..., :added] + r[..., :added], r="sigmoid", z="sigmoid")
        inner = z[..., added:] + reset * add_vector(recurrent_n, gate_params)
        (candidate,) = packed_gates(inner, n="tanh")
        h = (1 - update) * candidate + update * state.h
        state = GRUState(h)
        return state, self.emit(state)


class ChoGRUParams(NamedTuple):
    """W, U and b, packed in the order r, z, n."""

    input_kernel: Float[Array, "in_features 3*features"]
    recurrent_kernel: Float[Array, "features 3*features"]
    bias: Float[Array, " 3*features"]


class ChoGRUState(NamedTuple):
    """The hidden state, at least float32."""

    h: Float[Array, "*batch features"]


@dataclasses.dataclass(frozen=True, repr=False)
class ChoGRU(Cell[ChoGRUParams, ChoGRUState]):
    """r_t = σ(W_r x_t + U_r h_{t-1} + b_r)
    z_t = σ(W_z x_t + U_z h_{t-1} + b_z)
    n_t = tanh(W_n x_t + U_n (r_t ⊙ h_{t-1}) + b_n)
    h_t = (1 - z_t) ⊙ n_t + z_t ⊙ h_{t-1}
    y_t = h_t

    Packed kernels: W [in_features, 3 · features], U [features, 3 · features], b [3 · features].
    The reset gate acts before the recurrent matmul, so U_n multiplies what r_t already depends on:
    two matmuls stand one after the other in a step, and the cell is not a gated one. b_z starts at
    `update_bias`: above 0 the cell keeps longer, and `Chrono(T)` spreads memories up to T steps.

    Raises a ValueError for features below 1 and for an unknown initialiser.
    Reference: Cho, van Merriënboer, Gulcehre, Bahdanau, Bougares, Schwenk, Bengio 2014, "Learning
    phrase representations using RNN encoder-decoder for statistical machine translation".
    Choose it to follow the paper or to run weights that were trained in this form; else take `GRU`,
    which needs one recurrent matmul for a step.
    """

    memory_path = "z"
    longer_memory = "update_bias=sj.initializers.Chrono({steps})"

    features: int
    input_init: Initializer | str = "glorot"
    recurrent_init: Initializer | str = "orthogonal"
    bias_init: Initializer | str = "zeros"
    param_dtype: DTypeLike = jnp.float32
    dtype: DTypeLike | None = None
    update_bias: Initializer | float | None = None

    def __post_init__(self) -> None:
        """Validate hyperparameters."""
        check_fields(self)

    def init(self, key: Array, in_features: int) -> ChoGRUParams:
        """Each gate's W, U and b by its own draw; b_z by `update_bias`."""
        update_bias = self.bias_init if self.update_bias is None else self.update_bias
        # Packed order r, z, n, as the other GRU has it.
        biases = (self.bias_init, update_bias, self.bias_init)
        return ChoGRUParams(*draw_kernels(self, key, in_features, biases))

    def initial_state(
        self, params: ChoGRUParams, batch_shape: tuple[int, ...] = (), *, key: Array | None = None
    ) -> ChoGRUState:
        """h_0 = 0."""
        return ChoGRUState(h=jnp.zeros((*batch_shape, self.features), state_dtype(self)))

    def step(self, params: ChoGRUParams, state: ChoGRUState, x: Array) -> tuple[ChoGRUState, Array]:
        """h_t, by one matmul for both gates and a second for the candidate."""
        check_state(self, params, state, x)
        dtype = compute_dtype(self)
        projected = affine("ChoGRU: x", x, params.input_kernel, params.bias, dtype)
        input_r, input_z, input_n = jnp.split(projected, 3, axis=-1)
        gates_kernel, candidate_kernel = jnp.split(
            params.recurrent_kernel, [2 * self.features], axis=1
        )
        recurrent_r, recurrent_z = jnp.split(matmul(state.h, gates_kernel, dtype), 2, axis=-1)
        reset = name_gate("r", jax.nn.sigmoid(input_r + recurrent_r))
        update = name_gate("z", jax.nn.sigmoid(input_z + recurrent_z))
        candidate = jnp.tanh(input_n + matmul(reset * state.h, candidate_kernel, dtype))
        name_gate("n", candidate, "tanh")
        state = ChoGRUState((1 - update) * candidate + update * state.h)
        return state, self.output(params, state, x)

    def output(self, params: ChoGRUParams, state: ChoGRUState, x: Array) -> Array:
        """y_t = h_t."""
        return state.h.astype(compute_dtype(self))
