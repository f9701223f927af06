"""Every cell, and a choice of wrapper combinations; the contract runs over all of them.

A new cell is tested by being named here, and a public cell that is missing here fails a test.
All entries take inputs of `IN_FEATURES`, so that one sequence fits them all.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

import seqjax as sj
from seqjax.initializers import Normal

IN_FEATURES = 3


@dataclasses.dataclass(frozen=True)
class LeakySum(sj.Cell):
    """A user's cell in ten lines: init, initial_state and step, and nothing else."""

    features: int
    dtype: DTypeLike = jnp.float32

    def init(self, key, in_features):
        return jax.random.normal(key, (in_features, self.features), self.dtype)

    def initial_state(self, params, batch_shape=(), *, key=None):
        return jnp.zeros((*batch_shape, self.features), self.dtype)

    def step(self, params, state, x):
        state = 0.9 * state + x @ params
        return state, state


class RunningMeanState(NamedTuple):
    """The mean so far, and the number of steps that it is over."""

    mean: jax.Array
    steps: jax.Array


@dataclasses.dataclass(frozen=True)
class RunningMean(sj.Cell):
    """A user's cell with an integer clock in its state, and a promise: its units do not mix.

    It reads y off its state, so that a wrapper may change the state between steps.
    """

    features: int
    dtype: DTypeLike = jnp.float32

    @property
    def mixing(self):
        return "elementwise"

    def init(self, key, in_features):
        return jax.random.normal(key, (in_features, self.features), self.dtype)

    def initial_state(self, params, batch_shape=(), *, key=None):
        mean = jnp.zeros((*batch_shape, self.features), self.dtype)
        return RunningMeanState(mean, jnp.zeros(batch_shape, jnp.int32))

    def step(self, params, state, x):
        steps = state.steps + 1
        share = jnp.broadcast_to((1 / steps.astype(self.dtype))[..., None], state.mean.shape)
        mean = state.mean + share * (x @ params - state.mean)
        return RunningMeanState(mean, steps), mean

    def output(self, params, state, x):
        return state.mean


class Entry(NamedTuple):
    """How to build a cell, and what is true of it.

    build: (param_dtype, dtype) -> a cell, a new object at each call.
    causal: y_t needs no input after t, so the cell has a step.
    noisy: how many leaves of its state hold noise.
    gated, linear: the promises that it keeps.
    mixing: the structure of its ∂s_t/∂s_{t-1}; heads: how many blocks that has, where it is "heads".
    leaf: it can read y off the state after a step.
    """

    build: Callable[[Any, Any], sj.Cell]
    causal: bool = True
    noisy: int = 0
    gated: bool = False
    linear: bool = False
    mixing: str = "dense"
    heads: int = 1
    leaf: bool = False


def _elman(param_dtype: Any, dtype: Any) -> sj.Cell:
    return sj.Elman(3, bias_init="uniform_fan_in", param_dtype=param_dtype, dtype=dtype)


def _leaky_elman(param_dtype: Any, dtype: Any) -> sj.Cell:
    return sj.Elman(3, leak=0.3, param_dtype=param_dtype, dtype=dtype)


def _irnn(param_dtype: Any, dtype: Any) -> sj.Cell:
    # Inputs of size 1, so that few units lie near the kink of relu.
    return sj.IRNN(3, scale=0.9, input_stddev=1.0, param_dtype=param_dtype, dtype=dtype)


def _preactivation(param_dtype: Any, dtype: Any) -> sj.Cell:
    return sj.PreActivationRNN(
        3, activation="sigmoid", input_activation="tanh", param_dtype=param_dtype, dtype=dtype
    )


def _lstm(param_dtype: Any, dtype: Any) -> sj.Cell:
    return sj.LSTM(3, param_dtype=param_dtype, dtype=dtype)


def _projected_lstm(param_dtype: Any, dtype: Any) -> sj.Cell:
    return sj.LSTM(4, projection=3, param_dtype=param_dtype, dtype=dtype)


