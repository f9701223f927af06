"""Dropout: on outputs and recurrent inputs with one mask for a sequence, and on weights."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seqjax as sj
from seqjax.cells.lstm import LSTMParams, LSTMState
from seqjax.wrappers.dropout import RecurrentDropoutState
from tests import oracles
from tests.oracles import Gate

pytestmark = pytest.mark.usefixtures("quick_compilation")

CELL = sj.Dropout(sj.Elman(4), rate=0.25)
BATCH = 6


@pytest.fixture
def params(key):
    return CELL.init(key, in_features=3)


@pytest.fixture
def xs():
    return jax.random.normal(jax.random.key(1), (5, BATCH, 3))


def test_kept_outputs_are_scaled_by_the_share_that_is_kept_and_the_others_are_zero(params, xs, key):
    state, ys = sj.unroll(CELL, params, xs, key=key)
    inner, zs = sj.unroll(CELL.cell, params, xs)
    np.testing.assert_allclose(ys, np.where(state.mask[None], zs / 0.75, 0), rtol=1e-6)
    assert 0 < np.mean(np.asarray(state.mask)) < 1
    np.testing.assert_array_equal(state.cell.h, inner.h)  # what is dropped stays in the memory


def test_a_new_key_redraws_the_mask_and_keeps_the_memory(params, xs):
    state, _ = sj.unroll(CELL, params, xs, key=jax.random.key(1))
    redrawn = CELL.redraw(state, jax.random.key(2))
    assert not np.array_equal(redrawn.mask, state.mask)
    assert redrawn.cell.h is state.cell.h
    after, ys = sj.unroll(CELL, params, xs, state, key=jax.random.key(2))
    expected, zs = sj.unroll(CELL, params, xs, redrawn)
    np.testing.assert_array_equal(after.mask, expected.mask)
    np.testing.assert_array_equal(ys, zs)


def test_without_a_key_the_mask_of_the_state_is_kept(params, xs, key):
    state, _ = sj.unroll(CELL, params, xs, key=key)
    after, ys = sj.unroll(CELL, params, xs, state)
    np.testing.assert_array_equal(after.mask, state.mask)
    np.testing.assert_array_equal(ys != 0, np.broadcast_to(state.mask, ys.shape))


def test_deterministic_and_rate_zero_drop_nothing_and_ask_for_no_key(params, xs):
    _, expected = sj.unroll(CELL.cell, params, xs)
    for cell in (CELL.deterministic(), sj.Dropout(sj.Elman(4), rate=0.0)):
        state, ys = sj.unroll(cell, params, xs)
        np.testing.assert_array_equal(ys, expected)
        assert np.all(np.asarray(state.mask))


def test_evaluation_runs_on_a_state_from_training(params, xs, key):
    state, _ = sj.unroll(CELL, params, xs, key=key)
    after, ys = sj.unroll(CELL.deterministic(), params, xs, state)
    _, expected = sj.unroll(CELL.cell, params, xs, state.cell)
    np.testing.assert_array_equal(ys, expected)
    np.testing.assert_array_equal(after.mask, state.mask)


def test_what_is_dropped_has_no_gradient(params, xs, key):
    state = CELL.initial_state(params, (BATCH,), key=key)
    one = xs[:1]
    gradient = jax.grad(lambda b: sj.unroll(CELL, params._replace(bias=b), one, state)[1].sum())
    dropped = state._replace(mask=jnp.zeros_like(state.mask))
    nothing = jax.grad(lambda b: sj.unroll(CELL, params._replace(bias=b), one, dropped)[1].sum())
    np.testing.assert_array_equal(nothing(params.bias), np.zeros(4))
    assert np.all(np.asarray(gradient(params.bias)) != 0)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_the_rate_is_the_share_that_is_dropped_and_each_row_has_its_own_mask(rate, key):
    outputs = sj.Dropout(sj.Elman(100), rate)
    operands = sj.RecurrentDropout(sj.SkipRNN(50, skip=2), rate)  # h_{t-1} and h_{t-2}
    cells: tuple[Any, ...] = (outputs, operands)
    masks = [c.initial_state(c.init(key, 1), (400,), key=key).mask for c in cells]
    weights = sj.drop_weights({"recurrent_kernel": jnp.ones((400, 100))}, key, rate)
    for kept in (*masks, weights["recurrent_kernel"] != 0):
        kept = np.asarray(kept)
        assert kept.shape == (400, 100)
        assert len({row.tobytes() for row in kept}) == 400
        # The share of 40000 draws is known to √(rate (1 - rate) / 40000) ≤ 0.0025; four of these.
        np.testing.assert_allclose(1 - kept.mean(), rate, atol=0.01)
    scaled = np.asarray(weights["recurrent_kernel"])
    np.testing.assert_allclose(scaled.mean(), 1, atol=0.01 / (1 - rate))


TIME, ROWS, IN_FEATURES, FEATURES, RATE = 4, 2, 2, 3, 0.25
WEIGHTS = np.cos(np.arange(TIME * ROWS * FEATURES)).reshape(TIME, ROWS, FEATURES)
MASK = np.array([[True, False, True], [False, True, True]])
LSTM = sj.RecurrentDropout(sj.LSTM(FEATURES, param_dtype=jnp.float64), RATE)
GATED = {
    "Elman": sj.Elman(4),
    "GRU": sj.GRU(4, bias_init="uniform_fan_in"),
    "PreActivationRNN": sj.PreActivationRNN(4),
    "PeepholeLSTM": sj.PeepholeLSTM(4),
}


def arguments():
    """W, U, b, xs, h_0 and c_0, the same at every call."""
    random = np.random.default_rng(0)
    shapes = [
        (IN_FEATURES, 4 * FEATURES),
        (FEATURES, 4 * FEATURES),
        (4 * FEATURES,),
        (TIME, ROWS, IN_FEATURES),
        (ROWS, FEATURES),
        (ROWS, FEATURES),
    ]
    return [0.8 * random.standard_normal(shape) for shape in shapes]


def by_equation(W, U, b, xs, h, c):
    """Each row by the oracle of the plain LSTM, h masked where U multiplies it: mask folded into U."""
    rows = []
    for i in range(ROWS):
        masked = (MASK[i] / (1 - RATE))[:, None] * U
        blocks = zip(
            np.split(W, 4, axis=1), np.split(masked, 4, axis=1), np.split(b, 4), strict=True
        )
        gates = dict(zip("ifgo", (Gate(*block) for block in blocks), strict=True))
        rows.append(oracles.lstm(gates, xs[:, i], h[i], c[i])[0])
    return np.stack(rows, axis=1)


def test_under_its_mask_the_cell_and_all_its_gradients_are_those_of_the_equations(x64):
    def loss(W, U, b, xs, h, c):
        state = RecurrentDropoutState(LSTMState(h, c), jnp.asarray(MASK))
        _, ys = sj.unroll(LSTM, LSTMParams(W, U, b), xs, state)
        return (ys * WEIGHTS).sum(), ys

    gradients, ys = jax.jit(jax.grad(loss, argnums=tuple(range(6)), has_aux=True))(*arguments())
    np.testing.assert_allclose(ys, by_equation(*arguments()), rtol=1e-12, atol=1e-12)
    expected = oracles.finite_differences(
        lambda *a: (by_equation(*a) * WEIGHTS).sum(), *arguments()
    )
    for ours, theirs in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("name", GATED)
def test_with_its_mask_folded_into_the_kernel_the_plain_cell_gives_the_same(name, key):
    inner = GATED[name]
    cell = sj.RecurrentDropout(inner, rate=0.5)
    params = inner.init(key, IN_FEATURES)
    xs = jax.random.normal(key, (TIME, 1, IN_FEATURES))
    state, ys = sj.unroll(cell, params, xs, key=jax.random.key(3))
    assert 0 < np.mean(np.asarray(state.mask)) < 1
    factor = jnp.where(state.mask[0], 2.0, 0.0)[:, None]
    U = params.recurrent_kernel
    folded = params._replace(recurrent_kernel=jnp.broadcast_to(factor, U.shape) * U)
    expected, zs = sj.unroll(inner, folded, xs)
    # 0 and 2 scale without rounding, and so the order of the products is all that may differ.
    np.testing.assert_allclose(ys, zs, rtol=1e-5, atol=1e-6)
    for a, b in zip(jax.tree.leaves(state.cell), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_the_mask_stays_over_time_and_a_new_key_redraws_it_and_keeps_the_memory(key):
    cell = sj.RecurrentDropout(sj.LSTM(8), rate=0.5)
    params, xs = cell.init(key, 2), jnp.ones((3, 2, 2))
    start = cell.initial_state(params, (2,), key=key)
    state, _ = sj.unroll(cell, params, xs, start)
    np.testing.assert_array_equal(state.mask, start.mask)
    redrawn = cell.redraw(state, jax.random.key(7))
    assert not np.array_equal(redrawn.mask, state.mask)
    assert redrawn.cell.h is state.cell.h
    assert redrawn.cell.c is state.cell.c


def test_recurrent_deterministic_and_rate_zero_drop_nothing_and_ask_for_no_key(key):
    cell = sj.RecurrentDropout(sj.GRU(4), rate=0.5)
    params, xs = cell.init(key, 2), jax.random.normal(key, (5, 3, 2))
    _, expected = sj.unroll(cell.cell, params, xs)
    for quiet in (cell.deterministic(), sj.RecurrentDropout(sj.GRU(4), rate=0.0)):
        np.testing.assert_array_equal(sj.unroll(quiet, params, xs)[1], expected)
    trained, _ = sj.unroll(cell, params, xs, key=key)
    _, ys = sj.unroll(cell.deterministic(), params, xs, trained)
    np.testing.assert_array_equal(ys, sj.unroll(cell.cell, params, xs, trained.cell)[1])


STACK = sj.Stack((sj.LSTM(8), sj.Residual(sj.LayerNorm(sj.GRU(8)))))


def assert_dropped(came, weights, rate):
    """Zero or scaled by 1 / (1 - rate), and some of each."""
    came, weights = np.asarray(came), np.asarray(weights)
    kept = came != 0
    np.testing.assert_allclose(came[kept], weights[kept] / (1 - rate), rtol=1e-6)
    assert 0 < kept.mean() < 1


def test_every_recurrent_kernel_in_the_tree_is_dropped_and_nothing_else(key):
    params = STACK.init(key, 3)
    dropped = sj.drop_weights(params, jax.random.key(1), 0.3)
    kernels = [
        (d.layers[0].recurrent_kernel, d.layers[1].cell.recurrent_kernel) for d in (dropped, params)
    ]
    for came, weights in zip(*kernels, strict=True):
        assert_dropped(came, weights, 0.3)
    changed = [a is not b for a, b in zip(*map(jax.tree.leaves, (dropped, params)), strict=True)]
    assert sum(changed) == 2
    assert jax.tree.structure(dropped) == jax.tree.structure(params)


def test_each_leaf_has_a_mask_of_its_own_and_equal_keys_draw_equal_masks(key):
    params = {
        "one": {"recurrent_kernel": jnp.ones((20, 20))},
        "recurrent_kernel": jnp.ones((20, 20)),
    }
    one, again, other = (sj.drop_weights(params, jax.random.key(k), 0.5) for k in (1, 1, 2))
    assert not np.array_equal(one["one"]["recurrent_kernel"], one["recurrent_kernel"])
    np.testing.assert_array_equal(one["recurrent_kernel"], again["recurrent_kernel"])
    assert not np.array_equal(one["recurrent_kernel"], other["recurrent_kernel"])


def test_weights_of_other_names_are_dropped_where_they_are_asked_for(key):
    params = sj.SkipRNN(8, skip=2).init(key, 3)
    dropped = sj.drop_weights(params, key, 0.5, names=("recurrent_kernel", "skip_kernel"))
    assert_dropped(dropped.recurrent_kernel, params.recurrent_kernel, 0.5)
    assert_dropped(dropped.skip_kernel, params.skip_kernel, 0.5)
    assert dropped.input_kernel is params.input_kernel
    one = sj.drop_weights(params, key, 0.5, names="skip_kernel")  # one name needs no tuple
    assert one.recurrent_kernel is params.recurrent_kernel
    assert_dropped(one.skip_kernel, params.skip_kernel, 0.5)
    diagonal = sj.DiagonalGRU(8).init(key, 3)
    scale = sj.drop_weights(diagonal, key, 0.5, names=("recurrent_scale",)).recurrent_scale
    assert_dropped(scale, diagonal.recurrent_scale, 0.5)


def test_the_gradient_is_that_of_the_dropped_weights_under_the_same_mask(key):
    cell = sj.LSTM(4)
    params, xs = cell.init(key, 3), jax.random.normal(key, (5, 2, 3))
    loss = lambda params: sj.unroll(cell, params, xs)[1].sum()
    dropped = sj.drop_weights(params, key, 0.5)
    gradient = jax.jit(jax.grad(lambda params: loss(sj.drop_weights(params, key, 0.5))))(params)
    inner = jax.grad(loss)(dropped)
    np.testing.assert_allclose(
        gradient.recurrent_kernel,
        np.where(dropped.recurrent_kernel == 0, 0, 2 * inner.recurrent_kernel),
        rtol=1e-5,
        atol=1e-6,
    )
    np.testing.assert_allclose(gradient.input_kernel, inner.input_kernel, rtol=1e-5, atol=1e-6)


def test_at_rate_zero_the_params_are_as_they_came(key):
    params = sj.LSTM(4).init(key, 3)
    dropped = sj.drop_weights(params, key, 0.0)
    np.testing.assert_array_equal(dropped.recurrent_kernel, params.recurrent_kernel)


def test_params_without_a_leaf_of_that_name_are_refused_with_the_names_that_are_there(key):
    params = sj.MinGRU(3).init(key, 2)
    message = (
        "drop_weights: params has no leaf called 'recurrent_kernel'; "
        "expected one of the names that are there, 'input_kernel', 'bias'"
    )
    with pytest.raises(ValueError, match=message):
        sj.drop_weights(params, key, 0.5)
    with pytest.raises(ValueError, match="no leaf called 'skip_kernel'"):
        sj.drop_weights(STACK.init(key, 3), key, 0.5, names=("recurrent_kernel", "skip_kernel"))


def test_a_rate_of_numpy_does_not_widen_the_weights(key, x64, standard_promotion):
    params = sj.LSTM(4, param_dtype=jnp.bfloat16).init(key, 3)
    dropped = sj.drop_weights(params, key, float(np.float64(0.5)))
    narrow = sj.drop_weights(params, key, np.float64(0.5))
    assert narrow.recurrent_kernel.dtype == dropped.recurrent_kernel.dtype == jnp.bfloat16
