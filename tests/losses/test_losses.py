"""Losses against NumPy in float64 and PyTorch; what a mask hides; errors."""

import functools
import itertools
import math
from typing import Any

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqjax import losses

CLASSES = 7
MASKED_LOSSES = {
    "cross_entropy": losses.cross_entropy,
    "weighted and smoothed": lambda z, y, mask: losses.cross_entropy(
        z, y, mask=mask, class_weights=jnp.arange(1.0, CLASSES + 1), label_smoothing=0.1
    ),
    "perplexity": losses.perplexity,
    "bits_per_token": losses.bits_per_token,
    "accuracy": losses.accuracy,
    "binary_cross_entropy": lambda z, y, mask: losses.binary_cross_entropy(
        z[..., 0], jnp.clip(y, -1, 1), mask=mask, positive_weight=3.0
    ),
    "mean_squared_error": lambda z, y, mask: losses.mean_squared_error(
        z, jnp.broadcast_to(y[..., None], z.shape), mask=mask
    ),
    "activation_regularization": lambda z, y, mask: losses.activation_regularization(z, mask=mask),
    "temporal_activation_regularization": lambda z, y, mask: (
        losses.temporal_activation_regularization(z, mask=mask)
    ),
}
every_loss = pytest.mark.parametrize("loss", MASKED_LOSSES.values(), ids=MASKED_LOSSES.keys())


