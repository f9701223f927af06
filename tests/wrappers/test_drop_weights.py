"""DropConnect: which weights are dropped, at what rate, and what stays."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seqjax as sj

pytestmark = pytest.mark.usefixtures("quick_compilation")

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


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_the_rate_is_the_share_that_is_dropped(rate, key):
    params = {"recurrent_kernel": jnp.ones((200, 200))}
    dropped = np.asarray(sj.drop_weights(params, key, rate)["recurrent_kernel"])
    # The share of 40000 draws is known to √(rate (1 - rate) / 40000) ≤ 0.0025; four of these.
    np.testing.assert_allclose(np.mean(dropped == 0), rate, atol=0.01)
    np.testing.assert_allclose(dropped.mean(), 1, atol=0.01 / (1 - rate))


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


@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan"), "half"])
def test_a_rate_outside_zero_to_one_is_refused(rate, key, unchecked):
    with pytest.raises(ValueError, match=r"drop_weights: rate: expected a rate in \[0, 1\)"):
        sj.drop_weights(sj.LSTM(3).init(key, 2), key, rate)


def test_one_name_needs_no_tuple(key):
    params = sj.SkipRNN(4, skip=2).init(key, 3)
    one = sj.drop_weights(params, key, 0.5, names="skip_kernel")
    assert one.recurrent_kernel is params.recurrent_kernel
    np.testing.assert_array_equal(
        one.skip_kernel, sj.drop_weights(params, key, 0.5, names=("skip_kernel",)).skip_kernel
    )


def test_a_rate_of_numpy_does_not_widen_the_weights(key, x64, standard_promotion):
    params = sj.LSTM(4, param_dtype=jnp.bfloat16).init(key, 3)
    dropped = sj.drop_weights(params, key, float(np.float64(0.5)))
    narrow = sj.drop_weights(params, key, np.float64(0.5))
    assert narrow.recurrent_kernel.dtype == dropped.recurrent_kernel.dtype == jnp.bfloat16
