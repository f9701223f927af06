"""The minimal gated unit against a NumPy loop, finite differences and a GRU of Keras with tied gates."""

import jax.numpy as jnp
import numpy as np
import pytest

import seqjax as sj
from seqjax.cells.gru import ChoGRUParams, ChoGRUState
from seqjax.cells.mgu import MGUParams, MGUState
from tests.cells import comparison
from tests.cells.comparison import FEATURES, SIZES, Comparison, unpacked
from tests.oracles import sigmoid

pytestmark = pytest.mark.usefixtures("quick_compilation")


def row(W, U, b, x, h):
    """One sequence (Zhou et al. 2016)."""
    gates, hs = unpacked("fn", W, U, b), []
    for x_t in x:
        f = sigmoid(gates["f"](x_t, h))
        new = np.tanh(gates["n"](x_t, f * h))
        h = (1 - f) * h + f * new
        hs.append(h)
    return np.array(hs), h


MGU = Comparison(sj.MGU(FEATURES), row)


def test_the_cell_and_all_its_gradients_are_those_of_the_equations(x64):
    comparison.assert_follows_the_equations(MGU)


@SIZES
def test_in_single_precision_the_cell_keeps_to_the_equations(sizes):
    comparison.assert_values_follow_the_equations(MGU.at(*sizes))


def tied(packed, order):
    """The weights of a GRU that is this unit, r = f and z = 1 - f = σ(-a), packed in that order."""
    f, n = jnp.split(packed, 2, axis=-1)
    return jnp.concatenate([{"r": f, "z": -f, "n": n}[gate] for gate in order], axis=-1)


def cho_gru(W, U, b, xs, h):
    params = ChoGRUParams(*(tied(packed, "rzn") for packed in (W, U, b)))
    return comparison.unrolled(sj.ChoGRU(FEATURES), params, xs, ChoGRUState(h))


def keras_gru(W, U, b, xs, h):
    weights = [tied(packed, "zrn") for packed in (W, U, b)]
    return comparison.run_keras("GRU", weights, xs, h, reset_after=False)


def test_it_is_the_gru_of_cho_whose_gates_are_tied(x64):
    comparison.assert_agrees(MGU, cho_gru)


@pytest.mark.peer
def test_values_and_gradients_are_those_of_a_keras_gru_whose_gates_are_tied(
    x64, standard_promotion
):
    comparison.assert_agrees(MGU, keras_gru)


def test_a_shut_gate_keeps_and_an_open_gate_renews():
    zeros = jnp.zeros((2, 2))
    step = lambda bias: sj.MGU(1).step(
        MGUParams(zeros, zeros[:1], jnp.array([bias, 0.3])), MGUState(jnp.array([0.7])), zeros[0]
    )[1]
    np.testing.assert_allclose(step(-50.0), [0.7], rtol=1e-6)
    np.testing.assert_allclose(step(50.0), [np.tanh(0.3)], rtol=1e-6)
