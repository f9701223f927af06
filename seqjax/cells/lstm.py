"""Long short-term memory: with an optional projection, with peepholes, and with coupled gates."""

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
from seqjax.initializers import Initializer, Normal, draw, draw_gates
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
