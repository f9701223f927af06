"""Gated recurrent unit, in the form whose reset follows the recurrent matmul (cuDNN, PyTorch)."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from seqjax.cells.packed import PackedCell, draw_kernels
from seqjax.gates import packed_gates, save_for_backward
from seqjax.initializers import Initializer, draw
from seqjax.numerics import add_vector


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
