"""GLU: a gated linear unit after a cell, against NumPy and PyTorch; what it brings to linear cells."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seqjax as sj

pytestmark = pytest.mark.usefixtures("quick_compilation")

F64 = {"param_dtype": jnp.float64}
CELL = sj.GLU(sj.GRU(3, **F64), **F64)


def unit(kernel, bias, y):
    """Dauphin et al. 2017, equation 1, on gelu(y) = y Φ(y) (Hendrycks, Gimpel 2016)."""
    u = y * 0.5 * (1 + np.vectorize(math.erf)(y / np.sqrt(2)))
    value, gate = np.split(u @ kernel + bias, 2, axis=-1)
    return value / (1 + np.exp(-gate))


def test_the_output_is_the_unit_on_that_of_the_cell(key, x64):
    params = CELL.init(key, in_features=2)._replace(bias=jnp.arange(6.0) / 7)
    xs = jax.random.normal(key, (5, 2, 2), jnp.float64)
    state, ys = sj.unroll(CELL, params, xs)
    inner, zs = sj.unroll(CELL.cell, params.cell, xs)
    expected = unit(np.asarray(params.kernel), np.asarray(params.bias), np.asarray(zs))
    np.testing.assert_allclose(ys, expected, rtol=1e-12)
    np.testing.assert_array_equal(state.h, inner.h)
    np.testing.assert_allclose(CELL.output(params, state, xs[-1]), expected[-1], rtol=1e-12)


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


def test_the_outputs_have_the_dtype_of_the_cell(key):
    cell = sj.GLU(sj.GRU(3, dtype=jnp.bfloat16))
    params = cell.init(key, in_features=3)
    shapes = jax.eval_shape(lambda xs: sj.unroll(cell, params, xs)[1], jnp.ones((5, 3)))
    assert shapes.dtype == jnp.bfloat16


def test_mixing_noise_and_direction_are_those_of_the_cell(key):
    noisy = sj.GLU(sj.Dropout(sj.MinGRU(3), rate=0.5))
    assert noisy.mixing == "elementwise"
    assert noisy.deterministic() == sj.GLU(sj.Dropout(sj.MinGRU(3), rate=0.0))
    assert not sj.GLU(sj.Bidirectional(sj.GRU(2), sj.GRU(2))).causal
    state = noisy.initial_state(noisy.init(key, 3), (64,), key=key)
    assert not np.array_equal(noisy.redraw(state, jax.random.key(5)).mask, state.mask)


def test_what_makes_no_unit_is_refused(unchecked):
    no_cell: Any = 3
    with pytest.raises(ValueError, match="GLU: cell"):
        sj.GLU(no_cell)
    with pytest.raises(ValueError, match=r"GLU: kernel_init: .*'none'"):
        sj.GLU(sj.GRU(3), kernel_init="none")
