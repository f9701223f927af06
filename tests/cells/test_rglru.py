"""The real-gated linear recurrent unit against a NumPy loop, finite differences and sums of logs."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seqjax as sj
from seqjax.cells.rglru import RGLRUParams, RGLRUState
from seqjax.initializers import NAMED
from tests import oracles
from tests.oracles import sigmoid

pytestmark = pytest.mark.usefixtures("quick_compilation")

TIME, BATCH, FEATURES = 4, 2, 3
WEIGHTS = np.cos(np.arange(TIME * BATCH * FEATURES)).reshape(TIME, BATCH, FEATURES)


def arguments(time=TIME, batch=(BATCH,), features=FEATURES):
    """W, b, Λ, xs and h_0, the same at every call."""
    random = np.random.default_rng(0)
    shapes = [
        (features, 2 * features),
        (2 * features,),
        (features,),
        (time, *batch, features),
        (*batch, features),
    ]
    W, b, decay_logit, xs, h = (0.8 * random.standard_normal(shape) for shape in shapes)
    return W, b, 3 + decay_logit, xs, h


def by_equation(W, b, decay_logit, xs, h):
    """The hidden states of all rows, one step after another (De et al. 2024)."""
    (W_a, W_x), (b_a, b_x) = np.split(W, 2, axis=1), np.split(b, 2)
    a = sigmoid(decay_logit)
    hs = np.zeros(xs.shape)
    for row in np.ndindex(h.shape[:-1]):
        h_t = h[row]
        for t, x in enumerate(xs[:, *row]):
            r = sigmoid(x @ W_a + b_a)
            i = sigmoid(x @ W_x + b_x)
            a_t = a ** (8 * r)
            h_t = a_t * h_t + np.sqrt(1 - a_t**2) * (i * x)
            hs[t, *row] = h_t
    return hs


def loss(W, b, decay_logit, xs, h):
    """The outputs, each entry with another weight."""
    cell = sj.RGLRU(FEATURES, param_dtype=jnp.float64)
    state, ys = sj.unroll(cell, RGLRUParams(W, b, decay_logit), xs, RGLRUState(h))
    return (ys * WEIGHTS).sum(), (ys, state)


with_gradients = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2, 3, 4), has_aux=True))


def test_the_cell_and_all_its_gradients_are_those_of_the_equations(x64):
    (_, (ys, state)), gradients = with_gradients(*arguments())
    hs = by_equation(*arguments())
    np.testing.assert_allclose(ys, hs, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(state.h, hs[-1], rtol=1e-12, atol=1e-12)
    quotients = oracles.finite_differences(
        lambda *a: (by_equation(*a) * WEIGHTS).sum(), *arguments()
    )
    for ours, theirs in zip(gradients, quotients, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-8, atol=1e-9)


def test_each_state_is_the_sum_of_its_drives_at_the_decay_of_all_gates_since(x64):
    # h_t = a^{c (R_t - R_0)} h_0 + Σ_s a^{c (R_t - R_s)} b_s, with R_t the sum of the gates up to t.
    W, b, decay_logit, xs, h = arguments()
    (_, (ys, _)), _ = with_gradients(W, b, decay_logit, xs, h)
    r, i = np.split(sigmoid(xs @ W + b), 2, axis=-1)
    rate = 8 * np.log1p(np.exp(-decay_logit))
    total = np.cumsum(r, axis=0)
    drives = np.sqrt(1 - np.exp(-2 * rate * r)) * i * xs
    for t in range(TIME):
        expected = np.exp(-rate * total[t]) * h
        for s in range(t + 1):
            expected = expected + np.exp(-rate * (total[t] - total[s])) * drives[s]
        np.testing.assert_allclose(ys[t], expected, rtol=1e-12, atol=1e-12)


SIZES = [(5, (3,), 1), (1, (2,), 7), (3, (1,), 2), (3, (), 4)]


@pytest.mark.parametrize(("time", "batch", "features"), SIZES)
def test_in_single_precision_the_cell_keeps_to_the_equations(time, batch, features):
    case = arguments(time, batch, features)
    W, b, decay_logit, xs, h = (jnp.asarray(a, jnp.float32) for a in case)
    params = RGLRUParams(W, b, decay_logit)
    with jax.disable_jit():
        _, ys = sj.unroll(sj.RGLRU(features), params, xs, RGLRUState(h))
    np.testing.assert_allclose(ys, by_equation(*case), rtol=1e-5, atol=1e-6)


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
    W, b, decay_logit, xs, _ = (jnp.asarray(a) for a in arguments())
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
    ranks = np.arange(1, 2001) / 2000
    assert np.abs((np.sort(decays) - low) / (high - low) - ranks).max() < 0.044


@pytest.mark.parametrize("rule", list(NAMED))
def test_each_initialiser_draws_each_gate_alone(rule, key):
    params = sj.RGLRU(8, input_init=rule).init(key, in_features=8)
    blocks = np.split(np.asarray(params.input_kernel), 2, axis=1)
    assert all(oracles.is_drawn_by(rule, block) for block in blocks)
    if rule not in ("identity", "zeros"):
        assert not np.allclose(blocks[0], blocks[1])
    np.testing.assert_array_equal(params.bias, np.zeros(16))


def test_the_state_starts_at_zero(key):
    cell = sj.RGLRU(3)
    state = cell.initial_state(cell.init(key, 3), (2,))
    np.testing.assert_array_equal(state.h, np.zeros((2, 3)))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"features": 0}, "RGLRU: features: expected a positive integer, got 0"),
        ({"decay_min": 0.0}, "0 < decay_min < decay_max < 1, got 0.0 and 0.999"),
        ({"decay_max": 1.0}, "0 < decay_min < decay_max < 1, got 0.9 and 1.0"),
        ({"decay_min": 0.99, "decay_max": 0.9}, "decay_min < decay_max < 1, got 0.99 and 0.9"),
        ({"decay_max": float("nan")}, "RGLRU: decay_max: expected a finite number, got nan"),
        ({"input_init": "kaiming"}, "RGLRU: input_init: .*'kaiming'"),
    ],
)
def test_hyperparameters_that_make_no_cell_are_refused(fields, message):
    made: Any = {"features": 3, **fields}
    with pytest.raises(ValueError, match=message):
        sj.RGLRU(**made)


def test_inputs_that_are_not_as_many_as_the_features_are_refused(key):
    cell = sj.RGLRU(3)
    message = "RGLRU: in_features is 2 but the cell has 3 features; .*project it to that size first"
    with pytest.raises(ValueError, match=message):
        cell.init(key, in_features=2)
    params = cell.init(key, in_features=3)
    with pytest.raises(ValueError, match=r"RGLRU: x has shape \(4, 5\); expected \[\*batch, 3\]"):
        cell.step(params, cell.initial_state(params, (4,)), jnp.ones((4, 5)))
