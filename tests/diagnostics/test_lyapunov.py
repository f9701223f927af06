"""Lyapunov exponents of networks whose exponents are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seqjax as sj
from seqjax.diagnostics import lyapunov
from seqjax.gates import Activation

pytestmark = pytest.mark.usefixtures("quick_compilation")


def linear(U, activation: Activation = "identity"):
    cell = sj.Elman(len(U), activation=activation, param_dtype=jnp.float64)
    params = cell.init(jax.random.key(1), 2)
    return cell, params._replace(recurrent_kernel=jnp.asarray(U))


def matrix(*eigenvalues):
    """A matrix that is not normal, with these eigenvalues."""
    V = np.eye(len(eigenvalues)) + 0.3 * np.random.RandomState(0).standard_normal(
        (len(eigenvalues), len(eigenvalues))
    )
    return V @ np.diag(eigenvalues) @ np.linalg.inv(V)


def test_of_a_linear_map_they_are_the_logarithms_of_its_eigenvalues(x64):
    U = matrix(1.3, -0.9, 0.4)
    cell, params = linear(U)
    found = lyapunov(cell, params, jnp.ones((400, 2)), count=None, align=200)
    # After 200 steps the directions have turned to rounding: (0.9 / 1.3)^200 = 1e-32.
    np.testing.assert_allclose(found.exponents[0], np.log([1.3, 0.9, 0.4]), rtol=1e-10)
    assert found.steps == 200


def test_a_rotation_counts_by_its_modulus_on_the_average(x64):
    angle = 2 * np.pi / 8  # eight steps are a whole turn
    U = 0.7 * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    cell, params = linear(U)
    found = lyapunov(cell, params, jnp.ones((80, 2)), align=0)
    np.testing.assert_allclose(found.exponents[0], 2 * [np.log(0.7)], rtol=1e-10)


def test_a_tanh_network_at_zero_is_the_linear_one(x64):
    U = matrix(0.8, 0.5, -0.2)
    cell, params = linear(U, "tanh")
    found = lyapunov(cell, params, jnp.zeros((100, 3, 2)), align=60, rows=2)
    assert found.exponents.shape == (2, 3)
    np.testing.assert_allclose(found.exponents, 2 * [np.log([0.8, 0.5, 0.2])], rtol=1e-8)


def test_a_large_network_with_strong_weights_is_chaotic_and_with_weak_ones_is_not():
    def largest(radius):
        cell = sj.Elman(64, recurrent_init=sj.initializers.SpectralRadius(radius))
        params = cell.init(jax.random.key(1), 2)
        xs = 0.01 * jax.random.normal(jax.random.key(2), (200, 2))
        return lyapunov(cell, params, xs, count=1).exponents[0, 0]

    # Sompolinsky, Crisanti, Sommers 1988: the state of rest gives way to chaos at radius 1.
    assert largest(3.0) > 0.05
    assert largest(0.5) < -0.5


def test_the_sum_of_all_is_the_mean_logarithm_of_the_determinant(x64):
    cell = sj.LSTM(2, param_dtype=jnp.float64)
    params = cell.init(jax.random.key(1), 2)
    xs = jax.random.normal(jax.random.key(2), (6, 2), jnp.float64)
    found = lyapunov(cell, params, xs, count=None, align=0)
    state, logs = cell.initial_state(params), []
    for x in xs:
        step = lambda s, x=x: cell.step(params, s, x)[0]
        J = jax.jacfwd(step)(state)
        logs.append(np.linalg.slogdet(np.block([list(J.h), list(J.c)]))[1])
        state = step(state)
    np.testing.assert_allclose(np.sum(found.exponents), np.mean(logs), rtol=1e-10)


def test_a_direction_that_is_lost_has_the_exponent_minus_infinity(x64):
    cell, params = linear(np.diag([0.5, 0.0]))
    found = lyapunov(cell, params, jnp.ones((5, 2)), align=0)
    assert found.exponents[0, 1] == -np.inf
    assert np.isfinite(found.exponents[0, 0])


def test_the_largest_is_the_first_over_a_short_run_too():
    cell = sj.LSTM(4)
    params = cell.init(jax.random.key(0), 2)
    xs = jax.random.normal(jax.random.key(1), (6, 5, 2))
    exponents = np.asarray(sj.diagnostics.lyapunov(cell, params, xs, count=None).exponents)
    assert exponents.shape == (5, 8)
    assert np.all(np.diff(exponents, axis=1) <= 0)
    nothing = lyapunov(cell, params, xs[:, :0], count=None)
    assert nothing.exponents.shape == (0, 8)