def _peephole_lstm(param_dtype: Any, dtype: Any) -> sj.Cell:
    return sj.PeepholeLSTM(3, peephole_init=Normal(1.0), param_dtype=param_dtype, dtype=dtype)


def _cifg(param_dtype: Any, dtype: Any) -> sj.Cell:
    return sj.CIFG(3, param_dtype=param_dtype, dtype=dtype)


def _diagonal_lstm(param_dtype: Any, dtype: Any) -> sj.Cell:
    return sj.DiagonalLSTM(3, param_dtype=param_dtype, dtype=dtype)


def _diagonal_gru(param_dtype: Any, dtype: Any) -> sj.Cell:
    return sj.DiagonalGRU(3, update_bias=1.0, param_dtype=param_dtype, dtype=dtype)


def _gru(param_dtype: Any, dtype: Any) -> sj.Cell:
    return sj.GRU(3, bias_init="uniform_fan_in", param_dtype=param_dtype, dtype=dtype)


def _cho_gru(param_dtype: Any, dtype: Any) -> sj.Cell:
    return sj.ChoGRU(3, bias_init="uniform_fan_in", param_dtype=param_dtype, dtype=dtype)


def _mgu(param_dtype: Any, dtype: Any) -> sj.Cell:
    return sj.MGU(3, bias_init="uniform_fan_in", param_dtype=param_dtype, dtype=dtype)


def _min_gru(param_dtype: Any, dtype: Any) -> sj.Cell:
    return sj.MinGRU(4, bias_init="uniform_fan_in", param_dtype=param_dtype, dtype=dtype)


def _min_lstm(param_dtype: Any, dtype: Any) -> sj.Cell:
    return sj.MinLSTM(4, bias_init="uniform_fan_in", param_dtype=param_dtype, dtype=dtype)


def _lru(param_dtype: Any, dtype: Any) -> sj.Cell:
    return sj.LRU(2, state_features=4, param_dtype=param_dtype, dtype=dtype)


def _rglru(param_dtype: Any, dtype: Any) -> sj.Cell:
    return sj.RGLRU(IN_FEATURES, param_dtype=param_dtype, dtype=dtype)


def _slstm(param_dtype: Any, dtype: Any) -> sj.Cell:
    return sj.SLSTM(3, bias_init="uniform_fan_in", param_dtype=param_dtype, dtype=dtype)


def _slstm_with_heads(param_dtype: Any, dtype: Any) -> sj.Cell:
    return sj.SLSTM(4, heads=2, forget_gate="exp", param_dtype=param_dtype, dtype=dtype)


def _diagonal_slstm(param_dtype: Any, dtype: Any) -> sj.Cell:
    return sj.SLSTM(3, heads=3, param_dtype=param_dtype, dtype=dtype)


def _skip(param_dtype: Any, dtype: Any) -> sj.Cell:
    return sj.SkipRNN(3, skip=3, bias_init="uniform_fan_in", param_dtype=param_dtype, dtype=dtype)


def _clockwork(param_dtype: Any, dtype: Any) -> sj.Cell:
    return sj.ClockworkRNN(4, periods=(1, 3), param_dtype=param_dtype, dtype=dtype)


def _time_delay(param_dtype: Any, dtype: Any) -> sj.Cell:
    return sj.TimeDelay(3, window=2, param_dtype=param_dtype, dtype=dtype)


def _leaky_sum(param_dtype: Any, dtype: Any) -> sj.Cell:
    return LeakySum(3, param_dtype)


def _running_mean(param_dtype: Any, dtype: Any) -> sj.Cell:
    return RunningMean(3, param_dtype)


def _stack(param_dtype: Any, dtype: Any) -> sj.Cell:
    return sj.Stack((LeakySum(2, param_dtype), _lstm(param_dtype, dtype)))


def _residual(param_dtype: Any, dtype: Any) -> sj.Cell:
    return sj.Residual(_gru(param_dtype, dtype))


