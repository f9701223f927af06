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


Build = Callable[[Any, Any], sj.Cell]


def leaf(make: Callable[..., sj.Cell], *sizes: int, **fields: Any) -> Build:
    """Build a cell that takes both dtypes."""
    return lambda param_dtype, dtype: make(*sizes, param_dtype=param_dtype, dtype=dtype, **fields)


def around(wrapper: Callable[..., sj.Cell], *inner: Build, **fields: Any) -> Build:
    """Build a wrapper around cells, given one by one."""
    return lambda *dtypes: wrapper(*(build(*dtypes) for build in inner), **fields)


def stack(*layers: Build) -> Build:
    """Build a stack."""
    return lambda *dtypes: sj.Stack(tuple(build(*dtypes) for build in layers))


def glu(inner: Build) -> Build:
    """Build a gated linear unit, which takes one dtype."""
    return lambda param_dtype, dtype: sj.GLU(inner(param_dtype, dtype), param_dtype=param_dtype)


ELMAN = leaf(sj.Elman, 3, bias_init="uniform_fan_in")
# Inputs of size 1, so that few units lie near the kink of relu.
IRNN = leaf(sj.IRNN, 3, scale=0.9, input_stddev=1.0)
PREACTIVATION = leaf(sj.PreActivationRNN, 3, activation="sigmoid", input_activation="tanh")
LSTM = leaf(sj.LSTM, 3)
PROJECTED_LSTM = leaf(sj.LSTM, 4, projection=3)
GRU = leaf(sj.GRU, 3, bias_init="uniform_fan_in")
LRU = leaf(sj.LRU, 2, state_features=4)
CLOCKWORK = leaf(sj.ClockworkRNN, 4, periods=(1, 3))
LEAKY_SUM: Build = lambda param_dtype, dtype: LeakySum(3, param_dtype)
RUNNING_MEAN: Build = lambda param_dtype, dtype: RunningMean(3, param_dtype)
DROPOUT = around(sj.Dropout, LSTM, rate=0.5)
ZONEOUT = around(sj.Zoneout, LSTM, rate=0.2, memory_rate=0.5)
RECURRENT_DROPOUT = around(sj.RecurrentDropout, GRU, rate=0.4)
BIDIRECTIONAL = around(sj.Bidirectional, ELMAN, GRU)


