"""The linear recurrent unit against a NumPy loop, finite differences and powers of λ."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seqjax as sj
from seqjax.cells.lru import LRUParams, LRUState
from tests import oracles

pytestmark = pytest.mark.usefixtures("quick_compilation")

TIME, BATCH, IN_FEATURES, STATES, FEATURES = 4, 2, 2, 3, 2
WEIGHTS = np.cos(np.arange(TIME * BATCH * FEATURES)).reshape(TIME, BATCH, FEATURES)
STATE_WEIGHTS = np.sin(np.arange(1.0, BATCH * STATES + 1)).reshape(BATCH, STATES)


def arguments(time=TIME, batch=(BATCH,), in_features=IN_FEATURES, states=STATES, features=FEATURES):
    """ν_log, θ_log, γ_log, the parts of B and C, D, xs, and the parts of h_0."""
    random = np.random.default_rng(0)
    shapes = [
        *[(states,)] * 3,
        *[(in_features, states)] * 2,
        *[(states, features)] * 2,
        (in_features, features),
        (time, *batch, in_features),
        *[(*batch, states)] * 2,
    ]
    return [0.8 * random.standard_normal(shape) for shape in shapes]


class Run(NamedTuple):
    """Outputs [time, *batch, features] and the last states [*batch, state_features]."""

    ys: Any
    h: Any


def by_equation(nu, theta, gamma, B_re, B_im, C_re, C_im, D, xs, h_re, h_im):
    """All rows, one step after another, in complex numbers (Orvieto et al. 2023)."""
    eigenvalues = np.exp(-np.exp(nu) + 1j * np.exp(theta))
    B, C = B_re + 1j * B_im, C_re + 1j * C_im
    ys, last = np.zeros((*xs.shape[:-1], D.shape[1])), np.zeros(h_re.shape, complex)
    for row in np.ndindex(h_re.shape[:-1]):
        h = h_re[row] + 1j * h_im[row]
        for t, x in enumerate(xs[:, *row]):
            h = eigenvalues * h + np.exp(gamma) * (x @ B)
            ys[t, *row] = (h @ C).real + x @ D
        last[row] = h
    return Run(ys, last)


def by_powers(nu, theta, gamma, B_re, B_im, C_re, C_im, D, xs, h_re, h_im):
    """h_t = λᵗ h_0 + Σ_{s≤t} λ^{t-s} γ B x_s, each step from the beginning and with real numbers.

    λⁿ is the rotation by n exp(θ_log), shrunk by exp(-n exp(ν_log)).
    """
    ys = []
    for t in range(1, len(xs) + 1):
        re = im = np.zeros_like(h_re)
        drives = [
            (h_re, h_im),
            *((np.exp(gamma) * (x @ B_re), np.exp(gamma) * (x @ B_im)) for x in xs),
        ]
        for s, (a, b) in enumerate(drives[: t + 1]):
            n = t - s
            shrink, turn = np.exp(-n * np.exp(nu)), n * np.exp(theta)
            re = re + shrink * (np.cos(turn) * a - np.sin(turn) * b)
            im = im + shrink * (np.sin(turn) * a + np.cos(turn) * b)
        ys.append(re @ C_re - im @ C_im + xs[t - 1] @ D)
    return np.array(ys)


def loss(*arguments):
    """The outputs and the last state, each entry with another weight."""
    *weights, xs, h_re, h_im = arguments
    cell = sj.LRU(FEATURES, state_features=STATES, param_dtype=jnp.float64)
    state, ys = sj.unroll(cell, LRUParams(*weights), xs, LRUState(jax.lax.complex(h_re, h_im)))
    score = (STATE_WEIGHTS * state.h.real - 2 * STATE_WEIGHTS * state.h.imag).sum()
    return (ys * WEIGHTS).sum() + score, Run(ys, state.h)


with_gradients = jax.jit(jax.value_and_grad(loss, argnums=tuple(range(11)), has_aux=True))


def test_the_cell_and_all_its_gradients_are_those_of_the_equations(x64):
    def expected_loss(*a):
        ys, h = by_equation(*a)
        return (ys * WEIGHTS).sum() + (STATE_WEIGHTS * (h.real - 2 * h.imag)).sum()

    (_, (ys, h)), gradients = with_gradients(*map(jnp.asarray, arguments()))
    expected = by_equation(*arguments())
    np.testing.assert_allclose(ys, expected.ys, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(h, expected.h, rtol=1e-12, atol=1e-12)
    assert h.dtype == jnp.complex128
    quotients = oracles.finite_differences(expected_loss, *arguments())
    for ours, theirs in zip(gradients, quotients, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-8, atol=1e-9)


def test_each_output_is_a_sum_over_powers_of_the_eigenvalues(x64):
    (_, (ys, _)), _ = with_gradients(*map(jnp.asarray, arguments()))
    np.testing.assert_allclose(ys, by_powers(*arguments()), rtol=1e-12, atol=1e-12)


SIZES = [(5, (3,), 1, 1, 1), (1, (2,), 2, 7, 3), (3, (1,), 2, 1, 4), (3, (), 1, 4, 1)]


@pytest.mark.parametrize(("time", "batch", "in_features", "states", "features"), SIZES)
def test_in_single_precision_the_cell_keeps_to_the_equations(
    time, batch, in_features, states, features
):
    case = arguments(time, batch, in_features, states, features)
    *weights, xs, h_re, h_im = (jnp.asarray(a, jnp.float32) for a in case)
    cell = sj.LRU(features, state_features=states)
    with jax.disable_jit():
        start = LRUState(jax.lax.complex(h_re, h_im))
        state, ys = sj.unroll(cell, LRUParams(*weights), xs, start)
    expected = by_equation(*case)
    np.testing.assert_allclose(ys, expected.ys, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(state.h, expected.h, rtol=1e-5, atol=1e-5)
    assert state.h.dtype == jnp.complex64


def test_in_bfloat16_the_state_stays_complex64_and_only_the_matmuls_round(key):
    cell = sj.LRU(4, dtype=jnp.bfloat16)
    params = cell.init(key, in_features=3)
    h = jax.lax.complex(jnp.linspace(-1.0, 1.0, 4), jnp.linspace(0.3, 0.9, 4))
    after, y = cell.step(params, LRUState(h), jnp.zeros(3))
    # With x = 0 no matmul has a part in λ ⊙ h, which so has all digits of float32.
    expected = np.exp(-np.exp(params.nu_log) + 1j * np.exp(params.theta_log)) * np.asarray(h)
    assert (after.h.dtype, y.dtype) == (jnp.complex64, jnp.bfloat16)
    np.testing.assert_allclose(after.h, expected, rtol=1e-6)


def largest_gap(values, low, high):
    """How far the distribution of `values` is from the uniform one (Kolmogorov, Smirnov)."""
    ranks = np.arange(1, len(values) + 1) / len(values)
    return np.abs((np.sort(values) - low) / (high - low) - ranks).max()


RINGS = [(0.0, 1.0, 2 * np.pi), (0.9, 0.999, np.pi / 10)]


@pytest.mark.parametrize(("r_min", "r_max", "max_phase"), RINGS)
def test_the_eigenvalues_start_uniform_on_the_ring_and_gamma_makes_up_for_their_radius(
    r_min, r_max, max_phase, key
):
    cell = sj.LRU(2000, r_min=r_min, r_max=r_max, max_phase=max_phase)
    params = cell.init(key, in_features=1)
    radii = np.exp(-np.exp(np.asarray(params.nu_log, np.float64)))
    phases = np.exp(np.asarray(params.theta_log, np.float64))
    assert radii.min() >= r_min
    assert radii.max() <= r_max
    assert np.ptp(phases) <= max_phase
    # Of 2000 uniform draws the gap exceeds 1.95 / √2000 = 0.044 with probability 0.001.
    assert largest_gap(radii**2, r_min**2, r_max**2) < 0.044
    assert largest_gap(phases, 0, max_phase) < 0.044
    # Radius and phase are drawn apart: 4 / √2000 bounds the correlation of 2000 independent pairs.
    assert abs(np.corrcoef(radii, phases)[0, 1]) < 0.09
    # float32 keeps 1e-7 of ν = -log |λ|, and so of 1 - |λ|² ≈ 2 ν; logarithms up to 8 lose one digit.
    np.testing.assert_allclose(np.exp(params.gamma_log), np.sqrt(1 - radii**2), rtol=1e-5)


@pytest.mark.parametrize("edge", ["least", "largest"])
@pytest.mark.parametrize(("r_min", "r_max"), [(0.0, 1.0), (0.9, 1.0), (0.0, 0.5)])
def test_at_the_edges_of_what_can_be_drawn_all_initial_values_are_finite(
    edge, r_min, r_max, key, monkeypatch
):
    def uniform(key, shape, dtype, minval=0.0, maxval=1.0):
        just_below = jnp.nextafter(jnp.asarray(maxval, dtype), jnp.zeros((), dtype))
        return jnp.full(shape, minval if edge == "least" else just_below, dtype)

    monkeypatch.setattr(jax.random, "uniform", uniform)
    cell = sj.LRU(1, r_min=r_min, r_max=r_max, feedthrough_init="zeros")
    params = cell.init(key, in_features=1)
    for leaf in (params.nu_log, params.theta_log, params.gamma_log):
        assert np.all(np.isfinite(leaf))


def test_the_parts_of_B_and_C_have_the_variances_of_the_paper_and_D_its_own_rule(key):
    in_features, states = 100, 150
    cell = sj.LRU(120, state_features=states, feedthrough_init="zeros")
    params = cell.init(key, in_features)
    expected = {
        "input_real": 1 / (2 * in_features),
        "input_imag": 1 / (2 * in_features),
        "output_real": 1 / states,
        "output_imag": 1 / states,
    }
    for name, variance in expected.items():
        # The variance of n Gaussian numbers is known to √(2 / n), here 1.2 %.
        np.testing.assert_allclose(np.var(getattr(params, name)), variance, rtol=0.05)
    assert not np.allclose(params.input_real, params.input_imag)
    assert not np.allclose(params.output_real, params.output_imag)
    np.testing.assert_array_equal(params.feedthrough, np.zeros((in_features, 120)))
    drawn = np.asarray(sj.LRU(8).init(key, 8).feedthrough)
    assert oracles.is_drawn_by("glorot", drawn)


def test_as_many_states_as_features_unless_asked(key):
    cell = sj.LRU(5)
    params = cell.init(key, 2)
    state = cell.initial_state(params, (2,))
    np.testing.assert_array_equal(state.h, np.zeros((2, 5), np.complex64))
    other = sj.LRU(5, state_features=3)
    assert other.initial_state(other.init(key, 2), (2,)).h.shape == (2, 3)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"features": 0}, "LRU: features: expected a positive integer, got 0"),
        ({"state_features": 0}, "LRU: state_features: expected a positive integer, got 0"),
        ({"r_min": -0.1}, "0 <= r_min < r_max <= 1, got -0.1 and 1.0"),
        ({"r_max": 1.1}, "0 <= r_min < r_max <= 1, got 0.0 and 1.1"),
        ({"r_min": 0.5, "r_max": 0.5}, "0 <= r_min < r_max <= 1, got 0.5 and 0.5"),
        ({"r_min": float("nan")}, "LRU: r_min: expected a finite number, got nan"),
        ({"max_phase": 0.0}, "LRU: max_phase: expected a positive number, got 0.0"),
        ({"feedthrough_init": "kaiming"}, "LRU: feedthrough_init: .*'kaiming'"),
    ],
)
def test_hyperparameters_that_make_no_cell_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        sj.LRU(**{"features": 3, **fields})


def test_inputs_of_another_size_are_refused(key):
    cell = sj.LRU(3)
    params = cell.init(key, in_features=2)
    with pytest.raises(ValueError, match=r"LRU: x has shape \(4, 5\); expected \[\*batch, 2\]"):
        cell.step(params, cell.initial_state(params, (4,)), jnp.ones((4, 5)))
