"""The LSTM with peepholes against the NumPy loop, finite differences and the LSTM without them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seqjax as sj
from seqjax.cells.lstm import LSTMParams, LSTMState
from seqjax.cells.peephole import PeepholeLSTMParams, PeepholeLSTMState
from seqjax.initializers import Chrono, Orthogonal
from tests import oracles
from tests.oracles import Gate, sigmoid

pytestmark = pytest.mark.usefixtures("quick_compilation")

TIME, BATCH, IN_FEATURES, FEATURES = 4, 2, 2, 3
WEIGHTS = np.cos(np.arange(TIME * BATCH * FEATURES)).reshape(TIME, BATCH, FEATURES)


def draw(*shapes):
    """Float64 arrays, the same at every call."""
    random = np.random.default_rng(0)
    return [0.8 * random.standard_normal(shape) for shape in shapes]


def arguments(features=FEATURES, in_features=IN_FEATURES, time=TIME, batch=(BATCH,)):
    """W, U, b, p, xs, h_0 and c_0."""
    return draw(
        (in_features, 4 * features),
        (features, 4 * features),
        (4 * features,),
        (3 * features,),
        (time, *batch, in_features),
        (*batch, features),
        (*batch, features),
    )


def one_row(gates, peepholes, x, h, c):
    """One sequence, as Gers, Schraudolph, Schmidhuber 2002 have it, and Graves 2013 with tanh(c)."""
    hs, cs = [], []
    for x_t in x:
        i = sigmoid(gates["i"](x_t, h) + peepholes["i"] * c)
        f = sigmoid(gates["f"](x_t, h) + peepholes["f"] * c)
        c = f * c + i * np.tanh(gates["g"](x_t, h))
        o = sigmoid(gates["o"](x_t, h) + peepholes["o"] * c)  # sees the memory that it lets out
        h = o * np.tanh(c)
        hs.append(h)
        cs.append(c)
    return np.array(hs), np.array(cs)


def by_equation(W, U, b, p, xs, h, c):
    """Hidden states and memories of all rows: each [time, *batch, features]."""
    blocks = zip(np.split(W, 4, axis=1), np.split(U, 4, axis=1), np.split(b, 4), strict=True)
    gates = dict(zip("ifgo", (Gate(*block) for block in blocks), strict=True))
    peepholes = dict(zip("ifo", np.split(p, 3), strict=True))
    if h.ndim == 1:
        return one_row(gates, peepholes, xs, h, c)
    rows = [one_row(gates, peepholes, xs[:, i], h[i], c[i]) for i in range(xs.shape[1])]
    return np.stack([hs for hs, _ in rows], axis=1), np.stack([cs for _, cs in rows], axis=1)


def loss(W, U, b, p, xs, h, c):
    """The outputs and the last memory, each entry with another weight."""
    cell = sj.PeepholeLSTM(FEATURES, param_dtype=jnp.float64)
    state, ys = sj.unroll(cell, PeepholeLSTMParams(W, U, b, p), xs, PeepholeLSTMState(h, c))
    return (ys * WEIGHTS).sum() + (state.c * WEIGHTS[0]).sum(), (ys, state)


with_gradients = jax.jit(jax.value_and_grad(loss, argnums=range(7), has_aux=True))


def test_the_cell_and_all_its_gradients_are_those_of_the_equations(x64):
    def expected_loss(*a):
        hs, cs = by_equation(*a)
        return (hs * WEIGHTS).sum() + (cs[-1] * WEIGHTS[0]).sum()

    (_, (ys, state)), gradients = with_gradients(*arguments())
    hs, cs = by_equation(*arguments())
    np.testing.assert_allclose(ys, hs, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(state.h, hs[-1], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(state.c, cs[-1], rtol=1e-12, atol=1e-12)
    quotients = oracles.finite_differences(expected_loss, *arguments())
    for ours, theirs in zip(gradients, quotients, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-8, atol=1e-9)


SHAPES = [(7, 5, 4, (3,)), (1, 1, 3, (2,)), (3, 2, 1, (1,)), (3, 2, 4, ())]


@pytest.mark.parametrize(("features", "in_features", "time", "batch"), SHAPES)
def test_in_single_precision_the_cell_keeps_to_the_equations(features, in_features, time, batch):
    wide = arguments(features, in_features, time, batch)
    W, U, b, p, xs, h, c = (jnp.asarray(a, jnp.float32) for a in wide)
    params = PeepholeLSTMParams(W, U, b, p)
    state, ys = sj.unroll(sj.PeepholeLSTM(features), params, xs, PeepholeLSTMState(h, c))
    hs, cs = by_equation(*wide)
    np.testing.assert_allclose(ys, hs, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(state.c, cs[-1], rtol=1e-5, atol=1e-6)


def test_with_closed_peepholes_it_is_the_lstm_in_values_and_gradients(x64):
    def plain_loss(W, U, b, xs, h, c):
        cell = sj.LSTM(FEATURES, param_dtype=jnp.float64)
        state, ys = sj.unroll(cell, LSTMParams(W, U, b), xs, LSTMState(h, c))
        return (ys * WEIGHTS).sum() + (state.c * WEIGHTS[0]).sum(), ys

    W, U, b, p, *rest = arguments()
    (_, (ys, _)), gradients = with_gradients(W, U, b, 0 * p, *rest)
    plain = jax.value_and_grad(plain_loss, argnums=range(6), has_aux=True)
    (_, expected), expected_gradients = jax.jit(plain)(W, U, b, *rest)
    np.testing.assert_allclose(ys, expected, rtol=1e-12)
    for a, e in zip(gradients[:3] + gradients[4:], expected_gradients, strict=True):
        np.testing.assert_allclose(a, e, rtol=1e-10, atol=1e-12)
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


def test_the_kernels_and_the_forget_bias_start_as_those_of_the_lstm(key):
    params = sj.PeepholeLSTM(8).init(key, 8)
    for block in np.split(np.asarray(params.recurrent_kernel), 4, axis=1):
        assert oracles.is_drawn_by("orthogonal", block)
    for block in np.split(np.asarray(params.input_kernel), 4, axis=1):
        assert oracles.is_drawn_by("glorot", block)
    i, f, g, o = np.split(np.asarray(params.bias), 4)
    np.testing.assert_array_equal(f, np.ones(8))
    np.testing.assert_array_equal([i, g, o], np.zeros((3, 8)))


def test_chrono_opposes_the_input_gate_to_the_forget_gate(key):
    cell = sj.PeepholeLSTM(64, forget_bias=Chrono(100), recurrent_init="zeros")
    i, f, g, o = jnp.split(cell.init(key, 2).bias, 4)
    np.testing.assert_array_equal(i, -f)
    # u ~ U(1, 99) lies on either side of 50: all 64 on the same with probability 2⁻⁶³.
    assert 0 <= f.min() < np.log(50) < f.max() <= np.log(99)
    np.testing.assert_array_equal([g, o], np.zeros((2, 64)))


def test_the_state_starts_at_zero(key):
    cell = sj.PeepholeLSTM(3)
    state = cell.initial_state(cell.init(key, 2), (2,))
    np.testing.assert_array_equal(state.h, np.zeros((2, 3)))
    np.testing.assert_array_equal(state.c, np.zeros((2, 3)))


def test_what_makes_no_cell_is_refused():
    with pytest.raises(ValueError, match=r"^PeepholeLSTM: features: expected a positive integer"):
        sj.PeepholeLSTM(0)
    with pytest.raises(
        ValueError,
        match=r"^PeepholeLSTM: peephole_init: expected one of 'uniform_fan_in', 'zeros', "
        r"got 'glorot'$",
    ):
        sj.PeepholeLSTM(3, peephole_init="glorot")
    with pytest.raises(ValueError, match=r"PeepholeLSTM: peephole_init: .*draws matrices only"):
        sj.PeepholeLSTM(3, peephole_init=Orthogonal())


def test_inputs_of_another_size_are_refused(key):
    cell = sj.PeepholeLSTM(3)
    params = cell.init(key, in_features=2)
    message = r"PeepholeLSTM: x has shape \(4, 5\); expected \[\*batch, 2\]"
    with pytest.raises(ValueError, match=message):
        cell.step(params, cell.initial_state(params, (4,)), jnp.ones((4, 5)))
