"""The real-gated linear recurrent unit against a NumPy loop, finite differences and sums of logs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seqjax as sj
from seqjax.cells.rglru import RGLRUParams, RGLRUState
from tests.cells import comparison
from tests.cells.comparison import FEATURES, TIME, Comparison, largest_gap, split
from tests.oracles import sigmoid

pytestmark = pytest.mark.usefixtures("quick_compilation")


def row(W, b, decay_logit, x, h):
    """One sequence, one step after another (De et al. 2024)."""
    (W_a, W_x), (b_a, b_x) = split(W, 2), split(b, 2)
    a = sigmoid(decay_logit)
    hs = []
    for x_t in x:
        r = sigmoid(x_t @ W_a + b_a)
        i = sigmoid(x_t @ W_x + b_x)
        a_t = a ** (8 * r)
        h = a_t * h + np.sqrt(1 - a_t**2) * (i * x_t)
        hs.append(h)
    return np.array(hs), h


RGLRU = Comparison(
    sj.RGLRU(FEATURES),
    row,
    in_features=FEATURES,
    prepare=lambda W, b, decay_logit, xs, h: (W, b, 3 + decay_logit, xs, h),
)


def test_the_cell_and_all_its_gradients_are_those_of_the_equations(x64):
    comparison.assert_follows_the_equations(RGLRU)


def test_each_state_is_the_sum_of_its_drives_at_the_decay_of_all_gates_since(x64):
    # h_t = a^{c (R_t - R_0)} h_0 + Σ_s a^{c (R_t - R_s)} b_s, with R_t the sum of the gates up to t.
    W, b, decay_logit, xs, h = RGLRU.arguments()
    ys, _ = RGLRU.outcome[0]
    r, i = np.split(sigmoid(xs @ W + b), 2, axis=-1)
    rate = 8 * np.log1p(np.exp(-decay_logit))
    total = np.cumsum(r, axis=0)
    drives = np.sqrt(1 - np.exp(-2 * rate * r)) * i * xs
    for t in range(TIME):
        expected = np.exp(-rate * total[t]) * h
        for s in range(t + 1):
            expected = expected + np.exp(-rate * (total[t] - total[s])) * drives[s]
        np.testing.assert_allclose(ys[t], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("time", "batch", "features"), [(5, (3,), 1), (1, (2,), 7), (3, (1,), 2), (3, (), 4)]
)
def test_in_single_precision_the_cell_keeps_to_the_equations(time, batch, features):
    comparison.assert_values_follow_the_equations(RGLRU.at(features, features, time, batch))


def drive_of_one_unit(bias_r, decay_logit, dtype):
    """√(1 - a²) · i x with i = 1/2 and x = 2, and its gradient with respect to b_a and Λ."""
    cell = sj.RGLRU(1, param_dtype=dtype)

    def drive(bias_r, decay_logit):
        bias = jnp.stack([bias_r, jnp.zeros((), dtype)])
        params = RGLRUParams(jnp.zeros((1, 2), dtype), bias, decay_logit[None])
        _, b = cell.coefficients(params, jnp.full(1, 2.0, dtype))
        return b[0]

    return jax.value_and_grad(drive, argnums=(0, 1))(
        jnp.asarray(bias_r, dtype), jnp.asarray(decay_logit, dtype)
    )


@pytest.mark.parametrize(("bias_r", "decay_logit"), [(-12.0, 6.0), (-40.0, 6.0), (0.0, 40.0)])
def test_where_a_is_one_to_rounding_the_drive_and_its_gradient_keep_their_digits(
    bias_r, decay_logit
):
    # With m = -log a = c r softplus(-Λ): d√(1 - e^{-2m}) = m e^{-2m} / √(1 - e^{-2m}) · d log m.
    r, softplus = sigmoid(bias_r), np.log1p(np.exp(-decay_logit))
    m = 8 * r * softplus
    value = np.sqrt(-np.expm1(-2 * m))
    slope = m * np.exp(-2 * m) / value
    expected = (slope * (1 - r), -slope * sigmoid(-decay_logit) / softplus)
    came, gradient = drive_of_one_unit(bias_r, decay_logit, jnp.float32)
    np.testing.assert_allclose(came, value, rtol=1e-5)
    np.testing.assert_allclose(gradient, expected, rtol=1e-5)


@pytest.mark.parametrize(("bias_r", "decay_logit"), [(-200.0, 6.0), (0.0, 200.0), (-60.0, 60.0)])
def test_where_a_is_one_exactly_nothing_enters_and_the_gradient_is_zero(bias_r, decay_logit):
    # Both logits lie where float32 knows 0 only: r = σ(-200), softplus(-200), and their product.
    drive, gradient = drive_of_one_unit(bias_r, decay_logit, jnp.float32)
    assert drive < 1e-20
    assert np.all(np.isfinite(gradient))
    assert np.all(np.abs(gradient) < 1e-20)


def test_a_gradient_through_many_steps_is_finite_where_a_gate_shuts_fully():
    cell = sj.RGLRU(2)
    params = RGLRUParams(
        input_kernel=jnp.zeros((2, 4)),
        bias=jnp.array([-300.0, 0.0, 0.0, 0.0]),
        decay_logit=jnp.array([5.0, 5.0]),
    )
    state = RGLRUState(jnp.array([0.4, 0.4]))
    run = lambda params: sj.unroll(cell, params, jnp.ones((3, 2)), state)[1]
    ys, gradient = run(params), jax.grad(lambda params: run(params).sum())(params)
    np.testing.assert_array_equal(ys[:, 0], np.full(3, 0.4, np.float32))
    assert all(np.all(np.isfinite(leaf)) for leaf in gradient)
    assert gradient.decay_logit[0] == 0
    assert gradient.decay_logit[1] != 0


def test_a_step_keeps_the_variance_of_a_state_as_large_as_its_gated_input(x64):
    # a² + (√(1 - a²))² = 1, read off a step from h = 0 and one from x = 0.
    W, b, decay_logit, xs, _ = map(jnp.asarray, RGLRU.arguments())
    b = b.at[FEATURES:].set(50.0)  # i = 1 to rounding
    cell = sj.RGLRU(FEATURES, param_dtype=jnp.float64)
    kept, entered = cell.coefficients(RGLRUParams(W, b, decay_logit), 0 * xs + 1)
    np.testing.assert_allclose(kept**2 + entered**2, np.ones(kept.shape), rtol=1e-12)


@pytest.mark.parametrize(("low", "high"), [(0.9, 0.999), (0.2, 0.5)])
def test_the_decay_of_an_open_gate_starts_uniform_in_its_range(low, high, key):
    cell = sj.RGLRU(2000, input_init="zeros", decay_min=low, decay_max=high)
    decays = sigmoid(np.asarray(cell.init(key, 2000).decay_logit, np.float64)) ** 8
    # float32 keeps Λ to 1e-6, and so 1 - a^c: at most 1e-6 of what lies above 0.5.
    assert decays.min() >= low - 1e-6
    assert decays.max() <= high + 1e-6
    # Of 2000 uniform draws the gap exceeds 1.95 / √2000 = 0.044 with probability 0.001.
    assert largest_gap(decays, low, high) < 0.044


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"decay_min": 0.0}, "0 < decay_min < decay_max < 1, got 0.0 and 0.999"),
        ({"decay_max": 1.0}, "0 < decay_min < decay_max < 1, got 0.9 and 1.0"),
        ({"decay_min": 0.99, "decay_max": 0.9}, "decay_min < decay_max < 1, got 0.99 and 0.9"),
        ({"decay_max": float("nan")}, "RGLRU: decay_max: expected a finite number, got nan"),
    ],
)
def test_hyperparameters_that_make_no_cell_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        sj.RGLRU(3, **fields)


def test_inputs_that_are_not_as_many_as_the_features_are_refused(key):
    message = "RGLRU: in_features is 2 but the cell has 3 features; .*project it to that size first"
    with pytest.raises(ValueError, match=message):
        sj.RGLRU(3).init(key, in_features=2)
