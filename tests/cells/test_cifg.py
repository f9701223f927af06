"""Coupled input and forget gate against the NumPy loop, finite differences, the LSTM and PyTorch."""

import jax.numpy as jnp
import numpy as np
import pytest

import seqjax as sj
from seqjax.cells.lstm import CIFGParams, LSTMParams, LSTMState
from tests.cells import comparison
from tests.cells.comparison import FEATURES, SIZES, Comparison, split, unpacked
from tests.oracles import sigmoid

pytestmark = pytest.mark.usefixtures("quick_compilation")


def row(W, U, b, x, h, c):
    """One sequence: an LSTM with i_t = 1 - f_t (Greff et al. 2017)."""
    gates, hs = unpacked("fgo", W, U, b), []
    for x_t in x:
        f = sigmoid(gates["f"](x_t, h))
        g = np.tanh(gates["g"](x_t, h))
        o = sigmoid(gates["o"](x_t, h))
        i = 1 - f
        c = f * c + i * g
        h = o * np.tanh(c)
        hs.append(h)
    return np.array(hs), h, c


CIFG = Comparison(sj.CIFG(FEATURES), row)


def test_the_cell_and_all_its_gradients_are_those_of_the_equations(x64):
    comparison.assert_follows_the_equations(CIFG)


@SIZES
def test_in_single_precision_the_cell_keeps_to_the_equations(sizes):
    comparison.assert_values_follow_the_equations(CIFG.at(*sizes))


def with_opposed_input_gate(packed, numpy):
    """f, g, o as i, f, g, o with i = -f before the sigmoid: 1 - σ(a) = σ(-a)."""
    f, g, o = split(packed, 3)
    return numpy.concatenate([-f, f, g, o], axis=-1)


def lstm(W, U, b, xs, h, c):
    weights = (with_opposed_input_gate(packed, jnp) for packed in (W, U, b))
    return comparison.unrolled(sj.LSTM(FEATURES), LSTMParams(*weights), xs, LSTMState(h, c))


def torch_lstm(W, U, b, xs, h, c):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    W, U, b = (with_opposed_input_gate(packed, torch) for packed in (W, U, b))
    return comparison.run_torch("LSTM", (W, U, b, 0 * b), xs, h, c)


def test_it_is_the_lstm_whose_input_gate_is_opposed_to_its_forget_gate(x64):
    comparison.assert_agrees(CIFG, lstm)


@pytest.mark.peer
def test_values_and_gradients_are_those_of_pytorch_with_opposed_gates(x64):
    comparison.assert_agrees(CIFG, torch_lstm, comparison.differentiate_torch)


def test_the_memory_stays_within_one_where_that_of_an_lstm_counts_up():
    pushing = jnp.full((50, 1), 5.0)
    state, _ = sj.unroll(
        sj.CIFG(1), CIFGParams(jnp.ones((1, 3)), jnp.ones((1, 3)), jnp.ones(3)), pushing
    )
    counting, _ = sj.unroll(
        sj.LSTM(1), LSTMParams(jnp.ones((1, 4)), jnp.ones((1, 4)), jnp.ones(4)), pushing
    )
    assert 0 < state.c[0] < 1
    assert counting.c[0] > 40
