"""Dropout: one mask on the outputs of a cell for a whole sequence or window."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seqjax as sj

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
    np.testing.assert_array_equal(state.cell.h, inner.h)  # what is dropped stays in the memory


def test_the_mask_is_the_same_at_every_step(params, xs, key):
    state, ys = sj.unroll(CELL, params, xs, key=key)
    np.testing.assert_array_equal(ys != 0, np.broadcast_to(state.mask, ys.shape))
    assert 0 < np.mean(np.asarray(state.mask)) < 1


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_the_rate_is_the_share_that_is_dropped_and_the_mean_is_kept(rate, key):
    cell = sj.Dropout(sj.Elman(100), rate=rate)
    mask = cell.initial_state(cell.cell.init(key, 1), (400,), key=key).mask
    # The share of 40000 draws is known to √(rate (1 - rate) / 40000) ≤ 0.0025; four of these.
    np.testing.assert_allclose(1 - np.mean(np.asarray(mask)), rate, atol=0.01)
    np.testing.assert_allclose(np.mean(np.asarray(mask)) / (1 - rate), 1, atol=0.01 / (1 - rate))


def test_each_row_and_each_feature_has_a_mask_of_its_own(key):
    cell = sj.Dropout(sj.Elman(64), rate=0.5)
    mask = np.asarray(cell.initial_state(cell.cell.init(key, 1), (3,), key=key).mask)
    assert mask.shape == (3, 64)
    assert len({row.tobytes() for row in mask}) == 3


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


def test_equal_keys_draw_equal_masks(params):
    one, other = (CELL.initial_state(params, (BATCH,), key=jax.random.key(3)) for _ in range(2))
    np.testing.assert_array_equal(one.mask, other.mask)


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


def test_noise_without_a_key_is_refused(params, xs):
    message = r"Dropout: key is None; a mask at rate 0\.25 needs a key .*deterministic\(\)"
    with pytest.raises(ValueError, match=message):
        CELL.initial_state(params)
    with pytest.raises(ValueError, match=message):
        sj.unroll(CELL, params, xs)


@pytest.mark.parametrize("rate", [-0.1, 1, 1.0, 1.5, float("nan"), float("inf"), True, "half"])
def test_a_rate_outside_zero_to_one_is_refused(rate, unchecked):
    with pytest.raises(
        ValueError, match=rf"Dropout: rate: expected a rate in \[0, 1\), got {rate!r}"
    ):
        sj.Dropout(sj.Elman(4), rate=rate)


def test_what_is_no_cell_is_refused(unchecked):
    with pytest.raises(ValueError, match="Dropout: cell: expected a Cell, got None"):
        sj.Dropout(None, rate=0.5)  # pyright: ignore[reportArgumentType] - refused on purpose
