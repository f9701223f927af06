"""Residual connection and gated linear unit around a cell."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seqjax as sj

pytestmark = pytest.mark.usefixtures("quick_compilation")

CELL = sj.Residual(sj.GRU(3))


def test_the_output_is_that_of_the_cell_plus_its_input(key):
    params = CELL.init(key, in_features=3)
    xs = jax.random.normal(key, (5, 2, 3))
    state, ys = sj.unroll(CELL, params, xs)
    inner, zs = sj.unroll(CELL.cell, params, xs)
    np.testing.assert_allclose(ys, xs + zs, rtol=1e-6)
    np.testing.assert_array_equal(state.h, inner.h)


def test_the_gradient_has_a_path_around_the_cell(key):
    params = jax.tree.map(jnp.zeros_like, CELL.init(key, in_features=3))
    gradient = jax.grad(lambda xs: sj.unroll(CELL, params, xs)[1].sum())(jnp.ones((5, 3)))
    np.testing.assert_array_equal(gradient, np.ones((5, 3)))  # the cell itself passes nothing on


F64 = {"param_dtype": jnp.float64}
UNIT = sj.GLU(sj.GRU(3, **F64), **F64)


def unit(kernel, bias, y):
    """Dauphin et al. 2017, equation 1, on gelu(y) = y Φ(y) (Hendrycks, Gimpel 2016)."""
    u = y * 0.5 * (1 + np.vectorize(math.erf)(y / np.sqrt(2)))
    value, gate = np.split(u @ kernel + bias, 2, axis=-1)
    return value / (1 + np.exp(-gate))


def test_the_output_is_the_unit_on_that_of_the_cell(key, x64):
    params = UNIT.init(key, in_features=2)._replace(bias=jnp.arange(6.0) / 7)
    xs = jax.random.normal(key, (5, 2, 2), jnp.float64)
    state, ys = sj.unroll(UNIT, params, xs)
    inner, zs = sj.unroll(UNIT.cell, params.cell, xs)
    expected = unit(np.asarray(params.kernel), np.asarray(params.bias), np.asarray(zs))
    np.testing.assert_allclose(ys, expected, rtol=1e-12)
    np.testing.assert_array_equal(state.h, inner.h)
    np.testing.assert_allclose(UNIT.output(params, state, xs[-1]), expected[-1], rtol=1e-12)


def test_a_stack_of_linear_cells_is_no_longer_linear(key):
    def bend(cell):
        params = cell.init(key, 3)
        run = lambda xs: sj.unroll(cell, params, xs)[1]
        a, b = jax.random.normal(key, (2, 6, 3))
        return float(jnp.max(jnp.abs(run(a + b) + run(jnp.zeros_like(a)) - run(a) - run(b))))

    assert bend(sj.Stack((sj.LRU(3), sj.LRU(3)))) < 1e-5
    assert bend(sj.Stack((sj.GLU(sj.LRU(3)), sj.GLU(sj.LRU(3))))) > 1e-2


def test_values_and_gates_are_drawn_apart(key):
    value, gate = jnp.split(sj.GLU(sj.GRU(32)).init(key, 2).kernel, 2, axis=-1)
    assert not np.array_equal(value, gate)
    # Glorot's bound of one [32, 32], not of [32, 64].
    assert math.sqrt(6 / 96) < np.abs(value).max() <= math.sqrt(6 / 64) * (1 + 1e-6)