def _residual_of_a_projection(param_dtype: Any, dtype: Any) -> sj.Cell:
    layers = (sj.Residual(_projected_lstm(param_dtype, dtype)), _projected_lstm(param_dtype, dtype))
    return sj.Stack(layers)


def _glu(param_dtype: Any, dtype: Any) -> sj.Cell:
    return sj.GLU(sj.Dropout(_lru(param_dtype, dtype), rate=0.5), param_dtype=param_dtype)


def _dropout(param_dtype: Any, dtype: Any) -> sj.Cell:
    return sj.Dropout(_lstm(param_dtype, dtype), rate=0.5)


def _zoneout(param_dtype: Any, dtype: Any) -> sj.Cell:
    return sj.Zoneout(_lstm(param_dtype, dtype), rate=0.2, memory_rate=0.5)


def _zoneout_of_a_users_cell(param_dtype: Any, dtype: Any) -> sj.Cell:
    return sj.Zoneout(_running_mean(param_dtype, dtype), rate=0.3)


def _zoneout_of_a_complex_state(param_dtype: Any, dtype: Any) -> sj.Cell:
    return sj.Zoneout(_lru(param_dtype, dtype), rate=0.3)


def _zoneout_of_layer_norm(param_dtype: Any, dtype: Any) -> sj.Cell:
    # A wide epsilon bends less, so that the difference quotient is as close as it is elsewhere.
    return sj.Zoneout(sj.LayerNorm(_lstm(param_dtype, dtype), epsilon=0.01), rate=0.3)


def _layer_norm(param_dtype: Any, dtype: Any) -> sj.Cell:
    return sj.LayerNorm(_gru(param_dtype, dtype))


def _learned_state(param_dtype: Any, dtype: Any) -> sj.Cell:
    noisy = sj.Dropout(_lstm(param_dtype, dtype), rate=0.5)
    return sj.LearnedState(
        sj.Stack((_lru(param_dtype, dtype), _clockwork(param_dtype, dtype), noisy))
    )


def _learned_states_of_both_directions(param_dtype: Any, dtype: Any) -> sj.Cell:
    return sj.LearnedState(_bidirectional(param_dtype, dtype))


def _recurrent_dropout(param_dtype: Any, dtype: Any) -> sj.Cell:
    return sj.RecurrentDropout(_gru(param_dtype, dtype), rate=0.4)


def _variational_dropout(param_dtype: Any, dtype: Any) -> sj.Cell:
    return sj.Dropout(sj.RecurrentDropout(_lstm(param_dtype, dtype), rate=0.4), rate=0.4)


def _bidirectional(param_dtype: Any, dtype: Any) -> sj.Cell:
    return sj.Bidirectional(_elman(param_dtype, dtype), _gru(param_dtype, dtype))


def _deep_with_noise(param_dtype: Any, dtype: Any) -> sj.Cell:
    inner = sj.Stack((_running_mean(param_dtype, dtype), _preactivation(param_dtype, dtype)))
    return sj.Stack(
        (sj.Residual(sj.Dropout(inner, rate=0.4)), sj.Dropout(_elman(param_dtype, dtype), rate=0.5))
    )


def _both_directions_with_noise(param_dtype: Any, dtype: Any) -> sj.Cell:
    both = sj.Bidirectional(
        sj.Dropout(_gru(param_dtype, dtype), rate=0.5), _irnn(param_dtype, dtype)
    )
    return sj.Stack((both, _elman(param_dtype, dtype)))


def _recurrent_dropout_of_zoneout(param_dtype: Any, dtype: Any) -> sj.Cell:
    return sj.RecurrentDropout(_zoneout(param_dtype, dtype), rate=0.5)


def _zoneout_of_recurrent_dropout(param_dtype: Any, dtype: Any) -> sj.Cell:
    return sj.Zoneout(_recurrent_dropout(param_dtype, dtype), rate=0.4)


def _layer_norm_of_zoneout(param_dtype: Any, dtype: Any) -> sj.Cell:
    return sj.LayerNorm(_zoneout(param_dtype, dtype), epsilon=0.01)


