"""The window of inputs against a NumPy loop, other cells, and what it must forget."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seqjax as sj
from seqjax.initializers import Constant
from tests.cells import comparison
from tests.cells.comparison import FEATURES, SIZES, Comparison

pytestmark = pytest.mark.usefixtures("quick_compilation")

WINDOW = 3


def row(W, b, x, window):
    """Waibel et al. 1989: one layer over the last inputs, the oldest first."""
    ys = []
    for x_t in x:
        window = np.concatenate([window[1:], x_t[None]])
        pairs = zip(window, np.split(W, WINDOW), strict=True)
        ys.append(np.tanh(sum(x_k @ W_k for x_k, W_k in pairs) + b))
    return np.array(ys), window


CASE = Comparison(sj.TimeDelay(FEATURES, window=WINDOW), row)


def test_the_cell_and_all_its_gradients_are_those_of_the_equation(x64):
    comparison.assert_follows_the_equations(CASE)


@SIZES
def test_in_single_precision_the_cell_keeps_to_the_equation(sizes):
    comparison.assert_values_follow_the_equations(CASE.at(*sizes))


def test_a_window_of_one_step_is_an_elman_network_that_never_looks_back(key):
    cell, elman = sj.TimeDelay(4, window=1), sj.Elman(4, recurrent_init="zeros")
    params, xs = elman.init(key, 2), jax.random.normal(key, (5, 3, 2))
    _, ys = sj.unroll(cell, type(cell.init(key, 2))(params.input_kernel, params.bias), xs)
    _, expected = sj.unroll(elman, params, xs)
    np.testing.assert_allclose(ys, expected, rtol=1e-6, atol=1e-7)  # a rounding of a sum near 1


def test_what_lies_a_window_back_is_lost_without_a_trace(key):
    cell = sj.TimeDelay(4, window=3)
    params, xs = cell.init(key, 2), jax.random.normal(key, (6, 2))
    of_x = jax.jacobian(lambda xs: sj.unroll(cell, params, xs)[1])(xs)
    size = np.linalg.norm(np.asarray(of_x), axis=(1, 3))  # [time of y, time of x]
    for t in range(6):
        assert np.array_equal(size[t] > 0, [t - 3 < k <= t for k in range(6)])


def test_the_gradient_by_lag_ends_with_the_window(key):
    cell = sj.TimeDelay(4, window=3)
    params, xs = cell.init(key, 2), jax.random.normal(key, (9, 2, 2))
    norms = sj.diagnostics.jacobians(cell, params, xs).spectral
    # The state itself is shifted: an entry stays for window - 1 steps, and then is out.
    np.testing.assert_array_equal(np.asarray(norms)[:, 0] > 0, [True] * 3 + [False] * 7)


def test_weights_are_drawn_for_the_whole_window_and_biases_start_as_they_are_told(key):
    params = sj.TimeDelay(20, window=5, bias_init=Constant(0.5)).init(key, 8)
    bound = np.sqrt(6 / (5 * 8 + 20))  # Glorot, Bengio 2010, of one matrix [5 · 8, 20]
    assert params.input_kernel.shape == (40, 20)
    assert 0.97 * bound < np.abs(params.input_kernel).max() <= bound * (1 + 1e-6)
    np.testing.assert_array_equal(params.bias, np.full(20, 0.5, np.float32))


def test_a_window_that_makes_no_cell_is_refused():
    with pytest.raises(ValueError, match=r"TimeDelay: window: expected .*, got 0"):
        sj.TimeDelay(4, window=0)


def test_an_input_of_another_width_is_refused(key):
    cell = sj.TimeDelay(4, window=2)
    params = cell.init(key, 3)
    with pytest.raises(ValueError, match="TimeDelay: x"):
        cell.step(params, cell.initial_state(params), jnp.ones(2))
