"""Residual: a connection around a cell."""

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


def test_the_outputs_have_the_dtype_of_the_cell(key):
    cell = sj.Residual(sj.GRU(3, dtype=jnp.bfloat16))
    params = cell.init(key, in_features=3)
    shapes = jax.eval_shape(lambda xs: sj.unroll(cell, params, xs)[1], jnp.ones((5, 3)))
    assert shapes.dtype == jnp.bfloat16


def test_mixing_and_noise_are_those_of_the_cell(key):
    noisy = sj.Residual(sj.Dropout(sj.GRU(3), rate=0.5))
    assert CELL.mixing == CELL.cell.mixing
    assert noisy.deterministic() == sj.Residual(sj.Dropout(sj.GRU(3), rate=0.0))
    state = noisy.initial_state(noisy.init(key, 3), (64,), key=key)
    assert not np.array_equal(noisy.redraw(state, jax.random.key(5)).mask, state.mask)


def test_another_number_of_inputs_than_features_is_refused(key):
    with pytest.raises(
        ValueError, match=r"Residual: in_features is 4 but the cell has 3 features; .* equal"
    ):
        CELL.init(key, in_features=4)


def test_what_is_no_cell_is_refused(unchecked):
    with pytest.raises(ValueError, match="Residual: cell: expected a Cell, got 'GRU'"):
        sj.Residual("GRU")  # pyright: ignore[reportArgumentType] - refused on purpose
