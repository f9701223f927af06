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
    """A user's cell with an integer clock in its state, and a promise: its units do not mix."""

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


class Entry(NamedTuple):
    """How to build a cell, and what is true of it.

    build: (param_dtype, dtype) -> a cell, a new object at each call.
    causal: y_t needs no input after t, so the cell has a step.
    noisy: its state holds noise.
    """

    build: Callable[[Any, Any], sj.Cell]
    causal: bool = True
    noisy: bool = False


def _elman(param_dtype: Any, dtype: Any) -> sj.Cell:
    return sj.Elman(3, bias_init="uniform_fan_in", param_dtype=param_dtype, dtype=dtype)


def _irnn(param_dtype: Any, dtype: Any) -> sj.Cell:
    # Inputs of size 1, so that few units lie near the kink of relu.
    return sj.IRNN(3, scale=0.9, input_stddev=1.0, param_dtype=param_dtype, dtype=dtype)


def _preactivation(param_dtype: Any, dtype: Any) -> sj.Cell:
    return sj.PreActivationRNN(
        3, activation="sigmoid", input_activation="tanh", param_dtype=param_dtype, dtype=dtype
    )


def _lstm(param_dtype: Any, dtype: Any) -> sj.Cell:
    return sj.LSTM(3, param_dtype=param_dtype, dtype=dtype)


def _gru(param_dtype: Any, dtype: Any) -> sj.Cell:
    return sj.GRU(3, bias_init="uniform_fan_in", param_dtype=param_dtype, dtype=dtype)


def _leaky_sum(param_dtype: Any, dtype: Any) -> sj.Cell:
    return LeakySum(3, param_dtype)


def _running_mean(param_dtype: Any, dtype: Any) -> sj.Cell:
    return RunningMean(3, param_dtype)


def _stack(param_dtype: Any, dtype: Any) -> sj.Cell:
    return sj.Stack((LeakySum(2, param_dtype), _lstm(param_dtype, dtype)))


def _residual(param_dtype: Any, dtype: Any) -> sj.Cell:
    return sj.Residual(_gru(param_dtype, dtype))


def _dropout(param_dtype: Any, dtype: Any) -> sj.Cell:
    return sj.Dropout(_lstm(param_dtype, dtype), rate=0.5)


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


REGISTRY: dict[str, Entry] = {
    "Elman": Entry(_elman),
    "IRNN": Entry(_irnn),
    "PreActivationRNN": Entry(_preactivation),
    "LSTM": Entry(_lstm),
    "GRU": Entry(_gru),
    "a user's cell": Entry(_leaky_sum),
    "a user's cell with a clock": Entry(_running_mean),
    "Stack": Entry(_stack),
    "Residual": Entry(_residual),
    "Dropout": Entry(_dropout, noisy=True),
    "Bidirectional": Entry(_bidirectional, causal=False),
    "a deep stack with noise": Entry(_deep_with_noise, noisy=True),
    "both directions with noise": Entry(_both_directions_with_noise, causal=False, noisy=True),
}
