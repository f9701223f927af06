"""The LSTM against the NumPy loop, finite differences and the peers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen

import seqjax as sj
from seqjax.cells.lstm import LSTMParams, LSTMState
from tests import oracles
from tests.cells import comparison
from tests.cells.comparison import (
    FEATURES,
    IN_FEATURES,
    SIZES,
    TIME,
    Comparison,
    reordered,
    split,
    unpacked,
)
from tests.oracles import sigmoid

pytestmark = pytest.mark.usefixtures("quick_compilation")


def row(W, U, b, x, h, c):
    """One sequence (Gers, Schmidhuber, Cummins 2000)."""
    hs, cs = oracles.lstm(unpacked("ifgo", W, U, b), x, h, c)
    return hs, hs[-1], cs[-1]


def projected_row(W, U, b, P, x, h, c):
    """One sequence, as Sak, Senior, Beaufays 2014 have it, without peepholes: r_t = W_rm m_t."""
    gates, rs = unpacked("ifgo", W, U, b), []
    for x_t in x:
        i = sigmoid(gates["i"](x_t, h))
        f = sigmoid(gates["f"](x_t, h))
        c = f * c + i * np.tanh(gates["g"](x_t, h))
        m = sigmoid(gates["o"](x_t, h)) * np.tanh(c)
        h = m @ P
        rs.append(h)
    return np.array(rs), h, c


LSTM = Comparison(sj.LSTM(FEATURES), row)
PROJECTED = Comparison(sj.LSTM(FEATURES, projection=2), projected_row)
BOTH = pytest.mark.parametrize("case", [LSTM, PROJECTED], ids=["plain", "projected"])


@BOTH
def test_the_cell_and_all_its_gradients_are_those_of_the_equations(case, x64):
    comparison.assert_follows_the_equations(case)


def test_in_single_precision_the_cell_keeps_to_the_equations():
    comparison.assert_values_follow_the_equations(LSTM)


@pytest.mark.parametrize(("projection", "features", "batch"), [(1, 2, (1,)), (4, 5, ())])
def test_in_single_precision_the_projected_cell_keeps_to_the_equations(projection, features, batch):
    sizes = (features, IN_FEATURES, TIME, batch)
    comparison.assert_values_follow_the_equations(PROJECTED.at(*sizes, projection=projection))


def test_the_stacked_kernel_gives_the_same_network(x64):
    W, U, b, xs, h, c = LSTM.arguments()
    stacked = np.concatenate([U, W])
    for x, y in zip(xs, LSTM.outcome[0][0], strict=True):
        i, f, g, o = split(np.concatenate([h, x], axis=1) @ stacked + b[None], 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        np.testing.assert_allclose(y, h, rtol=1e-12, atol=1e-12)


def torch_lstm(W, U, b, *rest):
    """PyTorch's LSTM: our order, and two biases that add up to ours."""
    *P, xs, h, c = rest
    options = {"proj_size": h.shape[-1]} if P else {}
    return comparison.run_torch("LSTM", (W, U, 0.3 * b, 0.7 * b, *P), xs, h, c, **options)


@pytest.mark.peer
@SIZES
def test_the_values_are_those_of_pytorch(sizes, x64):
    comparison.assert_values_agree_with_torch(LSTM.at(*sizes), torch_lstm)


@pytest.mark.peer
@BOTH
def test_values_and_gradients_are_those_of_pytorch(case, x64):
    comparison.assert_agrees(case, torch_lstm, comparison.differentiate_torch)


def flax_lstm(peer):
    """Flax' cells: kernels gate by gate, and the bias beside U."""

    def run(W, U, b, xs, h, c):
        cell = getattr(linen, peer)(FEATURES, dtype=jnp.float64, param_dtype=jnp.float64)
        params = {}
        for gate, (w, u, bias) in unpacked("ifgo", W, U, b).items():
            params |= {f"i{gate}": {"kernel": w}, f"h{gate}": {"kernel": u, "bias": bias}}

        def step(x, h, c):
            (c, h), y = cell.apply({"params": params}, (c, h), x)
            return y, h, c

        return comparison.run_steps(step, xs, h, c)

    return run


