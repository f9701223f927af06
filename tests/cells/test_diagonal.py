"""LSTM and GRU with diagonal recurrence against NumPy loops, the dense cells and PyTorch."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seqjax as sj
from seqjax.cells.diagonal import (
    DiagonalGRUParams,
    DiagonalGRUState,
    DiagonalLSTMParams,
    DiagonalLSTMState,
)
from seqjax.cells.gru import GRUParams, GRUState
from seqjax.cells.lstm import LSTMParams, LSTMState
from seqjax.initializers import NAMED, Chrono, Constant
from tests import oracles
from tests.oracles import sigmoid

pytestmark = pytest.mark.usefixtures("quick_compilation")

TIME, BATCH, IN_FEATURES, FEATURES = 4, 2, 2, 3
WEIGHTS = np.cos(np.arange(TIME * BATCH * FEATURES)).reshape(TIME, BATCH, FEATURES)


def draw(*shapes):
    """Float64 arrays, the same at every call."""
    random = np.random.default_rng(0)
    return [0.8 * random.standard_normal(shape) for shape in shapes]


def arguments(gates, states, features=FEATURES, in_features=IN_FEATURES, time=TIME, batch=(BATCH,)):
    """W, u, b, xs and as many initial states."""
    return draw(
        (in_features, gates * features),
        (gates * features,),
        (gates * features,),
        (time, *batch, in_features),
        *((*batch, features),) * states,
    )


def by_gate(names, W, u, b):
    """The pre-activation of each gate as a function of x_t and h_{t-1}: x_t W + u ⊙ h_{t-1} + b."""
    count = len(names)
    blocks = zip(np.split(W, count, axis=1), np.split(u, count), np.split(b, count), strict=True)
    return {
        name: lambda x, h, W=W, u=u, b=b: x @ W + u * h + b
        for name, (W, u, b) in zip(names, blocks, strict=True)
    }


def lstm_row(W, u, b, x, h, c):
    """One sequence of an LSTM whose recurrent matrices are diagonal."""
    gates, hs, cs = by_gate("ifgo", W, u, b), [], []
    for x_t in x:
        i = sigmoid(gates["i"](x_t, h))
        f = sigmoid(gates["f"](x_t, h))
        g = np.tanh(gates["g"](x_t, h))
        o = sigmoid(gates["o"](x_t, h))
        c = f * c + i * g
        h = o * np.tanh(c)
        hs.append(h)
        cs.append(c)
    return np.array(hs), np.array(cs)


def gru_row(W, u, b, x, h):
    """One sequence of a GRU as Cho et al. 2014 have it, the reset before a product with diag(u_n)."""
    gates, hs = by_gate("rzn", W, u, b), []
    for x_t in x:
        r = sigmoid(gates["r"](x_t, h))
        z = sigmoid(gates["z"](x_t, h))
        n = np.tanh(gates["n"](x_t, r * h))
        h = (1 - z) * n + z * h
        hs.append(h)
    return np.array(hs)


def lstm_by_equation(W, u, b, xs, h, c):
    """Hidden states and memories of all rows: each [time, *batch, features]."""
    if h.ndim == 1:
        return lstm_row(W, u, b, xs, h, c)
    rows = [lstm_row(W, u, b, xs[:, i], h[i], c[i]) for i in range(xs.shape[1])]
    return np.stack([hs for hs, _ in rows], axis=1), np.stack([cs for _, cs in rows], axis=1)


def gru_by_equation(W, u, b, xs, h):
    """The hidden states of all rows: [time, *batch, features]."""
    if h.ndim == 1:
        return gru_row(W, u, b, xs, h)
    return np.stack([gru_row(W, u, b, xs[:, i], h[i]) for i in range(xs.shape[1])], axis=1)


def lstm_loss(W, u, b, xs, h, c):
    """The outputs and the last memory, each entry with another weight."""
    cell = sj.DiagonalLSTM(FEATURES, param_dtype=jnp.float64)
    state, ys = sj.unroll(cell, DiagonalLSTMParams(W, u, b), xs, DiagonalLSTMState(h, c))
    return (ys * WEIGHTS).sum() + (state.c * WEIGHTS[0]).sum(), (ys, state)


def gru_loss(W, u, b, xs, h):
    """The outputs, each entry with another weight."""
    cell = sj.DiagonalGRU(FEATURES, param_dtype=jnp.float64)
    state, ys = sj.unroll(cell, DiagonalGRUParams(W, u, b), xs, DiagonalGRUState(h))
    return (ys * WEIGHTS).sum(), (ys, state)


lstm_gradients = jax.jit(jax.value_and_grad(lstm_loss, argnums=range(6), has_aux=True))
gru_gradients = jax.jit(jax.value_and_grad(gru_loss, argnums=range(5), has_aux=True))


def test_the_lstm_and_all_its_gradients_are_those_of_the_equations(x64):
    def expected_loss(*a):
        hs, cs = lstm_by_equation(*a)
        return (hs * WEIGHTS).sum() + (cs[-1] * WEIGHTS[0]).sum()

    (_, (ys, state)), gradients = lstm_gradients(*arguments(4, 2))
    hs, cs = lstm_by_equation(*arguments(4, 2))
    np.testing.assert_allclose(ys, hs, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(state.h, hs[-1], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(state.c, cs[-1], rtol=1e-12, atol=1e-12)
    quotients = oracles.finite_differences(expected_loss, *arguments(4, 2))
    for ours, theirs in zip(gradients, quotients, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-8, atol=1e-9)


def test_the_gru_and_all_its_gradients_are_those_of_the_equations(x64):
    (_, (ys, state)), gradients = gru_gradients(*arguments(3, 1))
    hs = gru_by_equation(*arguments(3, 1))
    np.testing.assert_allclose(ys, hs, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(state.h, hs[-1], rtol=1e-12, atol=1e-12)
    quotients = oracles.finite_differences(
        lambda *a: (gru_by_equation(*a) * WEIGHTS).sum(), *arguments(3, 1)
    )
    for ours, theirs in zip(gradients, quotients, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-8, atol=1e-9)


SHAPES = [(7, 5, 4, (3,)), (1, 1, 3, (2,)), (3, 2, 1, (1,)), (3, 2, 4, ())]


@pytest.mark.parametrize("shape", SHAPES)
def test_in_single_precision_the_lstm_keeps_to_the_equations(shape):
    wide = arguments(4, 2, *shape)
    W, u, b, xs, h, c = (jnp.asarray(a, jnp.float32) for a in wide)
    params = DiagonalLSTMParams(W, u, b)
    state, ys = sj.unroll(sj.DiagonalLSTM(shape[0]), params, xs, DiagonalLSTMState(h, c))
    hs, cs = lstm_by_equation(*wide)
    np.testing.assert_allclose(ys, hs, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(state.c, cs[-1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_in_single_precision_the_gru_keeps_to_the_equations(shape):
    wide = arguments(3, 1, *shape)
    W, u, b, xs, h = (jnp.asarray(a, jnp.float32) for a in wide)
    params = DiagonalGRUParams(W, u, b)
    _, ys = sj.unroll(sj.DiagonalGRU(shape[0]), params, xs, DiagonalGRUState(h))
    np.testing.assert_allclose(ys, gru_by_equation(*wide), rtol=1e-5, atol=1e-6)


def dense(u, gates):
    """diag(u_g) for each gate, side by side: [features, gates · features]."""
    return np.concatenate([np.diag(block) for block in np.split(u, gates)], axis=1)


def diagonals(U, gates):
    """The diagonals of the matrices that stand side by side in U."""
    return np.concatenate([np.diag(block) for block in np.split(np.asarray(U), gates, axis=1)])


def test_both_are_the_dense_cells_with_diagonal_matrices(x64):
    W, u, b, *rest = arguments(4, 2)
    (_, (ys, _)), _ = lstm_gradients(W, u, b, *rest)
    params = LSTMParams(*map(jnp.asarray, (W, dense(u, 4), b)))
    xs, h, c = map(jnp.asarray, rest)
    _, expected = sj.unroll(sj.LSTM(FEATURES, param_dtype=jnp.float64), params, xs, LSTMState(h, c))
    np.testing.assert_allclose(ys, expected, rtol=1e-12)

    W, u, b, *rest = arguments(3, 1)
    (_, (ys, _)), _ = gru_gradients(W, u, b, *rest)
    params = GRUParams(*map(jnp.asarray, (W, dense(u, 3), b, np.zeros(FEATURES))))
    xs, h = map(jnp.asarray, rest)
    _, expected = sj.unroll(sj.GRU(FEATURES, param_dtype=jnp.float64), params, xs, GRUState(h))
    np.testing.assert_allclose(ys, expected, rtol=1e-12)


def torch_with(torch, kind, W, u, b, gates):
    """A PyTorch LSTM or GRU of these weights, with diagonal recurrent matrices and one bias."""
    peer = kind(IN_FEATURES, FEATURES, dtype=torch.float64)
    with torch.no_grad():
        peer.weight_ih_l0.copy_(torch.tensor(W.T))
        peer.weight_hh_l0.copy_(torch.tensor(dense(u, gates).T))
        peer.bias_ih_l0.copy_(torch.tensor(b))
        peer.bias_hh_l0.zero_()
    return peer


def assert_gradients_are_those_of_torch(gradients, peer, gates, *inputs):
    theirs = (
        peer.weight_ih_l0.grad.T.numpy(),
        diagonals(peer.weight_hh_l0.grad.T.numpy(), gates),
        peer.bias_ih_l0.grad.numpy(),
        *(a.grad.numpy() for a in inputs),
    )
    for a, b in zip(gradients, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.peer
def test_the_lstm_has_the_outputs_and_gradients_of_pytorch_with_diagonal_matrices(x64):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    W, u, b, *rest = arguments(4, 2)
    peer = torch_with(torch, torch.nn.LSTM, W, u, b, 4)
    xs, h, c = (torch.tensor(a, requires_grad=True) for a in rest)
    expected, (_, last_c) = peer(xs, (h[None], c[None]))
    weights = torch.tensor(WEIGHTS)
    ((expected * weights).sum() + (last_c[0] * weights[0]).sum()).backward()
    (_, (ys, _)), gradients = lstm_gradients(W, u, b, *rest)
    np.testing.assert_allclose(ys, expected.detach().numpy(), rtol=1e-10, atol=1e-12)
    assert_gradients_are_those_of_torch(gradients, peer, 4, xs, h, c)


@pytest.mark.peer
def test_the_gru_has_the_outputs_and_gradients_of_pytorch_with_diagonal_matrices(x64):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    W, u, b, *rest = arguments(3, 1)
    peer = torch_with(torch, torch.nn.GRU, W, u, b, 3)
    xs, h = (torch.tensor(a, requires_grad=True) for a in rest)
    expected, _ = peer(xs, h[None])
    (expected * torch.tensor(WEIGHTS)).sum().backward()
    (_, (ys, _)), gradients = gru_gradients(W, u, b, *rest)
    np.testing.assert_allclose(ys, expected.detach().numpy(), rtol=1e-10, atol=1e-12)
    assert_gradients_are_those_of_torch(gradients, peer, 3, xs, h)


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


@pytest.mark.parametrize(("cell", "gates"), [(sj.DiagonalLSTM, 4), (sj.DiagonalGRU, 3)])
def test_the_input_kernel_is_drawn_gate_by_gate(cell, gates, key):
    blocks = np.split(np.asarray(cell(8).init(key, 8).input_kernel), gates, axis=1)
    assert all(oracles.is_drawn_by("glorot", block) for block in blocks)
    assert not np.allclose(blocks[0], blocks[1])


def test_the_forget_bias_starts_at_one_and_chrono_opposes_the_input_gate(key):
    i, f, g, o = jnp.split(sj.DiagonalLSTM(5).init(key, 2).bias, 4)
    np.testing.assert_array_equal(f, np.ones(5))
    np.testing.assert_array_equal([i, g, o], np.zeros((3, 5)))
    i, f, g, o = jnp.split(sj.DiagonalLSTM(64, forget_bias=Chrono(100)).init(key, 2).bias, 4)
    np.testing.assert_array_equal(i, -f)
    # u ~ U(1, 99) lies on either side of 50: all 64 on the same with probability 2⁻⁶³.
    assert 0 <= f.min() < np.log(50) < f.max() <= np.log(99)
    np.testing.assert_array_equal([g, o], np.zeros((2, 64)))


def test_the_update_bias_is_that_of_z_alone(key):
    np.testing.assert_array_equal(sj.DiagonalGRU(5).init(key, 2).bias, np.zeros(15))
    r, z, n = jnp.split(sj.DiagonalGRU(5, update_bias=1.5).init(key, 2).bias, 3)
    np.testing.assert_array_equal(z, np.full(5, 1.5))
    np.testing.assert_array_equal([r, n], np.zeros((2, 5)))


@pytest.mark.parametrize("cell", [sj.DiagonalLSTM(3), sj.DiagonalGRU(3)])
def test_the_state_starts_at_zero(cell, key):
    for leaf in cell.initial_state(cell.init(key, 2), (2,)):
        np.testing.assert_array_equal(leaf, np.zeros((2, 3)))


@pytest.mark.parametrize("cell", [sj.DiagonalLSTM, sj.DiagonalGRU])
def test_what_makes_no_cell_is_refused(cell):
    name = cell.__name__
    with pytest.raises(ValueError, match=f"^{name}: features: expected a positive integer, got 0$"):
        cell(0)
    unknown: Any = {"recurrent_init": "kaiming"}
    with pytest.raises(ValueError, match=f"^{name}: recurrent_init: .*'kaiming'$") as refusal:
        cell(3, **unknown)
    assert all(repr(rule) in str(refusal.value) for rule in NAMED)


@pytest.mark.parametrize("cell", [sj.DiagonalLSTM(3), sj.DiagonalGRU(3)])
def test_inputs_of_another_size_are_refused(cell, key):
    params = cell.init(key, in_features=2)
    with pytest.raises(ValueError, match=r"x has shape \(4, 5\); expected \[\*batch, 2\]"):
        cell.step(params, cell.initial_state(params, (4,)), jnp.ones((4, 5)))
