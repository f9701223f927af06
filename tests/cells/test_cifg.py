"""Coupled input and forget gate against the NumPy loop, finite differences, the LSTM and PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seqjax as sj
from seqjax.cells.cifg import CIFGParams, CIFGState
from seqjax.cells.lstm import LSTMParams, LSTMState
from seqjax.initializers import Chrono
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
    """W, U, b, xs, h_0 and c_0."""
    return draw(
        (in_features, 3 * features),
        (features, 3 * features),
        (3 * features,),
        (time, *batch, in_features),
        (*batch, features),
        (*batch, features),
    )


def one_row(gates, x, h, c):
    """One sequence: an LSTM with i_t = 1 - f_t (Greff et al. 2017)."""
    hs, cs = [], []
    for x_t in x:
        f = sigmoid(gates["f"](x_t, h))
        g = np.tanh(gates["g"](x_t, h))
        o = sigmoid(gates["o"](x_t, h))
        i = 1 - f
        c = f * c + i * g
        h = o * np.tanh(c)
        hs.append(h)
        cs.append(c)
    return np.array(hs), np.array(cs)


def by_equation(W, U, b, xs, h, c):
    """Hidden states and memories of all rows: each [time, *batch, features]."""
    blocks = zip(np.split(W, 3, axis=1), np.split(U, 3, axis=1), np.split(b, 3), strict=True)
    gates = dict(zip("fgo", (Gate(*block) for block in blocks), strict=True))
    if h.ndim == 1:
        return one_row(gates, xs, h, c)
    rows = [one_row(gates, xs[:, i], h[i], c[i]) for i in range(xs.shape[1])]
    return np.stack([hs for hs, _ in rows], axis=1), np.stack([cs for _, cs in rows], axis=1)


def loss(W, U, b, xs, h, c):
    """The outputs and the last memory, each entry with another weight."""
    cell = sj.CIFG(FEATURES, param_dtype=jnp.float64)
    state, ys = sj.unroll(cell, CIFGParams(W, U, b), xs, CIFGState(h, c))
    return (ys * WEIGHTS).sum() + (state.c * WEIGHTS[0]).sum(), (ys, state)


with_gradients = jax.jit(jax.value_and_grad(loss, argnums=range(6), has_aux=True))


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
    W, U, b, xs, h, c = (jnp.asarray(a, jnp.float32) for a in wide)
    state, ys = sj.unroll(sj.CIFG(features), CIFGParams(W, U, b), xs, CIFGState(h, c))
    hs, cs = by_equation(*wide)
    np.testing.assert_allclose(ys, hs, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(state.c, cs[-1], rtol=1e-5, atol=1e-6)


def with_opposed_input_gate(packed):
    """F, g, o as i, f, g, o with i = -f before the sigmoid: 1 - σ(a) = σ(-a)."""
    f, g, o = np.split(packed, 3, axis=-1)
    return np.concatenate([-f, f, g, o], axis=-1)


def without_input_gate(gradient):
    """The gradient of f, g, o from that of i, f, g, o, where i = -f."""
    i, f, g, o = np.split(np.asarray(gradient), 4, axis=-1)
    return np.concatenate([f - i, g, o], axis=-1)


def test_it_is_the_lstm_whose_input_gate_is_opposed_to_its_forget_gate(x64):
    W, U, b, *rest = arguments()
    (_, (ys, state)), _ = with_gradients(W, U, b, *rest)
    xs, h, c = map(jnp.asarray, rest)
    params = LSTMParams(*(jnp.asarray(with_opposed_input_gate(packed)) for packed in (W, U, b)))
    cell = sj.LSTM(FEATURES, param_dtype=jnp.float64)
    expected, expected_ys = sj.unroll(cell, params, xs, LSTMState(h, c))
    np.testing.assert_allclose(ys, expected_ys, rtol=1e-12)
    np.testing.assert_allclose(state.c, expected.c, rtol=1e-12)


@pytest.mark.peer
def test_outputs_and_gradients_are_those_of_pytorch_with_opposed_gates(x64):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    W, U, b, *rest = arguments()
    peer = torch.nn.LSTM(IN_FEATURES, FEATURES, dtype=torch.float64)
    with torch.no_grad():
        peer.weight_ih_l0.copy_(torch.tensor(with_opposed_input_gate(W).T))
        peer.weight_hh_l0.copy_(torch.tensor(with_opposed_input_gate(U).T))
        peer.bias_ih_l0.copy_(torch.tensor(with_opposed_input_gate(b)))
        peer.bias_hh_l0.zero_()
    xs, h, c = (torch.tensor(a, requires_grad=True) for a in rest)
    expected, (_, last_c) = peer(xs, (h[None], c[None]))
    weights = torch.tensor(WEIGHTS)
    ((expected * weights).sum() + (last_c[0] * weights[0]).sum()).backward()
    (_, (ys, _)), gradients = with_gradients(*arguments())
    np.testing.assert_allclose(ys, expected.detach().numpy(), rtol=1e-10, atol=1e-12)
    theirs = (
        without_input_gate(peer.weight_ih_l0.grad.T.numpy()),
        without_input_gate(peer.weight_hh_l0.grad.T.numpy()),
        without_input_gate(peer.bias_ih_l0.grad.numpy()),
        xs.grad.numpy(),
        h.grad.numpy(),
        c.grad.numpy(),
    )
    for a, b in zip(gradients, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)


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


def test_kernels_are_drawn_gate_by_gate_and_the_forget_bias_starts_at_one(key):
    params = sj.CIFG(8).init(key, 8)
    blocks = np.split(np.asarray(params.recurrent_kernel), 3, axis=1)
    assert all(oracles.is_drawn_by("orthogonal", block) for block in blocks)
    assert not np.allclose(blocks[0], blocks[1])
    for block in np.split(np.asarray(params.input_kernel), 3, axis=1):
        assert oracles.is_drawn_by("glorot", block)
    f, g, o = np.split(np.asarray(params.bias), 3)
    np.testing.assert_array_equal(f, np.ones(8))
    np.testing.assert_array_equal([g, o], np.zeros((2, 8)))


def test_chrono_draws_the_forget_bias_alone(key):
    f, g, o = jnp.split(sj.CIFG(64, forget_bias=Chrono(100)).init(key, 2).bias, 3)
    # u ~ U(1, 99) lies on either side of 50: all 64 on the same with probability 2⁻⁶³.
    assert 0 <= f.min() < np.log(50) < f.max() <= np.log(99)
    np.testing.assert_array_equal([g, o], np.zeros((2, 64)))


def test_the_state_starts_at_zero(key):
    cell = sj.CIFG(3)
    state = cell.initial_state(cell.init(key, 2), (2,))
    np.testing.assert_array_equal(state.h, np.zeros((2, 3)))
    np.testing.assert_array_equal(state.c, np.zeros((2, 3)))


def test_what_makes_no_cell_is_refused():
    with pytest.raises(ValueError, match=r"^CIFG: features: expected a positive integer, got 0$"):
        sj.CIFG(0)
    with pytest.raises(ValueError, match=r"^CIFG: recurrent_init: expected one of .*'kaiming'$"):
        sj.CIFG(3, recurrent_init="kaiming")
    with pytest.raises(ValueError, match=r"^CIFG: forget_bias: expected a finite number, got nan$"):
        sj.CIFG(3, forget_bias=float("nan"))


def test_inputs_of_another_size_are_refused(key):
    cell = sj.CIFG(3)
    params = cell.init(key, in_features=2)
    with pytest.raises(ValueError, match=r"CIFG: x has shape \(4, 5\); expected \[\*batch, 2\]"):
        cell.step(params, cell.initial_state(params, (4,)), jnp.ones((4, 5)))
