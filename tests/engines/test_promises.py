"""A cell that breaks the contract is refused in one sentence, whatever the options of the run."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import seqjax as sj

XS = np.ones((6, 2, 3), np.float32)


@dataclasses.dataclass(frozen=True)
class Mine(sj.Cell):
    """A sum of inputs, with the step and the first state that a test wants."""

    stepping: Callable[..., Any]
    beginning: Callable[..., Any] = lambda batch: jnp.zeros((*batch, 3))
    features: int = 3

    def init(self, key, in_features):
        return jnp.ones((in_features, 3))

    def initial_state(self, params, batch_shape=(), *, key=None):
        return self.beginning(batch_shape)

    def step(self, params, state, x):
        return self.stepping(params, state, x)


def good(params, state, x):
    state = state + x @ params
    return state, state


@pytest.mark.parametrize("lengths", [None, [6, 3]])
@pytest.mark.parametrize(
    ("step", "complaint"),
    [
        (lambda p, s, x: (s.astype(jnp.bfloat16), s), r"is bfloat16\[2, 3\]; expected float32"),
        (lambda p, s, x: ({"h": s}, s), "has structure .*'h'.*as initial_state gives it"),
        (lambda p, s, x: s, r"expected a pair \(state, y\)"),
        (lambda p, s, x: (s, jnp.zeros((2, 9))), r"y of shape \(2, 9\); expected .* \(2, 3\)"),
        (lambda p, s, x: (s, {"y": s}), "y of shape dict; expected"),
    ],
    ids=["dtype", "structure", "no pair", "width", "no array"],
)
def test_a_step_that_breaks_the_contract_is_refused(step, complaint, lengths):
    with pytest.raises(ValueError, match=rf"unroll: .*Mine.step gives.*{complaint}|{complaint}"):
        sj.unroll(Mine(step), jnp.ones((3, 3)), XS, lengths=lengths)


def test_a_state_that_does_not_lead_with_the_batch_is_refused():
    cell = Mine(good, lambda batch: {"h": jnp.zeros((*batch, 3)), "count": jnp.zeros((), int)})
    with pytest.raises(ValueError, match=r"state\['count'\] of shape \(\); expected every leaf"):
        sj.unroll(cell, jnp.ones((3, 3)), XS)


def test_a_cell_without_features_is_refused():
    with pytest.raises(ValueError, match="Mine has no features; expected the size of y"):
        sj.unroll(Mine(good, features=None), jnp.ones((3, 3)), XS)  # pyright: ignore[reportArgumentType] - the mistake


@dataclasses.dataclass(frozen=True)
class PlusOne(sj.Wrapper):
    """A wrapper of a user's that writes on the padding."""

    cell: sj.Cell

    def step(self, params, state, x):
        state, y = self.cell.step(params, state, x)
        return state, y + 1

    def unroll_with(self, run, params, state, xs, plan):
        (child,) = self.children()
        state, ys = run(child, params, state, xs, plan)
        return state, ys + 1


@dataclasses.dataclass(frozen=True)
class RunsACell(PlusOne):
    """A wrapper that hands the cell itself to `run`."""

    def unroll_with(self, run, params, state, xs, plan):
        return run(self.cell, params, state, xs, plan)


@pytest.mark.usefixtures("unchecked")
def test_run_takes_a_child_and_says_so():
    with pytest.raises(ValueError, match=r"run: expected one of self.children\(\), got Mine\("):
        sj.unroll(RunsACell(Mine(good)), jnp.ones((3, 3)), XS)


def test_padding_is_zero_after_a_wrapper_of_ones_own():
    _, ys = sj.unroll(PlusOne(Mine(good)), jnp.ones((3, 3)), XS, lengths=[6, 3])
    assert (np.asarray(ys[3:, 1]) == 0).all()
    assert (np.asarray(ys[:3, 1]) > 0).all()


@pytest.mark.parametrize(
    "lengths",
    [
        [2**31, -3],
        [2**32 + 1, 0],
        np.array([2**32 - 1, 0], np.uint32),
        jnp.array([2**32 - 1, 0], jnp.uint32),
        jnp.array([127, -128], jnp.int8),
    ],
    ids=str,
)
def test_lengths_beyond_the_time_never_wrap(lengths):
    _, ys = sj.unroll(Mine(good), jnp.ones((3, 3)), XS, lengths=lengths)
    assert (np.asarray(ys[:, 0]) > 0).all()
    assert (np.asarray(ys[:, 1]) == 0).all()


@pytest.mark.parametrize("dtype", [jnp.int32, "floaty", "complex64"])
@pytest.mark.parametrize("make", [sj.Elman, sj.PreActivationRNN, sj.LSTM, sj.GRU])
def test_a_dtype_that_is_not_floating_point_is_refused(make, dtype, unchecked):
    with pytest.raises(ValueError, match="dtype: expected a floating-point dtype"):
        make(4, dtype=dtype)
    with pytest.raises(ValueError, match="param_dtype: expected a floating-point dtype"):
        make(4, param_dtype=dtype)


def test_only_what_reads_the_past_is_causal():
    both = sj.Bidirectional(sj.GRU(2), sj.GRU(2))
    assert sj.Stack((sj.Residual(sj.LSTM(3)), sj.Dropout(sj.GRU(3), 0.5))).causal
    assert not both.causal
    for cell in (sj.Stack((sj.LSTM(3), both)), sj.Residual(both), sj.Dropout(both, 0.5)):
        assert not cell.causal
        with pytest.raises(ValueError, match="outputs read what is to be predicted"):
            sj.models.LanguageModel(9, cell, 4)


@pytest.mark.parametrize(
    "ask",
    [
        lambda cell: sj.explain(cell, jnp.ones((3, 3)), XS),
        lambda cell: sj.plan_memory(cell, 10, in_features=3),
    ],
    ids=["explain", "plan_memory"],
)
def test_what_runs_nothing_refuses_a_bad_step_too(ask):
    with pytest.raises(ValueError, match=r"Mine.step gives .*; expected a pair \(state, y\)"):
        ask(Mine(lambda p, s, x: s))
