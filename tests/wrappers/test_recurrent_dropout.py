"""Recurrent dropout: one mask on what the recurrent kernel multiplies, for a whole sequence."""

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

TIME, BATCH, IN_FEATURES, FEATURES, RATE = 4, 2, 2, 3, 0.25
WEIGHTS = np.cos(np.arange(TIME * BATCH * FEATURES)).reshape(TIME, BATCH, FEATURES)
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
        (TIME, BATCH, IN_FEATURES),
        (BATCH, FEATURES),
        (BATCH, FEATURES),
    ]
    return [0.8 * random.standard_normal(shape) for shape in shapes]


def by_equation(W, U, b, xs, h, c):
    """Each row by the oracle of the plain LSTM, h masked where U multiplies it: mask folded into U."""
    rows = []
    for i in range(BATCH):
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


def test_the_mask_covers_all_that_the_kernel_multiplies_and_each_row_has_its_own(key):
    cell = sj.RecurrentDropout(sj.SkipRNN(40, skip=2), rate=0.3)
    mask = np.asarray(cell.initial_state(cell.init(key, 1), (200,), key=key).mask)
    assert mask.shape == (200, 80)  # h_{t-1} and h_{t-2}
    assert len({row.tobytes() for row in mask}) == 200
    # The share of 16000 draws is known to √(0.21 / 16000) < 0.004; four of these.
    np.testing.assert_allclose(1 - mask.mean(), 0.3, atol=0.016)


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


def test_deterministic_and_rate_zero_drop_nothing_and_ask_for_no_key(key):
    cell = sj.RecurrentDropout(sj.GRU(4), rate=0.5)
    params, xs = cell.init(key, 2), jax.random.normal(key, (5, 3, 2))
    _, expected = sj.unroll(cell.cell, params, xs)
    for quiet in (cell.deterministic(), sj.RecurrentDropout(sj.GRU(4), rate=0.0)):
        np.testing.assert_array_equal(sj.unroll(quiet, params, xs)[1], expected)
    trained, _ = sj.unroll(cell, params, xs, key=key)
    _, ys = sj.unroll(cell.deterministic(), params, xs, trained)
    np.testing.assert_array_equal(ys, sj.unroll(cell.cell, params, xs, trained.cell)[1])


def test_a_cell_that_is_not_gated_is_refused():
    message = r"RecurrentDropout: cell: expected a gated cell, .*got Stack\(.*each layer of a stack"
    with pytest.raises(ValueError, match=message):
        sj.RecurrentDropout(sj.Stack((sj.LSTM(3),)), rate=0.5)


def test_noise_without_a_key_is_refused(key):
    cell = sj.RecurrentDropout(sj.LSTM(3), rate=0.5)
    message = r"RecurrentDropout: key is None; a mask at rate 0\.5 needs a key .*deterministic\(\)"
    with pytest.raises(ValueError, match=message):
        cell.initial_state(cell.init(key, 2))


@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan"), "half"])
def test_a_rate_outside_zero_to_one_is_refused(rate, unchecked):
    message = rf"RecurrentDropout: rate: expected a rate in \[0, 1\), got {rate!r}"
    with pytest.raises(ValueError, match=message):
        sj.RecurrentDropout(sj.LSTM(3), rate=rate)
