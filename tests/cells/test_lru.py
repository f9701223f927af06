"""The linear recurrent unit against a NumPy loop, finite differences and powers of λ."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seqjax as sj
from seqjax.cells.lru import LRUState
from tests import oracles
from tests.cells import comparison
from tests.cells.comparison import Comparison, largest_gap

pytestmark = pytest.mark.usefixtures("quick_compilation")


def row(nu, theta, gamma, B_re, B_im, C_re, C_im, D, x, h_re, h_im):
    """One sequence, one step after another, in complex numbers (Orvieto et al. 2023)."""
    eigenvalues = np.exp(-np.exp(nu) + 1j * np.exp(theta))
    B, C, h = B_re + 1j * B_im, C_re + 1j * C_im, h_re + 1j * h_im
    ys = []
    for x_t in x:
        h = eigenvalues * h + np.exp(gamma) * (x_t @ B)
        ys.append((h @ C).real + x_t @ D)
    return np.array(ys), h.real, h.imag


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


LRU = Comparison(
    sj.LRU(2, state_features=3),
    row,
    state=lambda re, im: LRUState(jax.lax.complex(re, im)),
    read=lambda state: (state.h.real, state.h.imag),
)


def test_the_cell_and_all_its_gradients_are_those_of_the_equations(x64):
    comparison.assert_follows_the_equations(LRU)


def test_each_output_is_a_sum_over_powers_of_the_eigenvalues(x64):
    ys, *_ = LRU.outcome[0]
    np.testing.assert_allclose(ys, by_powers(*LRU.arguments()), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("time", "batch", "in_features", "states", "features"),
    [(5, (3,), 1, 1, 1), (1, (2,), 2, 7, 3), (3, (1,), 2, 1, 4), (3, (), 1, 4, 1)],
)
def test_in_single_precision_the_cell_keeps_to_the_equations(
    time, batch, in_features, states, features
):
    case = LRU.at(features, in_features, time, batch, state_features=states)
    comparison.assert_values_follow_the_equations(case, atol=1e-5)


def test_in_bfloat16_the_state_stays_complex64_and_only_the_matmuls_round(key):
    cell = sj.LRU(4, dtype=jnp.bfloat16)
    params = cell.init(key, in_features=3)
    h = jax.lax.complex(jnp.linspace(-1.0, 1.0, 4), jnp.linspace(0.3, 0.9, 4))
    after, y = cell.step(params, LRUState(h), jnp.zeros(3))
    # With x = 0 no matmul has a part in λ ⊙ h, which so has all digits of float32.
    expected = np.exp(-np.exp(params.nu_log) + 1j * np.exp(params.theta_log)) * np.asarray(h)
    assert (after.h.dtype, y.dtype) == (jnp.complex64, jnp.bfloat16)
    np.testing.assert_allclose(after.h, expected, rtol=1e-6)


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
        ({"state_features": 0}, "LRU: state_features: expected a positive integer, got 0"),
        ({"r_min": -0.1}, "0 <= r_min < r_max <= 1, got -0.1 and 1.0"),
        ({"r_max": 1.1}, "0 <= r_min < r_max <= 1, got 0.0 and 1.1"),
        ({"r_min": 0.5, "r_max": 0.5}, "0 <= r_min < r_max <= 1, got 0.5 and 0.5"),
        ({"r_min": float("nan")}, "LRU: r_min: expected a finite number, got nan"),
        ({"max_phase": 0.0}, "LRU: max_phase: expected a positive number, got 0.0"),
    ],
)
def test_hyperparameters_that_make_no_cell_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        sj.LRU(**{"features": 3, **fields})
