"""The LSTM against the NumPy loop, finite differences, PyTorch and Flax."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen

import seqjax as sj
from seqjax.cells.lstm import LSTMParams, LSTMState
from seqjax.initializers import NAMED
from tests import oracles
from tests.oracles import Gate

pytestmark = pytest.mark.usefixtures("quick_compilation")

TIME, BATCH, IN_FEATURES, FEATURES = 4, 2, 2, 3
WEIGHTS = np.cos(np.arange(TIME * BATCH * FEATURES)).reshape(TIME, BATCH, FEATURES)


def draw(*shapes):
    """Float64 arrays, the same at every call."""
    random = np.random.default_rng(0)
    return [0.8 * random.standard_normal(shape) for shape in shapes]


def arguments():
    """W, U, b, xs, h_0 and c_0."""
    return draw(
        (IN_FEATURES, 4 * FEATURES),
        (FEATURES, 4 * FEATURES),
        (4 * FEATURES,),
        (TIME, BATCH, IN_FEATURES),
        (BATCH, FEATURES),
        (BATCH, FEATURES),
    )


def by_equation(W, U, b, xs, h, c):
    """Hidden states and memories of all rows by the oracle: each [time, batch, features]."""
    blocks = zip(np.split(W, 4, axis=1), np.split(U, 4, axis=1), np.split(b, 4), strict=True)
    gates = dict(zip("ifgo", (Gate(*block) for block in blocks), strict=True))
    rows = [oracles.lstm(gates, xs[:, i], h[i], c[i]) for i in range(xs.shape[1])]
    return np.stack([hs for hs, _ in rows], axis=1), np.stack([cs for _, cs in rows], axis=1)


def loss(W, U, b, xs, h, c):
    """The outputs and the last memory, each entry with another weight."""
    cell = sj.LSTM(FEATURES, param_dtype=jnp.float64)
    state, ys = sj.unroll(cell, LSTMParams(W, U, b), xs, LSTMState(h, c))
    return (ys * WEIGHTS).sum() + (state.c * WEIGHTS[0]).sum(), (ys, state)


with_gradients = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2, 3, 4, 5), has_aux=True))


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


def test_in_single_precision_the_cell_keeps_to_the_equations():
    W, U, b, xs, h, c = (jnp.asarray(a, jnp.float32) for a in arguments())
    state, ys = sj.unroll(sj.LSTM(FEATURES), LSTMParams(W, U, b), xs, LSTMState(h, c))
    hs, cs = by_equation(*arguments())
    np.testing.assert_allclose(ys, hs, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(state.c, cs[-1], rtol=1e-5, atol=1e-6)


def test_the_stacked_kernel_gives_the_same_network(x64):
    W, U, b, xs, h, c = arguments()
    stacked = np.concatenate([U, W])
    params = LSTMParams(*map(jnp.asarray, (W, U, b)))
    cell = sj.LSTM(FEATURES, param_dtype=jnp.float64)
    state = LSTMState(jnp.asarray(h), jnp.asarray(c))
    _, ys = sj.unroll(cell, params, jnp.asarray(xs), state)
    for x, y in zip(xs, np.asarray(ys), strict=True):
        i, f, g, o = np.split(np.concatenate([h, x], axis=1) @ stacked + b[None], 4, axis=1)
        c = oracles.sigmoid(f) * c + oracles.sigmoid(i) * np.tanh(g)
        h = oracles.sigmoid(o) * np.tanh(c)
        np.testing.assert_allclose(y, h, rtol=1e-12, atol=1e-12)


def from_torch(peer):
    """The weights of a PyTorch LSTM: transposed, in the same order, two biases folded into one."""
    return LSTMParams(
        input_kernel=jnp.asarray(peer.weight_ih_l0.detach().numpy().T),
        recurrent_kernel=jnp.asarray(peer.weight_hh_l0.detach().numpy().T),
        bias=jnp.asarray((peer.bias_ih_l0 + peer.bias_hh_l0).detach().numpy()),
    )


SHAPES = [(7, 5, 4, (3,)), (1, 1, 3, (2,)), (7, 2, 1, (2,)), (3, 2, 4, (1,)), (3, 2, 4, ())]


@pytest.mark.peer
@pytest.mark.parametrize(("features", "in_features", "time", "batch"), SHAPES)
def test_the_outputs_are_those_of_pytorch(features, in_features, time, batch, x64):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    torch.manual_seed(0)
    peer = torch.nn.LSTM(in_features, features, dtype=torch.float64)
    xs, h, c = draw((time, *batch, in_features), (*batch, features), (*batch, features))
    expected, (last_h, last_c) = peer(
        torch.tensor(xs), (torch.tensor(h)[None], torch.tensor(c)[None])
    )
    state, ys = sj.unroll(
        sj.LSTM(features, param_dtype=jnp.float64),
        from_torch(peer),
        jnp.asarray(xs),
        LSTMState(jnp.asarray(h), jnp.asarray(c)),
    )
    np.testing.assert_allclose(ys, expected.detach().numpy(), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(state.h, last_h[0].detach().numpy(), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(state.c, last_c[0].detach().numpy(), rtol=1e-10, atol=1e-12)


@pytest.mark.peer
def test_the_gradients_are_those_of_pytorch(x64):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    torch.manual_seed(0)
    peer = torch.nn.LSTM(IN_FEATURES, FEATURES, dtype=torch.float64)
    xs, h, c = (torch.tensor(a, requires_grad=True) for a in arguments()[3:])
    expected, (_, last_c) = peer(xs, (h[None], c[None]))
    weights = torch.tensor(WEIGHTS)
    ((expected * weights).sum() + (last_c[0] * weights[0]).sum()).backward()
    _, gradients = with_gradients(*from_torch(peer), *arguments()[3:])
    theirs = (
        peer.weight_ih_l0.grad.T,
        peer.weight_hh_l0.grad.T,
        peer.bias_ih_l0.grad,  # a sum has the gradient of each of its two terms
        xs.grad,
        h.grad,
        c.grad,
    )
    for a, b in zip(gradients, theirs, strict=True):
        np.testing.assert_allclose(a, b.numpy(), rtol=1e-10, atol=1e-12)


@pytest.mark.peer
@pytest.mark.parametrize("peer_name", ["LSTMCell", "OptimizedLSTMCell"])
def test_the_outputs_are_those_of_flax(peer_name, x64):
    peer = getattr(linen, peer_name)(FEATURES, dtype=jnp.float64, param_dtype=jnp.float64)
    xs, h, c = map(jnp.asarray, arguments()[3:])
    variables = peer.init(jax.random.key(0), (c, h), xs[0])
    theirs: Any = variables["params"]
    params = LSTMParams(
        input_kernel=jnp.concatenate([theirs[f"i{gate}"]["kernel"] for gate in "ifgo"], axis=1),
        recurrent_kernel=jnp.concatenate([theirs[f"h{gate}"]["kernel"] for gate in "ifgo"], axis=1),
        bias=jnp.concatenate([theirs[f"h{gate}"]["bias"] for gate in "ifgo"]),
    )
    cell = sj.LSTM(FEATURES, param_dtype=jnp.float64)
    state, ys = sj.unroll(cell, params, xs, LSTMState(h, c))
    for x, y in zip(xs, ys, strict=True):
        (c, h), expected = peer.apply(variables, (c, h), x)
        np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(state.c, c, rtol=1e-12, atol=1e-12)


def test_the_forget_bias_starts_at_one_in_init_and_at_zero_in_the_other_gates(key):
    i, f, g, o = jnp.split(sj.LSTM(5).init(key, 2).bias, 4)
    np.testing.assert_array_equal(f, np.ones(5))
    np.testing.assert_array_equal([i, g, o], np.zeros((3, 5)))
    other = jnp.split(sj.LSTM(5, forget_bias=-2.5).init(key, 2).bias, 4)[1]
    np.testing.assert_array_equal(other, np.full(5, -2.5))


def test_the_step_adds_nothing_to_the_forget_bias():
    nothing = LSTMParams(jnp.zeros((2, 12)), jnp.zeros((3, 12)), jnp.zeros(12))
    before = LSTMState(jnp.zeros(3), jnp.ones(3))
    after, y = sj.LSTM(3).step(nothing, before, jnp.ones(2))
    np.testing.assert_allclose(after.c, np.full(3, 0.5), rtol=1e-6)  # σ(0) · 1
    np.testing.assert_allclose(y, np.full(3, 0.5 * np.tanh(0.5)), rtol=1e-6)


@pytest.mark.parametrize("rule", list(NAMED))
def test_each_initialiser_draws_each_gate_alone(rule, key):
    params = sj.LSTM(8, input_init=rule, recurrent_init=rule).init(key, in_features=8)
    for kernel in (params.input_kernel, params.recurrent_kernel):
        blocks = np.split(np.asarray(kernel), 4, axis=1)
        assert all(oracles.is_drawn_by(rule, block) for block in blocks)
        if rule not in ("identity", "zeros"):
            assert not np.allclose(blocks[0], blocks[1])
    assert not np.allclose(params.input_kernel, params.recurrent_kernel) or rule in (
        "identity",
        "zeros",
    )


def test_the_bias_is_drawn_by_its_own_initialiser_but_for_the_forget_gate(key):
    i, f, g, o = jnp.split(sj.LSTM(64, bias_init="uniform_fan_in").init(key, 2).bias, 4)
    np.testing.assert_array_equal(f, np.ones(64))
    for bias in (i, g, o):
        assert 0.1 < np.abs(bias).max() <= 1 / 8  # 1 / √64


def test_the_state_starts_at_zero(key):
    cell = sj.LSTM(3)
    state = cell.initial_state(cell.init(key, 2), (2,))
    np.testing.assert_array_equal(state.h, np.zeros((2, 3)))
    np.testing.assert_array_equal(state.c, np.zeros((2, 3)))


def test_features_below_one_are_refused():
    with pytest.raises(ValueError, match="LSTM: features: expected a positive integer, got 0"):
        sj.LSTM(0)


@pytest.mark.parametrize("field", ["input_init", "recurrent_init", "bias_init"])
def test_an_unknown_initialiser_is_refused_with_the_known_names(field):
    unknown: Any = {field: "kaiming"}
    with pytest.raises(ValueError, match=f"LSTM: {field}: .*'kaiming'") as refusal:
        sj.LSTM(3, **unknown)
    assert all(repr(name) in str(refusal.value) for name in NAMED)


def test_inputs_of_another_size_are_refused(key):
    cell = sj.LSTM(3)
    params = cell.init(key, in_features=2)
    with pytest.raises(ValueError, match=r"LSTM: x has shape \(4, 5\); expected \[\*batch, 2\]"):
        cell.step(params, cell.initial_state(params, (4,)), jnp.ones((4, 5)))
