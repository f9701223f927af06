"""The minimal GRU and LSTM against NumPy loops, finite differences and sums over products."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seqjax as sj
from seqjax.cells.minimal import MinGRUParams, MinLSTMParams
from seqjax.initializers import Chrono
from tests.cells import comparison
from tests.cells.comparison import BATCH, FEATURES, IN_FEATURES, SIZES, TIME, Comparison, split
from tests.oracles import sigmoid

pytestmark = pytest.mark.usefixtures("quick_compilation")


def min_gru(W, b, x):
    """What one step keeps and adds (Feng et al. 2024, section 3.1)."""
    (W_z, W_h), (b_z, b_h) = split(W, 2), split(b, 2)
    z = sigmoid(x @ W_z + b_z)
    return 1 - z, z * (x @ W_h + b_h)


def min_lstm(W, b, x):
    """What one step keeps and adds (Feng et al. 2024, section 3.2)."""
    (W_i, W_f, W_h), (b_i, b_f, b_h) = split(W, 3), split(b, 3)
    i, f = sigmoid(x @ W_i + b_i), sigmoid(x @ W_f + b_f)
    return f / (f + i), i / (f + i) * (x @ W_h + b_h)


def row(equation, W, b, x, h):
    """The hidden states of one sequence, one step after another."""
    hs = []
    for x_t in x:
        kept, added = equation(W, b, x_t)
        h = kept * h + added
        hs.append(h)
    return np.array(hs), h


EQUATIONS = {"MinGRU": min_gru, "MinLSTM": min_lstm}
CASES = {
    name: Comparison(getattr(sj, name)(FEATURES), functools.partial(row, equation))
    for name, equation in EQUATIONS.items()
}
BOTH = pytest.mark.parametrize("name", EQUATIONS)


@BOTH
def test_the_cell_and_all_its_gradients_are_those_of_the_equations(name, x64):
    comparison.assert_follows_the_equations(CASES[name])


@SIZES
@BOTH
def test_in_single_precision_the_cell_keeps_to_the_equations(name, sizes):
    comparison.assert_values_follow_the_equations(CASES[name].at(*sizes))


@BOTH
def test_each_state_is_the_sum_of_what_was_added_times_what_all_later_steps_kept(name, x64):
    W, b, xs, h = CASES[name].arguments()
    ys, _ = CASES[name].outcome[0]
    kept, added = EQUATIONS[name](W, b, xs)
    for t in range(TIME):
        expected = np.prod(kept[: t + 1], axis=0) * h
        for s in range(t + 1):
            expected = expected + np.prod(kept[s + 1 : t + 1], axis=0) * added[s]
        np.testing.assert_allclose(ys[t], expected, rtol=1e-12, atol=1e-12)


@BOTH
def test_a_candidate_that_equals_the_state_leaves_it_alone(name, x64):
    # What is kept and what is written add up to 1, whatever the input says.
    W, b, xs, h = CASES[name].arguments()
    W[:, -FEATURES:], b[-FEATURES:], h[:] = 0, 0.7, 0.7
    ys, _ = CASES[name].run(*map(jnp.asarray, (W, b, xs, h)))
    np.testing.assert_allclose(ys, np.full((TIME, BATCH, FEATURES), 0.7), rtol=1e-14)


def coefficients(cell, params, bias):
    """What one unit without input keeps and adds, and the gradient of the first by the biases."""

    def of(bias):
        a, b = cell.coefficients(params(jnp.zeros((1, len(bias))), bias), jnp.zeros(1))
        return a[0], b[0]

    bias = jnp.asarray(bias, jnp.float32)
    (a, b), gradient = jax.value_and_grad(of, has_aux=True)(bias)
    return float(a), float(b), np.asarray(gradient)


def test_where_both_gates_are_shut_the_minimal_lstm_shares_by_their_ratio():
    # σ(-200) is 0 in float32, so f / (f + i) as it stands is 0 / 0; the ratio of the two is e.
    kept = 1 / (1 + np.exp(-1))
    a, b, gradient = coefficients(sj.MinLSTM(1), MinLSTMParams, [-201.0, -200.0, 1.0])
    np.testing.assert_allclose([a, b], [kept, 1 - kept], rtol=1e-5)
    slope = kept * (1 - kept)
    np.testing.assert_allclose(gradient, [-slope, slope, 0], rtol=1e-5)


def test_where_both_gates_are_open_the_minimal_lstm_takes_the_mean():
    a, b, _ = coefficients(sj.MinLSTM(1), MinLSTMParams, [300.0, 400.0, 1.0])
    np.testing.assert_allclose([a, b], [0.5, 0.5], rtol=1e-6)


def test_the_minimal_gru_keeps_its_digits_where_the_gate_is_open():
    # 1 - σ(20) has one digit in float32; the float64 oracle has all.
    a, _, gradient = coefficients(sj.MinGRU(1), MinGRUParams, [20.0, 1.0])
    kept = 1 / (1 + np.exp(20.0))
    np.testing.assert_allclose(a, kept, rtol=1e-5)
    np.testing.assert_allclose(gradient, [-kept, 0], rtol=1e-5)


@pytest.mark.parametrize(
    "cell",
    [sj.MinGRU(64, update_bias=Chrono(9, negated=True)), sj.MinLSTM(64, forget_bias=Chrono(9))],
    ids=EQUATIONS,
)
def test_with_chrono_a_cell_without_input_keeps_for_two_steps_up_to_the_longest(cell: Any, key):
    kept, _ = cell.coefficients(cell.init(key, IN_FEATURES), jnp.zeros(IN_FEATURES))
    steps = 1 / (1 - np.asarray(kept, np.float64))
    assert steps.min() >= 2 - 1e-4
    assert 8 < steps.max() <= 9 + 1e-4
