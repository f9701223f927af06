"""The GRU of Cho et al. against a NumPy loop, finite differences, Keras and Haiku."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import seqjax as sj
from seqjax.cells.gru import ChoGRUParams, ChoGRUState, GRUParams, GRUState
from tests.cells import comparison
from tests.cells.comparison import FEATURES, SIZES, Comparison, reordered, unpacked
from tests.oracles import sigmoid

pytestmark = pytest.mark.usefixtures("quick_compilation")


def row(W, U, b, x, h):
    """One sequence (Cho et al. 2014)."""
    gates, hs = unpacked("rzn", W, U, b), []
    for x_t in x:
        r = sigmoid(gates["r"](x_t, h))
        z = sigmoid(gates["z"](x_t, h))
        n = np.tanh(x_t @ gates["n"].W + (r * h) @ gates["n"].U + gates["n"].b)
        h = (1 - z) * n + z * h
        hs.append(h)
    return np.array(hs), h


CHO_GRU = Comparison(sj.ChoGRU(FEATURES), row)


def test_the_cell_and_all_its_gradients_are_those_of_the_equations(x64):
    comparison.assert_follows_the_equations(CHO_GRU)


@SIZES
def test_in_single_precision_the_cell_keeps_to_the_equations(sizes):
    comparison.assert_values_follow_the_equations(CHO_GRU.at(*sizes))


def keras_gru(W, U, b, xs, h):
    """Keras' GRU: z, r, n."""
    weights = [reordered("rzn", packed, "zrn") for packed in (W, U, b)]
    return comparison.run_keras("GRU", weights, xs, h, reset_after=False)


def haiku_gru(W, U, b, xs, h):
    """Haiku's GRU: z, r, a; and z = 1 there takes the candidate, σ(-z) = 1 - σ(z)."""
    hk: Any = pytest.importorskip("haiku", reason="Haiku is not installed")
    core = hk.without_apply_rng(hk.transform(lambda x, h: hk.GRU(FEATURES, name="gru")(x, h)))
    weights = [reordered("rzn", packed, "zrn", negated="z") for packed in (W, U, b)]
    params = {"gru": dict(zip(("w_i", "w_h", "b"), weights, strict=True))}
    step = lambda x, h: core.apply(params, x, h)
    return comparison.run_steps(step, xs, h)


@pytest.mark.peer
@pytest.mark.parametrize("peer", [keras_gru, haiku_gru])
def test_values_and_gradients_are_those_of_keras_and_haiku(peer, x64, standard_promotion):
    comparison.assert_agrees(CHO_GRU, peer)


def test_where_all_reset_gates_are_open_it_is_the_gru_whose_reset_comes_after(x64):
    W, U, b, xs, h = map(jnp.asarray, CHO_GRU.arguments())
    b = b.at[:FEATURES].set(50.0)  # σ(50) is 1 to rounding
    params = GRUParams(W, U, b, jnp.zeros(FEATURES))
    expected = comparison.unrolled(sj.GRU(FEATURES), params, xs, GRUState(h))
    comparison.assert_close(CHO_GRU.run(W, U, b, xs, h), expected, rtol=1e-12, atol=1e-12)


def test_the_reset_gate_acts_before_the_recurrent_matmul():
    # Two units, each of which reads the other. Only unit 0 is reset, so it is unit 1 that forgets.
    shut, keep_none = -50.0, -50.0
    swap = jnp.array([[0.0, 1.0], [1.0, 0.0]])
    params = ChoGRUParams(
        input_kernel=jnp.zeros((1, 6)),
        recurrent_kernel=jnp.concatenate([jnp.zeros((2, 4)), swap], axis=1),
        bias=jnp.array([shut, 50.0, keep_none, keep_none, 0.0, 0.0]),
    )
    state = ChoGRUState(jnp.array([0.4, 0.7]))
    _, y = sj.ChoGRU(2).step(params, state, jnp.ones(1))
    np.testing.assert_allclose(y, [np.tanh(0.7), 0.0], atol=1e-6)
