"""Long short-term memory."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from seqjax import checks
from seqjax.cell import GatedCell
from seqjax.cells.packed import PackedCell, draw_kernels, oppose_input_gate
from seqjax.gates import name_gate, packed_gates
from seqjax.initializers import Initializer, draw
from seqjax.numerics import compute_dtype, matmul, state_dtype


class LSTMParams(NamedTuple):
    """W, U and b, packed in the order i, f, g, o; and P, where there is a projection."""

    input_kernel: Float[Array, "in_features 4*features"]
    recurrent_kernel: Float[Array, "out_features 4*features"]
    bias: Float[Array, " 4*features"]
    projection: Float[Array, "features out_features"] | None = None


class LSTMState(NamedTuple):
    """Hidden state and memory, at least float32."""

    h: Float[Array, "*batch out_features"]
    c: Float[Array, "*batch features"]


@dataclasses.dataclass(frozen=True, repr=False)
class LSTM(PackedCell[LSTMParams, LSTMState]):
    """i_t = σ(W_i x_t + U_i h_{t-1} + b_i)
    f_t = σ(W_f x_t + U_f h_{t-1} + b_f)
    g_t = tanh(W_g x_t + U_g h_{t-1} + b_g)
    o_t = σ(W_o x_t + U_o h_{t-1} + b_o)
    c_t = f_t ⊙ c_{t-1} + i_t ⊙ g_t
    h_t = o_t ⊙ tanh(c_t)
    y_t = h_t

    Packed kernels: W [in_features, 4 · features], U [features, 4 · features], b [4 · features].
    b_f starts at `forget_bias`, 1 by default, in `init`: the step adds nothing. With
    `forget_bias=Chrono(T)` b_i starts at -b_f.

    projection: None, or the smaller size that h is projected to, h_t = (o_t ⊙ tanh(c_t)) P with
    P [features, projection]. Then y and h have `projection` entries, c has `features`, and
    U is [projection, 4 · features]; and the cell is no longer a gated one, since a second matmul
    stands between the gates and the state.

    Raises a ValueError for sizes below 1, a projection that is not below features, and an unknown
    initialiser.
    References: Hochreiter, Schmidhuber 1997; the forget gate: Gers, Schmidhuber, Cummins 2000; its
    bias of 1: Jozefowicz, Zaremba, Sutskever 2015; the projection: Sak, Senior, Beaufays 2014.
    Choose it first: it learns most things well, and every other cell is measured against it.
    """

    state_type = LSTMState
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
    projection: int | None = None
    projection_init: Initializer | str = "glorot"

    def __post_init__(self) -> None:
        """Validate hyperparameters."""
        super().__post_init__()
        if self.projection is not None:
            checks.positive("LSTM: projection", self.projection)
            if self.projection >= self.features:
                raise ValueError(
                    f"LSTM: projection: expected fewer than the {self.features} features that are "
                    f"projected, got {self.projection}"
                )

    @property
    def out_features(self) -> int:
        """The size of h and y: `projection` where there is one."""
        return self.features if self.projection is None else self.projection

    def gated(self) -> GatedCell | None:
        """Itself, but not with a projection."""
        return self if self.projection is None else None

    def init(self, key: Array, in_features: int) -> LSTMParams:
        """Each gate's W, U and b by its own draw; b_f by `forget_bias`."""
        # Packed order i, f, g, o, as PyTorch has it, so that its weights import unpermuted.
        biases = (self.bias_init, self.forget_bias, self.bias_init, self.bias_init)
        W, U, b = draw_kernels(self, key, in_features, biases, rows=self.out_features)
        params = LSTMParams(W, U, oppose_input_gate(self.forget_bias, b))
        if self.projection is None:
            return params
        shape = (self.features, self.projection)
        key = jax.random.fold_in(key, 1)
        return params._replace(projection=draw(self.projection_init, key, shape, self.param_dtype))

    def initial_state(
        self, params: LSTMParams, batch_shape: tuple[int, ...] = (), *, key: Array | None = None
    ) -> LSTMState:
        """h_0 = c_0 = 0."""
        dtype = state_dtype(self)
        return LSTMState(
            h=jnp.zeros((*batch_shape, self.out_features), dtype),
            c=jnp.zeros((*batch_shape, self.features), dtype),
        )

    def gate(
        self, gate_params: tuple[()], z: Array, r: Array, state: LSTMState
    ) -> tuple[LSTMState, Array]:
        """c_t and h_t from the packed pre-activations z_t + r_t."""
        i, f, g, o = packed_gates(z + r, i="sigmoid", f="sigmoid", g="tanh", o="sigmoid")
        c = f * state.c + i * g
        h = o * name_gate("tanh(c)", jnp.tanh(c), "tanh")
        state = LSTMState(h, c)
        return state, self.emit(state)

    def step(self, params: LSTMParams, state: LSTMState, x: Array) -> tuple[LSTMState, Array]:
        """One step; where there is a projection, h_t = (o_t ⊙ tanh(c_t)) P."""
        state, y = super().step(params, state, x)
        if params.projection is None:
            return state, y
        dtype = compute_dtype(self)
        h = matmul(state.h, params.projection, dtype)
        return LSTMState(h, state.c), h.astype(dtype)