def haiku_lstm(W, U, b, xs, h, c):
    """Haiku's LSTM: one kernel [W; U], gates in the order i, g, f, o, and 1 added to f in the step."""
    hk = pytest.importorskip("haiku", reason="Haiku is not installed")
    core = hk.without_apply_rng(hk.transform(lambda x, state: hk.LSTM(FEATURES)(x, state)))
    i, f, g, o = split(jnp.concatenate([W, U]), 4)
    i, f, g, o = split(b, 4)
    kernel = reordered("ifgo", jnp.concatenate([W, U]), "igfo")
    linear = {"w": kernel, "b": jnp.concatenate([i, g, f - 1, o])}

    def step(x, h, c):
        y, state = core.apply({"lstm/linear": linear}, x, hk.LSTMState(h, c))
        return y, *state

    return comparison.run_steps(step, xs, h, c)


def equinox_lstm(W, U, b, xs, h, c):
    """Equinox' LSTMCell: transposed kernels in our order, one row at a time."""
    eqx = pytest.importorskip("equinox", reason="Equinox is not installed")
    cell = eqx.nn.LSTMCell(IN_FEATURES, FEATURES, key=jax.random.key(0))
    weights = lambda cell: (cell.weight_ih, cell.weight_hh, cell.bias)
    cell = jax.vmap(eqx.tree_at(weights, cell, (W.T, U.T, b)))

    def step(x, *state):
        h, c = cell(x, state)
        return h, h, c

    return comparison.run_steps(step, xs, h, c)


def keras_lstm(W, U, b, xs, h, c):
    """Keras' LSTM: our order."""
    return comparison.run_keras("LSTM", (W, U, b), xs, h, c)


PEERS = {
    "Flax": flax_lstm("LSTMCell"),
    "Flax, optimized": flax_lstm("OptimizedLSTMCell"),
    "Haiku": haiku_lstm,
    "Equinox": equinox_lstm,
    "Keras": keras_lstm,
}


@pytest.mark.peer
@pytest.mark.parametrize("peer", PEERS.values(), ids=PEERS)
def test_values_and_gradients_are_those_of_other_libraries(peer, x64, standard_promotion):
    comparison.assert_agrees(LSTM, peer)


def test_a_projection_changes_the_sizes_of_y_and_h_and_the_cell_is_no_longer_gated(key):
    cell = sj.LSTM(16, projection=4)
    assert (cell.features, cell.out_features, sj.LSTM(16).out_features) == (16, 4, 16)
    assert sj.as_gated(cell) is None
    assert sj.as_gated(sj.LSTM(16)) == sj.LSTM(16)
    params = cell.init(key, 3)
    assert params.projection is not None
    for block in np.split(np.asarray(params.recurrent_kernel), 4, axis=1):
        np.testing.assert_allclose(block @ block.T, np.eye(4), atol=1e-5)  # orthonormal rows
    bound = np.sqrt(6 / (16 + 4))  # Glorot; 64 entries come near to it, as `is_drawn_by` says
    assert params.projection.shape == (16, 4)
    assert 0.8 * bound < np.abs(params.projection).max() <= bound
    state = cell.initial_state(params, (2,))
    np.testing.assert_array_equal(state.h, np.zeros((2, 4)))
    np.testing.assert_array_equal(state.c, np.zeros((2, 16)))


@pytest.mark.parametrize(
    ("projection", "message"),
    [
        (0, "expected a positive integer, got 0"),
        (3, "expected fewer than the 3 features that are projected, got 3"),
    ],
)
def test_a_projection_that_is_none_is_refused(projection, message):
    with pytest.raises(ValueError, match=f"^LSTM: projection: {message}$"):
        sj.LSTM(3, projection=projection)


def test_the_step_adds_nothing_to_the_forget_bias():
    nothing = LSTMParams(jnp.zeros((2, 12)), jnp.zeros((3, 12)), jnp.zeros(12))
    before = LSTMState(jnp.zeros(3), jnp.ones(3))
    after, y = sj.LSTM(3).step(nothing, before, jnp.ones(2))
    np.testing.assert_allclose(after.c, np.full(3, 0.5), rtol=1e-6)  # σ(0) · 1
    np.testing.assert_allclose(y, np.full(3, 0.5 * np.tanh(0.5)), rtol=1e-6)