REGISTRY: dict[str, Entry] = {
    "Elman": Entry(ELMAN, gated=True, leaf=True),
    "leaky Elman": Entry(leaf(sj.Elman, 3, leak=0.3), gated=True, leaf=True),
    "IRNN": Entry(IRNN, gated=True, leaf=True),
    "PreActivationRNN": Entry(PREACTIVATION, gated=True, leaf=True),
    "LSTM": Entry(LSTM, gated=True, leaf=True),
    "LSTM with a projection": Entry(PROJECTED_LSTM, leaf=True),
    "PeepholeLSTM": Entry(
        leaf(sj.PeepholeLSTM, 3, peephole_init=Normal(1.0)), gated=True, leaf=True
    ),
    "CIFG": Entry(leaf(sj.CIFG, 3), gated=True, leaf=True),
    "DiagonalLSTM": Entry(leaf(sj.DiagonalLSTM, 3), gated=True, mixing="elementwise", leaf=True),
    "GRU": Entry(GRU, gated=True, leaf=True),
    "DiagonalGRU": Entry(
        leaf(sj.DiagonalGRU, 3, update_bias=1.0), gated=True, mixing="elementwise", leaf=True
    ),
    "ChoGRU": Entry(leaf(sj.ChoGRU, 3, bias_init="uniform_fan_in"), leaf=True),
    "MGU": Entry(leaf(sj.MGU, 3, bias_init="uniform_fan_in"), leaf=True),
    "MinGRU": Entry(
        leaf(sj.MinGRU, 4, bias_init="uniform_fan_in"), linear=True, mixing="elementwise", leaf=True
    ),
    "MinLSTM": Entry(
        leaf(sj.MinLSTM, 4, bias_init="uniform_fan_in"),
        linear=True,
        mixing="elementwise",
        leaf=True,
    ),
    "LRU": Entry(LRU, linear=True, mixing="elementwise", leaf=True),
    "RGLRU": Entry(leaf(sj.RGLRU, IN_FEATURES), linear=True, mixing="elementwise", leaf=True),
    "SLSTM": Entry(leaf(sj.SLSTM, 3, bias_init="uniform_fan_in"), gated=True, leaf=True),
    "SLSTM with heads": Entry(
        leaf(sj.SLSTM, 4, heads=2, forget_gate="exp"),
        gated=True,
        mixing="heads",
        heads=2,
        leaf=True,
    ),
    "SLSTM with a head for each unit": Entry(
        leaf(sj.SLSTM, 3, heads=3), gated=True, mixing="elementwise", leaf=True
    ),
    "SkipRNN": Entry(
        leaf(sj.SkipRNN, 3, skip=3, bias_init="uniform_fan_in"), gated=True, leaf=True
    ),
    "ClockworkRNN": Entry(CLOCKWORK, gated=True, leaf=True),
    "TimeDelay": Entry(leaf(sj.TimeDelay, 3, window=2), leaf=True),
    "a user's cell": Entry(LEAKY_SUM),
    "a user's cell with a clock": Entry(RUNNING_MEAN, mixing="elementwise", leaf=True),
    "Stack": Entry(stack(lambda param_dtype, dtype: LeakySum(2, param_dtype), LSTM)),
    "Residual": Entry(around(sj.Residual, GRU)),
    "a stack of projections": Entry(stack(around(sj.Residual, PROJECTED_LSTM), PROJECTED_LSTM)),
    "GLU": Entry(glu(around(sj.Dropout, LRU, rate=0.5)), noisy=1, mixing="elementwise"),
    "Dropout": Entry(DROPOUT, noisy=1),
    "Zoneout": Entry(ZONEOUT, noisy=1, gated=True, leaf=True),
    "Zoneout of a user's cell": Entry(
        around(sj.Zoneout, RUNNING_MEAN, rate=0.3), noisy=1, mixing="elementwise", leaf=True
    ),
    "Zoneout of a complex state": Entry(
        around(sj.Zoneout, LRU, rate=0.3), noisy=1, mixing="elementwise", leaf=True
    ),
    # A wide epsilon bends less, so that the difference quotient is as close as it is elsewhere.
    "Zoneout of LayerNorm": Entry(
        around(sj.Zoneout, around(sj.LayerNorm, LSTM, epsilon=0.01), rate=0.3),
        noisy=1,
        gated=True,
        leaf=True,
    ),
    "LayerNorm": Entry(around(sj.LayerNorm, GRU), gated=True, leaf=True),
    "LearnedState": Entry(around(sj.LearnedState, stack(LRU, CLOCKWORK, DROPOUT)), noisy=1),
    "LearnedState of both directions": Entry(around(sj.LearnedState, BIDIRECTIONAL), causal=False),
    "RecurrentDropout of Zoneout": Entry(
        around(sj.RecurrentDropout, ZONEOUT, rate=0.5), noisy=2, gated=True, leaf=True
    ),
    "Zoneout of RecurrentDropout": Entry(
        around(sj.Zoneout, RECURRENT_DROPOUT, rate=0.4), noisy=2, gated=True, leaf=True
    ),
    "LayerNorm of Zoneout": Entry(
        around(sj.LayerNorm, ZONEOUT, epsilon=0.01), noisy=1, gated=True, leaf=True
    ),
    "RecurrentDropout": Entry(RECURRENT_DROPOUT, noisy=1, gated=True, leaf=True),
    "variational dropout": Entry(
        around(sj.Dropout, around(sj.RecurrentDropout, LSTM, rate=0.4), rate=0.4), noisy=2
    ),
    "Bidirectional": Entry(BIDIRECTIONAL, causal=False),
    "a deep stack with noise": Entry(
        stack(
            around(sj.Residual, around(sj.Dropout, stack(RUNNING_MEAN, PREACTIVATION), rate=0.4)),
            around(sj.Dropout, ELMAN, rate=0.5),
        ),
        noisy=2,
    ),
    "both directions with noise": Entry(
        stack(around(sj.Bidirectional, around(sj.Dropout, GRU, rate=0.5), IRNN), ELMAN),
        causal=False,
        noisy=1,
    ),
}

# The last three hold PreActivationRNN, ClockworkRNN, noise and a user's cell with a clock.
REPRESENTATIVE = {
    "LSTM",
    "GRU",
    "ChoGRU",
    "LRU",
    "SLSTM with heads",
    "Zoneout of LayerNorm",
    "LearnedState",
    "a deep stack with noise",
    "both directions with noise",
}
"""The cells on which `make test` checks every property; on the others it checks the main ones."""