def some_tokens(seed=0, shape=(5, 3), classes=CLASSES):
    """Logits, targets, and a mask that is False at some tokens and True at others."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(*shape, classes), scale=3).astype(np.float32)
    targets = rng.integers(0, classes, size=shape).astype(np.int32)
    mask = rng.random(shape) < 0.6
    mask.flat[0], mask.flat[-1] = True, False
    return jnp.asarray(logits), jnp.asarray(targets), jnp.asarray(mask)


def as_jax(x) -> Any:
    """An array of JAX, or None."""
    return None if x is None else jnp.asarray(x)


def numpy_cross_entropy(logits, targets, mask=None, weights=None, smoothing=0.0):
    """Token by token in float64: the mean over valid tokens."""
    logits, targets = np.asarray(logits).astype(np.float64), np.asarray(targets)
    classes = logits.shape[-1]
    weights = np.ones(classes) if weights is None else np.asarray(weights, np.float64)
    total = normaliser = 0.0
    for token in np.ndindex(logits.shape[:-1]):
        if mask is not None and not mask[token]:
            continue
        y, z = int(targets[token]), logits[token]
        log_p = z - z.max() - math.log(sum(math.exp(v - z.max()) for v in z))
        wanted = [(1 - smoothing) * (k == y) + smoothing / classes for k in range(classes)]
        total -= sum(w * q * lp for w, q, lp in zip(weights, wanted, log_p, strict=True))
        normaliser += weights[y]
    return total / normaliser


# Cross-entropy ------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(4,), (5, 3), (2, 3, 4)])
def test_cross_entropy_is_a_loop_over_valid_tokens(shape):
    logits, targets, some = some_tokens(shape=shape)
    weights = np.linspace(0.5, 2, CLASSES).astype(np.float32)
    for mask, w, smoothing in itertools.product((None, some), (None, weights), (0.0, 0.3)):
        options = {"mask": mask, "class_weights": as_jax(w), "label_smoothing": smoothing}
        loss = losses.cross_entropy(logits, targets, **options)
        expected = numpy_cross_entropy(logits, targets, mask, w, smoothing)
        np.testing.assert_allclose(loss, expected, rtol=2e-6)


def test_the_gradient_of_cross_entropy_is_softmax_minus_target_per_real_token(x64):
    logits, targets, mask = some_tokens()
    logits = logits.astype(jnp.float64)
    gradient = jax.grad(lambda z: losses.cross_entropy(z, targets, mask=mask))(logits)
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    real = np.asarray(mask)[..., None]
    expected = (p - np.eye(CLASSES)[targets]) * real / real.sum()
    np.testing.assert_allclose(gradient, expected, rtol=1e-12, atol=1e-15)


def test_sums_are_float64_for_float64_logits_and_float32_for_bfloat16():
    logits, targets, mask = some_tokens()
    with jax.enable_x64(True):
        loss = losses.cross_entropy(logits.astype(jnp.float64), targets, mask=mask)
    np.testing.assert_allclose(loss, numpy_cross_entropy(logits, targets, mask), rtol=1e-14)
    logits, targets, _ = some_tokens(shape=(4096,))
    logits = logits.astype(jnp.bfloat16)
    loss = losses.cross_entropy(logits, targets)
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(loss, numpy_cross_entropy(logits, targets), rtol=1e-5)


def test_a_single_token_needs_no_token_axis():
    logits, targets, _ = some_tokens(shape=(1,))
    np.testing.assert_array_equal(
        losses.cross_entropy(logits[0], targets[0]), losses.cross_entropy(logits, targets)
    )


def test_token_losses_merge_to_the_mean():
    logits, targets, mask = some_tokens()
    tokens = losses.token_cross_entropy(logits, targets, mask=mask, label_smoothing=0.2)
    assert tokens.shape == targets.shape
    np.testing.assert_array_equal(np.asarray(tokens)[~np.asarray(mask)], 0)
    np.testing.assert_array_equal(
        losses.mean_over(tokens, mask).value,
        losses.cross_entropy(logits, targets, mask=mask, label_smoothing=0.2),
    )


def test_a_weight_of_zero_masks_a_class_and_only_ratios_of_weights_matter():
    logits, targets, mask = some_tokens()
    loss = functools.partial(losses.cross_entropy, logits, targets, mask=mask)
    np.testing.assert_allclose(
        loss(class_weights=jnp.ones(CLASSES).at[2].set(0)),
        losses.cross_entropy(logits, targets, mask=mask & (targets != 2)),
        rtol=1e-6,
    )
    weights = jnp.linspace(0.5, 2, CLASSES)
    one, other = (loss(class_weights=w, label_smoothing=0.1) for w in (weights, 100 * weights))
    np.testing.assert_allclose(one, other, rtol=1e-6)


def test_logits_far_from_zero_cost_no_accuracy():
    logits, targets, _ = some_tokens()
    logits = jnp.round(logits * 16) / 16  # so that the shift below is exact
    shifted, gradient = jax.value_and_grad(losses.cross_entropy)(logits + 1e4, targets)
    plain, expected = jax.value_and_grad(losses.cross_entropy)(logits, targets)
    np.testing.assert_allclose(shifted, plain, rtol=1e-6)
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-8)


def test_a_class_forbidden_by_minus_infinity_is_as_if_it_were_not_there():
    logits, targets, _ = some_tokens()
    targets = jnp.minimum(targets, CLASSES - 2)
    forbidden = logits.at[..., -1].set(-jnp.inf)
    loss, gradient = jax.value_and_grad(losses.cross_entropy)(forbidden, targets)
    np.testing.assert_allclose(loss, losses.cross_entropy(logits[..., :-1], targets), rtol=1e-6)
    np.testing.assert_array_equal(gradient[..., -1], 0)
    assert np.isfinite(gradient).all()


def test_perplexity_and_bits_are_the_exponential_and_base_two_forms_of_the_loss():
    logits, targets, mask = some_tokens()
    nats = numpy_cross_entropy(logits, targets, mask)
    perplexity = losses.perplexity(logits, targets, mask=mask)
    np.testing.assert_allclose(perplexity, math.exp(nats), rtol=1e-5)
    bits = losses.bits_per_token(logits, targets, mask=mask)
    np.testing.assert_allclose(bits, nats / math.log(2), rtol=1e-6)


def test_accuracy_asks_whether_the_first_largest_logit_is_the_target():
    logits, targets, mask = some_tokens(shape=(50, 3), classes=3)
    logits = jnp.round(logits / 3)  # ties are common
    right = (np.argmax(logits, -1) == targets)[np.asarray(mask)]
    assert 0 < right.mean() < 1
    np.testing.assert_allclose(losses.accuracy(logits, targets, mask=mask), right.mean(), rtol=1e-6)
    logits = logits.at[:5, 0].set(-jnp.inf).at[5:9, 1, 2].set(jnp.inf)
    right = np.argmax(logits, -1) == targets
    for dtype in (jnp.uint8, jnp.int16, jnp.int32):
        found = losses.token_accuracy(logits, targets.astype(dtype))
        np.testing.assert_array_equal(found, right)
    np.testing.assert_array_equal(losses.token_accuracy(logits, targets, mask=mask), right & mask)


def test_token_accuracy_is_false_where_the_target_is_no_class_or_a_logit_is_nan():
    logits = jnp.array([[3.0, 1.0], [3.0, 1.0], [3.0, 1.0], [1.0, jnp.nan]])
    found = losses.token_accuracy(logits, jnp.array([0, -1, 2, 0]))
    assert found.tolist() == [True, False, False, False]


# Binary cross-entropy and squared error -----------------------------------------------------------


def test_binary_cross_entropy_is_the_mean_of_minus_log_likelihoods():
    rng = np.random.default_rng(1)
    z = rng.normal(size=(6, 4)).astype(np.float32)
    p, mask = 1 / (1 + np.exp(-z.astype(np.float64))), rng.random((6, 4)) < 0.7
    soft = rng.random((6, 4)).astype(np.float32)
    for y, weight in itertools.product((soft < 0.5, np.int32(soft < 0.5), soft), (None, 3.0)):
        y64 = y.astype(np.float64)
        expected = -((weight or 1) * y64 * np.log(p) + (1 - y64) * np.log(1 - p))[mask].mean()
        options = {"mask": as_jax(mask), "positive_weight": weight}
        loss = losses.binary_cross_entropy(as_jax(z), as_jax(y), **options)
        np.testing.assert_allclose(loss, expected, rtol=2e-6)


def test_a_positive_weight_may_be_traced():
    z, y = jnp.array([0.3, -2.0]), jnp.array([1, 0])
    loss = functools.partial(losses.binary_cross_entropy, z, y)
    np.testing.assert_allclose(
        jax.jit(lambda a: loss(positive_weight=a))(jnp.float32(3)), loss(positive_weight=3.0)
    )


def test_binary_cross_entropy_of_huge_logits_is_linear_and_not_infinite():
    z = jnp.array([1e4, -1e4, 1e4, -1e4])
    loss, gradient = jax.value_and_grad(losses.binary_cross_entropy)(z, jnp.array([1, 0, 0, 1]))
    assert loss == 5e3
    np.testing.assert_array_equal(gradient, [0, 0, 0.25, -0.25])


def test_mean_squared_error_averages_features_and_real_tokens():
    rng = np.random.default_rng(2)
    predictions, targets = rng.normal(size=(2, 6, 4, 3)).astype(np.float32)
    mask = rng.random((6, 4)) < 0.7
    loss, gradient = jax.value_and_grad(losses.mean_squared_error)(
        jnp.asarray(predictions), jnp.asarray(targets), mask=jnp.asarray(mask)
    )
    difference = predictions.astype(np.float64) - targets
    np.testing.assert_allclose(loss, np.square(difference)[mask].mean(), rtol=1e-6)
    np.testing.assert_allclose(
        gradient, 2 * difference * mask[..., None] / (3 * mask.sum()), rtol=1e-5, atol=1e-8
    )


# Regularisation of activations ----------------------------------------------------------------------


def some_outputs():
    """Outputs [time, batch, features], a mask with gaps, and the starts of documents."""
    rng = np.random.default_rng(5)
    ys = rng.normal(size=(6, 4, 3)).astype(np.float32)
    mask = rng.random((6, 4)) < 0.7
    resets = rng.random((6, 4)) < 0.3
    return ys, mask, resets


def test_activation_regularization_is_the_mean_square_of_real_outputs():
    ys, mask, _ = some_outputs()
    loss, gradient = jax.value_and_grad(losses.activation_regularization)(
        jnp.asarray(ys), mask=jnp.asarray(mask)
    )
    np.testing.assert_allclose(loss, np.square(ys.astype(np.float64))[mask].mean(), rtol=1e-6)
    np.testing.assert_allclose(gradient, 2 * ys * mask[..., None] / (3 * mask.sum()), rtol=1e-5)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("cut", [False, True])
def test_temporal_activation_regularization_is_a_loop_over_pairs_within_documents(masked, cut):
    ys, mask, resets = some_outputs()
    total, pairs, expected_gradient = 0.0, 0, np.zeros(ys.shape)
    for t in range(5):
        for row in range(4):
            if (masked and not mask[t : t + 2, row].all()) or (cut and resets[t + 1, row]):
                continue
            change = ys[t + 1, row].astype(np.float64) - ys[t, row]
            total += (change**2).mean()
            expected_gradient[t + 1, row] += 2 * change / 3
            expected_gradient[t, row] -= 2 * change / 3
            pairs += 1
    assert pairs > 0
    loss, gradient = jax.value_and_grad(losses.temporal_activation_regularization)(
        jnp.asarray(np.where(mask[..., None], ys, np.nan) if masked else ys),
        mask=jnp.asarray(mask) if masked else None,
        resets=jnp.asarray(resets) if cut else None,
    )
    np.testing.assert_allclose(loss, total / pairs, rtol=1e-6)
    np.testing.assert_allclose(gradient, expected_gradient / pairs, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("time", [0, 1])
def test_without_a_pair_of_steps_temporal_regularization_and_its_gradient_are_zero(time):
    ys = jnp.full((time, 2, 3), 5.0)
    loss, gradient = jax.value_and_grad(losses.temporal_activation_regularization)(ys)
    assert loss == 0
    np.testing.assert_array_equal(gradient, np.zeros(ys.shape))


# Masks --------------------------------------------------------------------------------------------


@every_loss
def test_a_mask_hides_values_and_gradients(loss):
    logits, targets, mask = some_tokens()
    value_and_grad = jax.jit(jax.value_and_grad(loss))
    value, gradient = value_and_grad(logits, targets, mask=mask)
    np.testing.assert_array_equal(np.asarray(gradient)[~np.asarray(mask)], 0)
    for garbage, target in ((math.nan, -1), (math.inf, CLASSES + 100), (-math.inf, -1), (1e30, 0)):
        dirty = jnp.where(mask[..., None], logits, garbage)
        found = value_and_grad(dirty, jnp.where(mask, targets, target), mask=mask)
        jax.tree.map(np.testing.assert_array_equal, found, (value, gradient))
    # Without a valid token the loss is 0, and so is its gradient.
    nothing = 1 if loss is losses.perplexity else 0
    for filling in (0.5, math.nan):
        empty = jnp.full_like(logits, filling), jnp.full_like(targets, -1)
        value, gradient = value_and_grad(*empty, mask=jnp.zeros_like(mask))
        assert value == nothing
        np.testing.assert_array_equal(gradient, 0)
    assert loss(jnp.zeros((0, CLASSES)), jnp.zeros(0, jnp.int32), mask=None) == nothing
    # A mask of True everywhere is no mask.
    value, _ = value_and_grad(logits, targets, mask=jnp.ones_like(mask))
    np.testing.assert_allclose(value, loss(logits, targets, mask=None))
    # Under vmap each sequence has its own loss.
    mapped = jax.jit(jax.vmap(lambda z, y, m: loss(z, y, mask=m), in_axes=1))
    one = lambda b: loss(logits[:, b], targets[:, b], mask=mask[:, b])
    found = mapped(logits, targets, mask)
    np.testing.assert_allclose(found, jnp.stack([one(b) for b in range(3)]), rtol=1e-6)


# Targets outside the classes ----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cross_entropy", "perplexity", "bits_per_token"])
def test_a_valid_target_outside_the_classes_makes_loss_and_gradient_nan(name):
    logits, targets, mask = some_tokens()
    loss = jax.value_and_grad(MASKED_LOSSES[name])
    compiled = jax.jit(loss)
    outside = (-1, -CLASSES, CLASSES, CLASSES + 1, 2**31 - 1, -(2**31))
    for target, run in [(-1, loss), *((target, compiled) for target in outside)]:
        value, gradient = run(logits, targets.at[0, 0].set(target), mask=mask)
        assert np.isnan(value), target
        assert np.isnan(gradient[0, 0]).all(), target


def test_neither_accuracy_nor_weights_and_smoothing_hide_a_target_outside_the_classes():
    logits, targets, mask = some_tokens()
    assert np.isnan(losses.accuracy(logits, targets.at[0, 0].set(-1), mask=mask))
    weighted = MASKED_LOSSES["weighted and smoothed"]
    assert np.isnan(weighted(logits, targets.at[0, 0].set(CLASSES), mask))


@pytest.mark.parametrize("target", [-0.1, 1.1, math.nan])
def test_a_probability_outside_the_unit_interval_makes_the_loss_nan(target):
    z = jnp.zeros(2)
    value, gradient = jax.value_and_grad(losses.binary_cross_entropy)(z, jnp.array([0.5, target]))
    assert np.isnan(value)
    np.testing.assert_array_equal(np.isnan(gradient), [False, True])


def test_targets_of_any_integer_dtype_give_the_same_loss():
    logits, targets, _ = some_tokens(classes=300)
    targets = targets % 100
    expected = losses.cross_entropy(logits, targets)
    for dtype in (jnp.uint8, jnp.int8, jnp.int16, jnp.uint16, jnp.uint32):
        loss = losses.cross_entropy(logits, targets.astype(dtype))
        np.testing.assert_array_equal(loss, expected)


def test_a_wide_target_does_not_wrap_into_the_range_of_classes(unchecked):
    with jax.enable_x64(True):
        assert np.isnan(losses.cross_entropy(jnp.zeros((1, 4)), jnp.array([2**32 + 1])))
    wide: Any = np.full(5, 2**32 + 1)
    assert np.isnan(losses.cross_entropy(jnp.zeros((5, 4)), wide, mask=jnp.ones(5, bool)))
    assert losses.cross_entropy(jnp.zeros((5, 4)), wide, mask=jnp.zeros(5, bool)) == 0


# Mean ---------------------------------------------------------------------------------------------


@hypothesis.settings(deadline=None, max_examples=30)
@hypothesis.given(st.lists(st.integers(0, 6), min_size=1, max_size=6), st.integers(0, 2**32 - 1))
def test_merged_means_of_ragged_windows_are_the_mean_over_all(lengths, seed):
    values = np.random.default_rng(seed).normal(size=(len(lengths), 6)).astype(np.float32)
    mask = np.arange(6) < np.array(lengths)[:, None]
    merged = losses.Mean(0.0, 0.0)
    for row, real in zip(values, mask, strict=True):
        mean = losses.mean_over(jnp.asarray(row), jnp.asarray(real))
        merged = merged.merge(losses.Mean(float(mean.total), float(mean.count)))
    assert merged.count == sum(lengths)
    expected = values[mask].astype(np.float64).mean() if sum(lengths) else 0.0
    np.testing.assert_allclose(merged.value, expected, rtol=1e-5, atol=1e-6)


def test_the_mean_of_means_of_ragged_windows_is_something_else():
    full = losses.mean_over(jnp.array([1.0, 1.0, 1.0]))
    short = losses.mean_over(jnp.array([5.0, 0.0, 0.0]), jnp.array([True, False, False]))
    assert full.merge(short).value == 2.0
    assert (full.value + short.value) / 2 == 3.0


def test_counts_merge_exactly_on_the_host_and_to_one_part_in_two_to_the_24_on_the_device():
    assert losses.Mean(2.0**24, 2.0**24).merge(losses.Mean(1.0, 1.0)).count == 2**24 + 1
    start = losses.Mean(jnp.float32(2**24), jnp.float32(2**24))
    window = losses.mean_over(jnp.ones(4097))
    merged, _ = jax.lax.scan(lambda m, _: (m.merge(window), None), start, length=1000)
    exact = 2**24 + 1000 * 4097
    np.testing.assert_allclose(merged.count, exact, rtol=1000 * 2.0**-24)
    np.testing.assert_allclose(merged.value, 1, rtol=1e-6)


def test_devices_merge_by_psum():
    values, mask = jnp.arange(6.0).reshape(2, 3), jnp.array([[True] * 3, [True, False, False]])
    of_all = jax.vmap(
        lambda v, m: jax.lax.psum(losses.mean_over(v, m), "devices").value, axis_name="devices"
    )(values, mask)
    np.testing.assert_allclose(of_all, [1.5, 1.5])


def test_a_plus_between_means_joins_tuples_as_it_always_does():
    assert losses.Mean(1.0, 2.0) + losses.Mean(3.0, 4.0) == (1.0, 2.0, 3.0, 4.0)


@pytest.mark.parametrize("compiled", [False, True])
def test_the_value_of_an_empty_mean_is_zero_with_gradient_zero(compiled):
    value = lambda total, count: losses.Mean(total, count).value
    derivative = jax.value_and_grad(value, argnums=(0, 1))
    derivative = jax.jit(derivative) if compiled else derivative
    found, gradients = derivative(jnp.float32(0), jnp.float32(0))
    assert (found, *gradients) == (0, 0, 0)


def test_the_gradient_of_a_mean_is_one_over_the_count_at_real_values():
    values, mask = jnp.array([1.0, jnp.nan, 3.0]), jnp.array([True, False, True])
    value, gradient = jax.value_and_grad(lambda v: losses.mean_over(v, mask).value)(values)
    assert value == 2
    np.testing.assert_array_equal(gradient, [0.5, 0, 0.5])


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.bool_, jnp.int32])
def test_means_over_narrow_values_are_summed_in_float32(dtype):
    mean = losses.mean_over(jnp.ones(3001, dtype))
    assert (mean.total, mean.count) == (3001, 3001)
    assert {jnp.result_type(mean.total), jnp.result_type(mean.count)} == {jnp.dtype("float32")}


# PyTorch ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch", reason="PyTorch is not installed to be compared with")


def assert_is_torch(torch, ours, theirs, x):
    """Both losses and their gradients agree at `x`."""
    value, gradient = jax.value_and_grad(ours)(as_jax(x))
    z = torch.tensor(np.asarray(x), requires_grad=True)
    expected = theirs(z)
    expected.backward()
    np.testing.assert_allclose(value, expected.item(), rtol=1e-6)
    np.testing.assert_allclose(gradient, z.grad.numpy(), rtol=1e-5, atol=1e-7)


@pytest.mark.peer
def test_cross_entropy_and_its_gradient_are_those_of_pytorch(torch):
    logits, targets, mask = some_tokens()
    y = torch.tensor(np.where(mask, targets, -100)).long()
    w = np.linspace(0.5, 2, CLASSES).astype(np.float32)
    for weights, smoothing in itertools.product((None, w), (0.0, 0.2)):
        ours = {"class_weights": as_jax(weights), "label_smoothing": smoothing}
        weight = None if weights is None else torch.tensor(weights)
        theirs = functools.partial(
            torch.nn.functional.cross_entropy, weight=weight, label_smoothing=smoothing
        )
        assert_is_torch(
            torch,
            lambda z, options=ours: losses.cross_entropy(z, targets, mask=mask, **options),
            lambda z, loss=theirs: loss(z.reshape(-1, CLASSES), y.reshape(-1)),
            logits,
        )


@pytest.mark.peer
@pytest.mark.parametrize("weight", [None, 2.5])
def test_losses_of_numbers_are_those_of_pytorch(torch, weight):
    logits, targets = np.random.default_rng(3).normal(size=(2, 20, 3)).astype(np.float32)
    of_torch, y = torch.nn.functional, torch.tensor(targets)
    positive = None if weight is None else torch.tensor(weight)
    assert_is_torch(
        torch,
        lambda z: losses.binary_cross_entropy(
            z, jax.nn.sigmoid(as_jax(targets)), positive_weight=weight
        ),
        lambda z: of_torch.binary_cross_entropy_with_logits(z, y.sigmoid(), pos_weight=positive),
        logits,
    )
    mean_squared_error = lambda z: losses.mean_squared_error(z, as_jax(targets))
    assert_is_torch(torch, mean_squared_error, lambda z: of_torch.mse_loss(z, y), logits)


@pytest.mark.peer
def test_the_regularisers_of_activations_are_those_of_awd_lstm_in_pytorch(torch):
    ys, _, _ = some_outputs()
    squares = lambda h: h.pow(2).mean()
    assert_is_torch(torch, losses.activation_regularization, squares, ys)
    changes = lambda h: (h[1:] - h[:-1]).pow(2).mean()
    assert_is_torch(torch, losses.temporal_activation_regularization, changes, ys)


# Errors -------------------------------------------------------------------------------------------


LOGITS, TARGETS = jnp.zeros((5, 3, CLASSES)), jnp.zeros((5, 3), jnp.int32)
MASK = jnp.ones((5, 3), bool)
OVER_CLASSES = (
    losses.token_cross_entropy,
    losses.cross_entropy,
    losses.perplexity,
    losses.bits_per_token,
    losses.accuracy,
    losses.token_accuracy,
)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"targets": TARGETS[0]}, r"targets has shape \(3,\) but logits has \(5, 3, 7\)"),
        ({"targets": TARGETS.astype(jnp.float32)}, "targets is float32; expected integers"),
        ({"targets": MASK}, "targets is bool; expected integers"),
        ({"logits": LOGITS.astype(jnp.int32)}, "logits is int32; expected floating point"),
        ({"logits": jnp.zeros(())}, r"logits has \(\)"),
        ({"mask": MASK[0]}, r"mask has shape \(3,\) but there are tokens \(5, 3\)"),
        ({"mask": MASK.astype(jnp.int32)}, "mask is int32; expected bool"),
    ],
)
def test_a_loss_over_classes_validates_shapes_and_dtypes(arguments, message):
    arguments = {"logits": LOGITS, "targets": TARGETS, "mask": MASK} | arguments
    for loss in OVER_CLASSES:
        with pytest.raises(ValueError, match=message):
            jax.eval_shape(loss, **arguments)


FOUR, PAIRS = jnp.zeros(4), jnp.zeros((4, 2))
OTHER_MASK = r"mask has shape \({}\) but there are tokens \({}\)"
ERRORS = [
    *(
        (losses.cross_entropy, (LOGITS, TARGETS), {"label_smoothing": e}, "label_smoothing")
        for e in (-0.1, 1.0, math.nan)
    ),
    *(
        (
            losses.cross_entropy,
            (LOGITS, TARGETS),
            {"class_weights": jnp.ones(shape)},
            r"class_weights has shape .* but logits has 7 classes",
        )
        for shape in ((), (CLASSES - 1,), (1, CLASSES))
    ),
    *(
        (losses.binary_cross_entropy, *case)
        for case in [
            ((FOUR, jnp.zeros(3)), {}, r"targets has shape \(3,\) but logits has \(4,\)"),
            ((FOUR.astype(jnp.int32), FOUR), {}, "logits is int32"),
            ((FOUR, FOUR), {"mask": jnp.ones(3, bool)}, r"mask has shape \(3,\)"),
            ((FOUR, FOUR), {"mask": jnp.ones(4)}, "mask is float32"),
            ((FOUR, FOUR), {"positive_weight": 0.0}, "expected a positive number, got 0.0"),
            ((FOUR, FOUR), {"positive_weight": FOUR}, r"positive_weight has shape \(4,\)"),
        ]
    ),
    *(
        (losses.mean_squared_error, *case)
        for case in [
            ((PAIRS, PAIRS[:, 1:]), {}, r"has shape \(4, 1\) but predictions has \(4, 2\)"),
            ((PAIRS.astype(jnp.int32), PAIRS), {}, "predictions is int32"),
            ((jnp.zeros(()), jnp.zeros(())), {}, "predictions is a scalar"),
            ((PAIRS, PAIRS), {"mask": PAIRS == 0}, OTHER_MASK.format("4, 2", "4,")),
        ]
    ),
    *(
        (losses.temporal_activation_regularization, *case)
        for case in [
            ((PAIRS.astype(jnp.int32),), {}, "ys is int32; expected floating point"),
            ((FOUR,), {}, r"ys has shape \(4,\); expected \[time, \*batch, features\]"),
            ((PAIRS,), {"mask": jnp.ones(3, bool)}, OTHER_MASK.format("3,", "4,")),
            ((PAIRS,), {"resets": PAIRS == 0}, r"resets has shape \(4, 2\) but there are tokens"),
            ((PAIRS,), {"resets": FOUR}, "resets is float32; expected bool"),
        ]
    ),
    (
        losses.activation_regularization,
        (jnp.zeros(()),),
        {},
        r"ys has shape \(\); expected \[\*tokens, features\]",
    ),
    (
        losses.activation_regularization,
        (PAIRS,),
        {"mask": PAIRS == 0},
        OTHER_MASK.format("4, 2", "4,"),
    ),
    (losses.mean_over, (jnp.ones(3), jnp.ones(2, bool)), {}, OTHER_MASK.format("2,", "3,")),
]


@pytest.mark.parametrize(("loss", "arguments", "options", "message"), ERRORS)
def test_an_argument_that_does_not_fit_raises(loss, arguments, options, message):
    with pytest.raises(ValueError, match=message):
        loss(*arguments, **options)
