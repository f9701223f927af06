"""LSTM and GRU with diagonal recurrence against NumPy loops, the dense cells and PyTorch."""

import jax.numpy as jnp
import numpy as np
import pytest

import seqjax as sj
from seqjax.cells.gru import GRUParams, GRUState
from seqjax.cells.lstm import LSTMParams, LSTMState
from seqjax.initializers import NAMED, Constant
from tests import oracles
from tests.cells import comparison
from tests.cells.comparison import FEATURES, SIZES, Comparison, split, unpacked
from tests.oracles import sigmoid

pytestmark = pytest.mark.usefixtures("quick_compilation")


def by_gate(names, *packed):
    """The pre-activation of each gate as a function of x_t and h_{t-1}: x_t W + u ⊙ h_{t-1} + b."""
    return {
        name: lambda x, h, W=W, u=u, b=b: x @ W + u * h + b
        for name, (W, u, b) in unpacked(names, *packed).items()
    }


def lstm_row(W, u, b, x, h, c):
    """One sequence of an LSTM whose recurrent matrices are diagonal."""
    gates: dict = by_gate("ifgo", W, u, b)
    hs, cs = oracles.lstm(gates, x, h, c)
    return hs, hs[-1], cs[-1]


def gru_row(W, u, b, x, h):
    """One sequence of a GRU as Cho et al. 2014 have it, the reset before a product with diag(u_n)."""
    gates, hs = by_gate("rzn", W, u, b), []
    for x_t in x:
        r = sigmoid(gates["r"](x_t, h))
        z = sigmoid(gates["z"](x_t, h))
        n = np.tanh(gates["n"](x_t, r * h))
        h = (1 - z) * n + z * h
        hs.append(h)
    return np.array(hs), h


def dense(numpy, u, gates):
    """diag(u_g) for each gate, side by side: [features, gates · features]."""
    return numpy.concatenate([numpy.diag(block) for block in split(u, gates)], axis=1)


def dense_lstm(W, u, b, xs, h, c):
    params = LSTMParams(W, dense(jnp, u, 4), b)
    return comparison.unrolled(sj.LSTM(FEATURES), params, xs, LSTMState(h, c))


def dense_gru(W, u, b, xs, h):
    params = GRUParams(W, dense(jnp, u, 3), b, jnp.zeros(FEATURES))
    return comparison.unrolled(sj.GRU(FEATURES), params, xs, GRUState(h))


def torch_lstm(W, u, b, xs, h, c):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    return comparison.run_torch("LSTM", (W, dense(torch, u, 4), b, 0 * b), xs, h, c)


def torch_gru(W, u, b, xs, h):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    return comparison.run_torch("GRU", (W, dense(torch, u, 3), b, 0 * b), xs, h)


LSTM = Comparison(sj.DiagonalLSTM(FEATURES), lstm_row)
GRU = Comparison(sj.DiagonalGRU(FEATURES), gru_row)
BOTH = pytest.mark.parametrize("case", [LSTM, GRU], ids=["LSTM", "GRU"])


@BOTH
def test_the_cell_and_all_its_gradients_are_those_of_the_equations(case, x64):
    comparison.assert_follows_the_equations(case)


@SIZES
@BOTH
def test_in_single_precision_the_cell_keeps_to_the_equations(case, sizes):
    comparison.assert_values_follow_the_equations(case.at(*sizes))


@pytest.mark.parametrize(("case", "peer"), [(LSTM, dense_lstm), (GRU, dense_gru)])
def test_both_are_the_dense_cells_with_diagonal_matrices(case, peer, x64):
    comparison.assert_agrees(case, peer)


@pytest.mark.peer
@pytest.mark.parametrize(("case", "peer"), [(LSTM, torch_lstm), (GRU, torch_gru)])
def test_values_and_gradients_are_those_of_pytorch_with_diagonal_matrices(case, peer, x64):
    comparison.assert_agrees(case, peer, comparison.differentiate_torch)


@pytest.mark.parametrize("cell", [sj.DiagonalLSTM, sj.DiagonalGRU])
def test_each_entry_of_u_is_drawn_as_a_matrix_of_one_by_one(cell, key):
    u = {
        rule: np.asarray(cell(64, recurrent_init=rule).init(key, 1).recurrent_scale)
        for rule in (*NAMED, Constant(0.3))
    }
    # 192 entries or more: none lies in the tenth at one end with probability (9/10)^192, 2e-9.
    for rule, bound in (("uniform_fan_in", 1), ("glorot", np.sqrt(3))):
        assert -bound <= u[rule].min() < -0.8 * bound
        assert 0.8 * bound < u[rule].max() <= bound
        gates = np.split(u[rule], u[rule].size // 64)
        assert not np.allclose(gates[0], gates[1])
    assert set(u["orthogonal"]) == {-1.0, 1.0}
    for rule, value in (("identity", 1.0), ("zeros", 0.0), (Constant(0.3), np.float32(0.3))):
        assert set(u[rule]) == {value}
    np.testing.assert_array_equal(cell(64).init(key, 1).recurrent_scale, u["uniform_fan_in"])