REGISTRY: dict[str, Entry] = {
    "Elman": Entry(_elman, gated=True, leaf=True),
    "leaky Elman": Entry(_leaky_elman, gated=True, leaf=True),
    "IRNN": Entry(_irnn, gated=True, leaf=True),
    "PreActivationRNN": Entry(_preactivation, gated=True, leaf=True),
    "LSTM": Entry(_lstm, gated=True, leaf=True),
    "LSTM with a projection": Entry(_projected_lstm, leaf=True),
    "PeepholeLSTM": Entry(_peephole_lstm, gated=True, leaf=True),
    "CIFG": Entry(_cifg, gated=True, leaf=True),
    "DiagonalLSTM": Entry(_diagonal_lstm, gated=True, mixing="elementwise", leaf=True),
    "GRU": Entry(_gru, gated=True, leaf=True),
    "DiagonalGRU": Entry(_diagonal_gru, gated=True, mixing="elementwise", leaf=True),
    "ChoGRU": Entry(_cho_gru, leaf=True),
    "MGU": Entry(_mgu, leaf=True),
    "MinGRU": Entry(_min_gru, linear=True, mixing="elementwise", leaf=True),
    "MinLSTM": Entry(_min_lstm, linear=True, mixing="elementwise", leaf=True),
    "LRU": Entry(_lru, linear=True, mixing="elementwise", leaf=True),
    "RGLRU": Entry(_rglru, linear=True, mixing="elementwise", leaf=True),
    "SLSTM": Entry(_slstm, gated=True, leaf=True),
    "SLSTM with heads": Entry(_slstm_with_heads, gated=True, mixing="heads", heads=2, leaf=True),
    "SLSTM with a head for each unit": Entry(
        _diagonal_slstm, gated=True, mixing="elementwise", leaf=True
    ),
    "SkipRNN": Entry(_skip, gated=True, leaf=True),
    "ClockworkRNN": Entry(_clockwork, gated=True, leaf=True),
    "TimeDelay": Entry(_time_delay, leaf=True),
    "a user's cell": Entry(_leaky_sum),
    "a user's cell with a clock": Entry(_running_mean, mixing="elementwise", leaf=True),
    "Stack": Entry(_stack),
    "Residual": Entry(_residual),
    "a stack of projections": Entry(_residual_of_a_projection),
    "GLU": Entry(_glu, noisy=1, mixing="elementwise"),
    "Dropout": Entry(_dropout, noisy=1),
    "Zoneout": Entry(_zoneout, noisy=1, gated=True, leaf=True),
    "Zoneout of a user's cell": Entry(
        _zoneout_of_a_users_cell, noisy=1, mixing="elementwise", leaf=True
    ),
    "Zoneout of a complex state": Entry(
        _zoneout_of_a_complex_state, noisy=1, mixing="elementwise", leaf=True
    ),
    "Zoneout of LayerNorm": Entry(_zoneout_of_layer_norm, noisy=1, gated=True, leaf=True),
    "LayerNorm": Entry(_layer_norm, gated=True, leaf=True),
    "LearnedState": Entry(_learned_state, noisy=1),
    "LearnedState of both directions": Entry(_learned_states_of_both_directions, causal=False),
    "RecurrentDropout of Zoneout": Entry(
        _recurrent_dropout_of_zoneout, noisy=2, gated=True, leaf=True
    ),
    "Zoneout of RecurrentDropout": Entry(
        _zoneout_of_recurrent_dropout, noisy=2, gated=True, leaf=True
    ),
    "LayerNorm of Zoneout": Entry(_layer_norm_of_zoneout, noisy=1, gated=True, leaf=True),
    "RecurrentDropout": Entry(_recurrent_dropout, noisy=1, gated=True, leaf=True),
    "variational dropout": Entry(_variational_dropout, noisy=2),
    "Bidirectional": Entry(_bidirectional, causal=False),
    "a deep stack with noise": Entry(_deep_with_noise, noisy=2),
    "both directions with noise": Entry(_both_directions_with_noise, causal=False, noisy=1),
}
