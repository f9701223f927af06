"""The LSTM with peepholes against the NumPy loop, finite differences and the LSTM without them."""

import jax.numpy as jnp
import numpy as np
import pytest

import seqjax as sj
from seqjax.cells.lstm import LSTMParams, LSTMState, PeepholeLSTMParams, PeepholeLSTMState
from tests.cells import comparison
from tests.cells.comparison import FEATURES, SIZES, Comparison, unpacked
from tests.oracles import sigmoid

pytestmark = pytest.mark.usefixtures("quick_compilation")


def row(W, U, b, p, x, h, c):
    """One sequence, as Gers, Schraudolph, Schmidhuber 2002 have it, and Graves 2013 with tanh(c)."""
    gates, (p_i, p_f, p_o), hs = unpacked("ifgo", W, U, b), np.split(p, 3), []
    for x_t in x:
        i = sigmoid(gates["i"](x_t, h) + p_i * c)
        f = sigmoid(gates["f"](x_t, h) + p_f * c)
        c = f * c + i * np.tanh(gates["g"](x_t, h))
        o = sigmoid(gates["o"](x_t, h) + p_o * c)  # sees the memory that it lets out
        h = o * np.tanh(c)
        hs.append(h)
    return np.array(hs), h, c


PEEPHOLE = Comparison(sj.PeepholeLSTM(FEATURES), row)


def test_the_cell_and_all_its_gradients_are_those_of_the_equations(x64):
    comparison.assert_follows_the_equations(PEEPHOLE)


@SIZES
def test_in_single_precision_the_cell_keeps_to_the_equations(sizes):
    comparison.assert_values_follow_the_equations(PEEPHOLE.at(*sizes))


def test_with_closed_peepholes_it_is_the_lstm_in_values_and_gradients(x64):
    def plain(W, U, b, xs, h, c):
        return comparison.unrolled(sj.LSTM(FEATURES), LSTMParams(W, U, b), xs, LSTMState(h, c))

    W, U, b, p, *rest = PEEPHOLE.arguments()
    results, gradients = comparison.differentiate(PEEPHOLE.run, W, U, b, 0 * p, *rest)
    expected, expected_gradients = comparison.differentiate(plain, W, U, b, *rest)
    comparison.assert_close(results, expected, rtol=1e-12, atol=0)
    besides = [*gradients[:3], *gradients[4:]]
    comparison.assert_close(besides, expected_gradients, rtol=1e-10, atol=1e-12)
    assert np.all(np.asarray(gradients[3]) != 0)  # closed, and yet they learn


def test_a_gate_sees_the_memory_that_a_closed_output_gate_hides():
    # o ≈ 0, so h ≈ 0 tells nothing of c; the forget gate follows c all the same.
    params = PeepholeLSTMParams(
        input_kernel=jnp.zeros((1, 4)),
        recurrent_kernel=jnp.ones((1, 4)),
        bias=jnp.array([-50.0, 0.0, 0.0, -50.0]),
        peephole=jnp.array([0.0, 1.0, 0.0]),
    )
    before = PeepholeLSTMState(h=jnp.zeros((2, 1)), c=jnp.array([[0.5], [-2.0]]))
    after, y = sj.PeepholeLSTM(1).step(params, before, jnp.ones((2, 1)))
    c = np.asarray(before.c)
    np.testing.assert_allclose(after.c, sigmoid(c) * c, rtol=1e-6)
    np.testing.assert_allclose(y, np.zeros((2, 1)), atol=1e-20)


def test_the_peepholes_start_small_each_gate_by_its_own_draw_or_at_zero(key):
    cell = sj.PeepholeLSTM(500, recurrent_init="zeros")
    p_i, p_f, p_o = np.split(np.asarray(cell.init(key, 1).peephole), 3)
    for p in (p_i, p_f, p_o):
        # The spread of 500 Gaussian entries is known to 1/√1000, 3.2 %; four times that is allowed.
        np.testing.assert_allclose(np.std(p), 0.1, rtol=0.13)
    assert not np.allclose(p_i, p_f)
    assert not np.allclose(p_f, p_o)
    closed = sj.PeepholeLSTM(4, peephole_init="zeros").init(key, 2).peephole
    np.testing.assert_array_equal(closed, np.zeros(12))
