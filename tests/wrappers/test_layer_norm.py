"""LayerNorm against the equations of the paper for an LSTM and a GRU, and PyTorch's layer_norm."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seqjax as sj
from seqjax.cells.gru import GRUParams, GRUState
from seqjax.cells.lstm import LSTMParams, LSTMState
from seqjax.wrappers.layer_norm import LayerNormParams
from tests import oracles
from tests.oracles import sigmoid

pytestmark = pytest.mark.usefixtures("quick_compilation")

TIME, BATCH, IN_FEATURES, FEATURES = 3, 2, 2, 3
WEIGHTS = np.cos(np.arange(TIME * BATCH * FEATURES)).reshape(TIME, BATCH, FEATURES)
EPSILON = 0.01  # wide enough that a slip in its place shows, and that quotients are exact


def arguments(gates, last):
    """W, U, b, α_z, α_r, xs, h_0, and one array more: c_0, or the inner bias of a GRU."""
    packed, random = gates * FEATURES, np.random.default_rng(0)
    shapes = [
        (IN_FEATURES, packed),
        (FEATURES, packed),
        (packed,),
        (packed,),
        (packed,),
        (TIME, BATCH, IN_FEATURES),
        (BATCH, FEATURES),
        last,
    ]
    return [0.8 * random.standard_normal(shape) for shape in shapes]


def norm(v, scale):
    """α ⊙ (v - μ) / √(σ² + ε), of one vector."""
    mean = sum(v) / len(v)
    variance = sum((v - mean) ** 2) / len(v)
    return scale * (v - mean) / np.sqrt(variance + EPSILON)


def lstm_by_equation(W, U, b, input_scale, recurrent_scale, xs, h, c):
    """Equations 20 to 22 of the paper, but for the LN of c_t, gates packed i, f, g, o."""
    hs = np.zeros((*xs.shape[:2], FEATURES))
    for row in range(xs.shape[1]):
        h_t, c_t = h[row], c[row]
        for t, x in enumerate(xs[:, row]):
            a = norm(h_t @ U, recurrent_scale) + norm(x @ W, input_scale) + b
            i, f, g, o = np.split(a, 4)
            c_t = sigmoid(f) * c_t + sigmoid(i) * np.tanh(g)
            h_t = hs[t, row] = sigmoid(o) * np.tanh(c_t)
    return hs


def gru_by_equation(W, U, b, input_scale, recurrent_scale, xs, h, inner_bias):
    """Equations 29 to 31: r and z (here packed r, z, n) are normalised together, n alone.

    The paper's z is 1 - z here, and its shifts β are b and the inner bias.
    """
    hs = np.zeros((*xs.shape[:2], FEATURES))
    two = 2 * FEATURES
    for row in range(xs.shape[1]):
        h_t = h[row]
        for t, x in enumerate(xs[:, row]):
            both = norm(x @ W[:, :two], input_scale[:two]) + b[:two]
            both = both + norm(h_t @ U[:, :two], recurrent_scale[:two])
            r, z = np.split(sigmoid(both), 2)
            inner = norm(h_t @ U[:, two:], recurrent_scale[two:]) + inner_bias
            n = np.tanh(norm(x @ W[:, two:], input_scale[two:]) + b[two:] + r * inner)
            h_t = hs[t, row] = (1 - z) * n + z * h_t
    return hs


def lstm(W, U, b, input_scale, recurrent_scale, xs, h, c):
    cell = sj.LayerNorm(sj.LSTM(FEATURES, param_dtype=jnp.float64), EPSILON)
    params = LayerNormParams(LSTMParams(W, U, b), input_scale, recurrent_scale)
    return sj.unroll(cell, params, xs, LSTMState(h, c))[1]


def gru(W, U, b, input_scale, recurrent_scale, xs, h, inner_bias):
    cell = sj.LayerNorm(sj.GRU(FEATURES, param_dtype=jnp.float64), EPSILON)
    params = LayerNormParams(GRUParams(W, U, b, inner_bias), input_scale, recurrent_scale)
    return sj.unroll(cell, params, xs, GRUState(h))[1]


CELLS = {
    "LSTM": (4, lstm, lstm_by_equation, (BATCH, FEATURES)),
    "GRU": (3, gru, gru_by_equation, (FEATURES,)),
}


@pytest.mark.parametrize("name", CELLS)
def test_the_cell_and_all_its_gradients_are_those_of_the_equations(name, x64):
    gates, ours, by_equation, shape = CELLS[name]
    given = arguments(gates, shape)
    loss = lambda *a: (ours(*a) * WEIGHTS).sum()
    gradients = jax.jit(jax.grad(loss, argnums=tuple(range(8))))(*given)
    ys = ours(*map(jnp.asarray, given))
    np.testing.assert_allclose(ys, by_equation(*given), rtol=1e-12, atol=1e-12)
    expected = oracles.finite_differences(lambda *a: (by_equation(*a) * WEIGHTS).sum(), *given)
    for came, quotient in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(came, quotient, rtol=1e-8, atol=1e-9)


@pytest.mark.peer
def test_the_lstm_is_that_of_layer_norm_and_gates_in_pytorch(x64):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    given = arguments(4, (BATCH, FEATURES))
    ours = jax.grad(lambda *a: (lstm(*a) * WEIGHTS).sum(), argnums=tuple(range(8)))
    gradients = jax.jit(ours)(*given)
    theirs = [torch.tensor(a, requires_grad=True) for a in given]
    W, U, b, input_scale, recurrent_scale, xs, h, c = theirs
    total = torch.zeros((), dtype=torch.float64)
    for x, weights in zip(xs, torch.tensor(WEIGHTS), strict=True):
        a = torch.nn.functional.layer_norm(x @ W, [4 * FEATURES], input_scale, b, EPSILON)
        a = a + torch.nn.functional.layer_norm(
            h @ U, [4 * FEATURES], recurrent_scale, None, EPSILON
        )
        i, f, g, o = a.chunk(4, dim=-1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        total = total + (h * weights).sum()
    total.backward()
    for came, peer in zip(gradients, theirs, strict=True):
        np.testing.assert_allclose(came, peer.grad.numpy(), rtol=1e-10, atol=1e-12)


def test_the_scales_start_at_one_and_a_forget_bias_of_one_stays_one(key):
    """With x = 0 and h = 0 all that is left of the pre-activations is the bias."""
    cell = sj.LayerNorm(sj.LSTM(3))
    params = cell.init(key, 2)
    np.testing.assert_array_equal(params.input_scale, np.ones(12))
    np.testing.assert_array_equal(params.recurrent_scale, np.ones(12))
    state, _ = cell.step(params, LSTMState(jnp.zeros(3), jnp.ones(3)), jnp.zeros(2))
    np.testing.assert_allclose(state.c, sigmoid(np.ones(3)), rtol=1e-6)


def test_the_first_step_has_finite_gradients_though_its_h_is_zero(key):
    cell = sj.LayerNorm(sj.GRU(4))
    params, xs = cell.init(key, 2), jnp.ones((3, 2, 2))
    loss = lambda params, state: sj.unroll(cell, params, xs, state)[1].sum()
    gradients = jax.grad(loss, argnums=(0, 1))(params, cell.initial_state(params, (2,)))
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(gradients))


def test_what_x_and_h_add_may_grow_a_thousandfold_and_the_outputs_stay(key):
    cell = sj.LayerNorm(sj.LSTM(4))
    params = cell.init(key, 2)
    xs = jax.random.normal(key, (5, 3, 2))
    larger = params.cell._replace(
        input_kernel=1000 * params.cell.input_kernel,
        recurrent_kernel=1000 * params.cell.recurrent_kernel,
    )
    state = LSTMState(*(jax.random.normal(key, (3, 4)) for _ in range(2)))
    _, ys = sj.unroll(cell, params, xs, state)
    _, zs = sj.unroll(cell, params._replace(cell=larger), xs, state)
    # ε = 1e-5 beside a variance of the order of 0.1, and in places a hundred times smaller.
    np.testing.assert_allclose(ys, zs, atol=5e-3)


def test_statistics_of_narrow_inputs_are_taken_in_float32(key):
    """With a shift of 256 a bfloat16, which keeps 8 bits, could not hold what differs."""
    cell = sj.LayerNorm(sj.Elman(64, dtype=jnp.bfloat16))
    params = cell.init(key, 1)
    kernel = 256 + jnp.arange(64.0)[None]
    params = params._replace(cell=params.cell._replace(input_kernel=kernel))
    z = cell.project(params, jnp.ones(1, jnp.bfloat16))
    assert z.dtype == jnp.float32
    rounded = np.asarray(kernel.astype(jnp.bfloat16), np.float64)[0]
    expected = (rounded - rounded.mean()) / np.sqrt(rounded.var() + 1e-5)
    np.testing.assert_allclose(z, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "build", [sj.PeepholeLSTM, sj.CIFG, sj.DiagonalLSTM, sj.DiagonalGRU, sj.SLSTM]
)
def test_other_gated_cells_are_normalised_too(build, key):
    cell = sj.LayerNorm(build(4))
    params = cell.init(key, 3)
    _, ys = sj.unroll(cell, params, jax.random.normal(key, (5, 2, 3)))
    _, plain = sj.unroll(cell.cell, params.cell, jax.random.normal(key, (5, 2, 3)))
    assert np.all(np.isfinite(ys))
    assert not np.allclose(ys, plain, atol=0.01)


@pytest.mark.parametrize("cell", [sj.Elman(1), sj.GRU(1)])
def test_a_group_of_one_entry_is_refused(cell, key):
    with pytest.raises(ValueError, match="LayerNorm: cell: expected at least two entries in each"):
        sj.LayerNorm(cell).init(key, 2)


@pytest.mark.parametrize("epsilon", [0.0, -1e-5, float("nan")])
def test_an_epsilon_that_is_not_positive_is_refused(epsilon):
    with pytest.raises(ValueError, match="LayerNorm: epsilon: expected a positive number"):
        sj.LayerNorm(sj.LSTM(3), epsilon)


def test_inputs_of_another_size_are_refused(key):
    cell: Any = sj.LayerNorm(sj.LSTM(3))
    params = cell.init(key, 2)
    with pytest.raises(ValueError, match=r"LSTM: x has shape \(4, 5\); expected \[\*batch, 2\]"):
        cell.step(params, cell.initial_state(params, (4,)), jnp.ones((4, 5)))
