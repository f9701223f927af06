"""Minimal GRU and LSTM: gates that see the input alone, so that the recurrence is linear."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from seqjax import checks
from seqjax.cell import LinearCell
from seqjax.cells.packed import oppose_input_gate
from seqjax.fields import check_fields
from seqjax.gates import name_gate
from seqjax.initializers import Initializer, draw_gates
from seqjax.numerics import affine, compute_dtype, state_dtype


class MinGRUParams(NamedTuple):
    """W and b, packed in the order z, h̃."""

    input_kernel: Float[Array, "in_features 2*features"]
    bias: Float[Array, " 2*features"]


class MinGRUState(NamedTuple):
    """The hidden state, at least float32."""

    h: Float[Array, "*batch features"]


@dataclasses.dataclass(frozen=True, repr=False)
class MinGRU(LinearCell[MinGRUParams, MinGRUState]):
    """z_t = σ(W_z x_t + b_z)
    h̃_t = W_h x_t + b_h
    h_t = (1 - z_t) ⊙ h_{t-1} + z_t ⊙ h̃_t
    y_t = h_t

    Packed: W [in_features, 2 · features], b [2 · features]. There is no recurrent matrix. The gate
    *renews* where it is open, the other way round than in `GRU`: b_z starts at `update_bias`; below 0
    the cell keeps longer, and `Chrono(T, negated=True)` spreads memories up to T steps.

    Raises a ValueError for features below 1 and for an unknown initialiser.
    Reference: Feng, Tung, Ahmed, Bengio, Hajimirsadeghi 2024, "Were RNNs all we needed?".
    Choose it where the recurrence has to be linear and the cell small: it has two matrices and no more.
    """

    longer_memory = "update_bias=sj.initializers.Chrono({steps}, negated=True)"

    features: int
    input_init: Initializer | str = "glorot"
    bias_init: Initializer | str = "zeros"
    param_dtype: DTypeLike = jnp.float32
    dtype: DTypeLike | None = None
    update_bias: Initializer | float | None = None

    def __post_init__(self) -> None:
        """Validate hyperparameters."""
        check_fields(self)

    def init(self, key: Array, in_features: int) -> MinGRUParams:
        """W and b of z and of h̃, each by its own draw; b_z by `update_bias`."""
        update_bias = self.bias_init if self.update_bias is None else self.update_bias
        return MinGRUParams(*_draw_inputs(self, key, in_features, (update_bias, self.bias_init)))

    def initial_state(
        self, params: MinGRUParams, batch_shape: tuple[int, ...] = (), *, key: Array | None = None
    ) -> MinGRUState:
        """h_0 = 0."""
        return MinGRUState(h=jnp.zeros((*batch_shape, self.features), state_dtype(self)))

    def coefficients(self, params: MinGRUParams, x: Array) -> tuple[Array, Array]:
        """a_t = 1 - z_t and b_t = z_t ⊙ h̃_t."""
        z, candidate = jnp.split(
            affine("MinGRU: x", x, params.input_kernel, params.bias, compute_dtype(self)),
            2,
            axis=-1,
        )
        # 1 - σ(z) = σ(-z), which keeps its digits where the gate is open.
        return jax.nn.sigmoid(-z), name_gate("z", jax.nn.sigmoid(z)) * candidate

    def readout(self, params: MinGRUParams, h: Array, x: Array) -> Array:
        """y_t = h_t."""
        return h.astype(compute_dtype(self))


class MinLSTMParams(NamedTuple):
    """W and b, packed in the order i, f, h̃."""

    input_kernel: Float[Array, "in_features 3*features"]
    bias: Float[Array, " 3*features"]


class MinLSTMState(NamedTuple):
    """The hidden state, at least float32."""

    h: Float[Array, "*batch features"]


@dataclasses.dataclass(frozen=True, repr=False)
class MinLSTM(LinearCell[MinLSTMParams, MinLSTMState]):
    """i_t = σ(W_i x_t + b_i)
    f_t = σ(W_f x_t + b_f)
    h̃_t = W_h x_t + b_h
    f'_t = f_t / (f_t + i_t)
    i'_t = i_t / (f_t + i_t)
    h_t = f'_t ⊙ h_{t-1} + i'_t ⊙ h̃_t
    y_t = h_t

    Packed: W [in_features, 3 · features], b [3 · features]. There is no recurrent matrix. b_f starts
    at `forget_bias`. Since the two gates share what they do, an open f alone keeps no more than
    1 / (1 + i_t); with `forget_bias=Chrono(T)` b_i starts at -b_f, which makes f' = σ(b_f) and so
    spreads memories up to T steps.

    Raises a ValueError for features below 1 and for an unknown initialiser.
    Reference: Feng, Tung, Ahmed, Bengio, Hajimirsadeghi 2024, "Were RNNs all we needed?".
    Choose it over `MinGRU` where keeping and writing should each see the input in their own way.
    """

    longer_memory = "forget_bias=sj.initializers.Chrono({steps})"

    features: int
    forget_bias: Initializer | float = 1.0
    input_init: Initializer | str = "glorot"
    bias_init: Initializer | str = "zeros"
    param_dtype: DTypeLike = jnp.float32
    dtype: DTypeLike | None = None

    def __post_init__(self) -> None:
        """Validate hyperparameters."""
        check_fields(self)

    def init(self, key: Array, in_features: int) -> MinLSTMParams:
        """W and b of i, of f and of h̃, each by its own draw; b_f by `forget_bias`."""
        biases = (self.bias_init, self.forget_bias, self.bias_init)
        W, b = _draw_inputs(self, key, in_features, biases)
        return MinLSTMParams(W, oppose_input_gate(self.forget_bias, b, gates=3))

    def initial_state(
        self, params: MinLSTMParams, batch_shape: tuple[int, ...] = (), *, key: Array | None = None
    ) -> MinLSTMState:
        """h_0 = 0."""
        return MinLSTMState(h=jnp.zeros((*batch_shape, self.features), state_dtype(self)))

    def coefficients(self, params: MinLSTMParams, x: Array) -> tuple[Array, Array]:
        """a_t = f'_t and b_t = i'_t ⊙ h̃_t."""
        i, f, candidate = jnp.split(
            affine("MinLSTM: x", x, params.input_kernel, params.bias, compute_dtype(self)),
            3,
            axis=-1,
        )
        name_gate("i", jax.nn.sigmoid(i))
        name_gate("f", jax.nn.sigmoid(f))
        # f / (f + i) = σ(log f - log i), with log σ(a) = -softplus(-a): where both gates are shut the
        # quotient as it stands is 0 / 0.
        odds = jax.nn.softplus(-i) - jax.nn.softplus(-f)
        return jax.nn.sigmoid(odds), jax.nn.sigmoid(-odds) * candidate

    def readout(self, params: MinLSTMParams, h: Array, x: Array) -> Array:
        """y_t = h_t."""
        return h.astype(compute_dtype(self))


def _draw_inputs(
    cell: MinGRU | MinLSTM,
    key: Array,
    in_features: int,
    biases: Sequence[Initializer | str | float],
) -> tuple[Array, Array]:
    """W [in_features, parts · features] and b [parts · features], a part for each bias."""
    checks.size(f"{type(cell).__name__}: in_features", in_features)
    kernel_key, bias_key = jax.random.split(key)
    rules = (cell.input_init,) * len(biases)
    return (
        draw_gates(rules, kernel_key, (in_features, cell.features), cell.param_dtype),
        draw_gates(biases, bias_key, (cell.features,), cell.param_dtype),
    )
