"""The Clockwork RNN against the paper's equations module by module, and what its clock promises."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seqjax as sj
from seqjax.cells.clockwork import ClockworkParams, ClockworkState
from seqjax.cells.elman import ElmanParams
from seqjax.initializers import SpectralRadius
from tests import oracles
from tests.oracles import ACTIVATIONS

pytestmark = pytest.mark.usefixtures("quick_compilation")

PERIODS = (1, 2, 3)  # all modules tick together every 6 steps
TIME, BATCH, IN_FEATURES, FEATURES = 8, 2, 2, 6
WEIGHTS = np.cos(np.arange(TIME * BATCH * FEATURES)).reshape(TIME, BATCH, FEATURES)
CLOCKS = np.array([1, 5], np.int32)  # the rows stand at different steps


def draw(*shapes):
    """Float64 arrays, the same at every call."""
    random = np.random.default_rng(0)
    return [0.8 * random.standard_normal(shape) for shape in shapes]


def arguments(time=TIME, in_features=IN_FEATURES, features=FEATURES, batch=(BATCH,)):
    """W, U, b, xs and h; U is full, so that the test sees whether it is masked."""
    return draw(
        (in_features, features),
        (features, features),
        (features,),
        (time, *batch, in_features),
        (*batch, features),
    )


def by_equation(periods, activation, W, U, b, xs, h, *, clocks):
    """The h of each step of all rows, module by module; the clock only ever counts up.

    y_i^(t) = φ(Σ_{j: T_j ≥ T_i} W_H,ij y_j^(t-1) + W_I,i x^(t) + b_i) where t mod T_i = 0.
    """
    phi, size = ACTIVATIONS[activation].value, len(b) // len(periods)
    module = lambda i: slice(i * size, (i + 1) * size)
    ys = np.zeros((*xs.shape[:2], len(b)))
    for row in range(xs.shape[1]):
        before = h[row]
        for step, x in enumerate(xs[:, row]):
            after = before.copy()
            for i, T_i in enumerate(periods):
                if (clocks[row] + step) % T_i != 0:
                    continue
                a = x @ W[:, module(i)] + b[module(i)]
                for j, T_j in enumerate(periods):
                    if T_j >= T_i:
                        a = a + before[module(j)] @ U[module(j), module(i)]
                after[module(i)] = phi(a)
            ys[step, row] = before = after
    return ys


def run(activation):
    """The weighted outputs with (ys, state), and gradients by every argument."""
    cell = sj.ClockworkRNN(FEATURES, PERIODS, activation=activation, param_dtype=jnp.float64)

    def loss(W, U, b, xs, h):
        state = ClockworkState(h, jnp.asarray(CLOCKS))
        state, ys = sj.unroll(cell, ClockworkParams(W, U, b), xs, state)
        return (ys * WEIGHTS).sum(), (ys, state)

    return jax.jit(jax.value_and_grad(loss, argnums=tuple(range(5)), has_aux=True))


def masked():
    """Where a unit would read one of a faster module."""
    module = np.arange(FEATURES) // (FEATURES // len(PERIODS))
    return module[:, None] < module[None]


@pytest.mark.parametrize("activation", ["tanh", "sigmoid"])
def test_the_cell_and_all_its_gradients_are_those_of_the_equations(activation, x64):
    (_, (ys, state)), gradients = run(activation)(*arguments())
    expected = by_equation(PERIODS, activation, *arguments(), clocks=CLOCKS)
    np.testing.assert_allclose(ys, expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(state.h, expected[-1], rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(state.t, (CLOCKS + TIME) % 6)
    quotients = oracles.finite_differences(
        lambda *a: (by_equation(PERIODS, activation, *a, clocks=CLOCKS) * WEIGHTS).sum(),
        *arguments(),
    )
    for ours, theirs in zip(gradients, quotients, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-8, atol=1e-8)
    by_U = np.asarray(gradients[1])
    assert np.all(by_U[masked()] == 0)
    assert np.all(by_U[~masked()] != 0)


def test_in_single_precision_the_cell_keeps_to_the_equations():
    W, U, b, xs, h = (jnp.asarray(a, jnp.float32) for a in arguments())
    state = ClockworkState(h, jnp.asarray(CLOCKS))
    _, ys = sj.unroll(sj.ClockworkRNN(FEATURES, PERIODS), ClockworkParams(W, U, b), xs, state)
    expected = by_equation(PERIODS, "tanh", *arguments(), clocks=CLOCKS)
    np.testing.assert_allclose(ys, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("features", "periods", "in_features", "time", "batch"),
    [(1, (2,), 1, 4, (2,)), (4, (1, 2, 4, 8), 2, 17, ()), (4, (3, 5), 2, 1, (1,))],
)
def test_odd_sizes_and_long_runs_give_the_equations(
    features, periods, in_features, time, batch, x64
):
    W, U, b, xs, _ = arguments(time, in_features, features, batch)
    cell = sj.ClockworkRNN(features, periods, param_dtype=jnp.float64)
    _, ys = sj.unroll(cell, ClockworkParams(*map(jnp.asarray, (W, U, b))), jnp.asarray(xs))
    rows = xs.reshape(time, -1, in_features)
    h, clocks = np.zeros((rows.shape[1], features)), np.zeros(rows.shape[1], int)
    expected = by_equation(periods, "tanh", W, U, b, rows, h, clocks=clocks)
    np.testing.assert_allclose(ys, expected.reshape(ys.shape), rtol=1e-12, atol=1e-12)


def test_modules_are_constant_between_their_ticks_and_all_see_the_first_input(key):
    cell = sj.ClockworkRNN(8)
    params = cell.init(key, 3)
    _, ys = sj.unroll(cell, params, jax.random.normal(key, (17, 3)))
    assert np.all(np.asarray(ys[0]) != 0)
    for t in range(1, 17):
        for module, T in enumerate((1, 2, 4, 8)):
            now, before = (np.asarray(ys[k, 2 * module : 2 * module + 2]) for k in (t, t - 1))
            assert np.all(now != before) if t % T == 0 else np.array_equal(now, before)


def test_what_stands_in_the_masked_entries_never_matters(x64):
    W, U, b, xs, h = arguments()
    (_, (expected, _)), gradients = run("tanh")(W, U, b, xs, h)
    (_, (ys, _)), others = run("tanh")(W, np.where(masked(), np.nan, U), b, xs, h)
    np.testing.assert_array_equal(ys, expected)
    for one, other in zip(gradients, others, strict=True):
        np.testing.assert_array_equal(one, other)


def test_with_one_module_of_period_one_it_is_an_elman_network(x64):
    W, U, b, xs, _ = map(jnp.asarray, arguments())
    cell = sj.ClockworkRNN(FEATURES, periods=(1,), param_dtype=jnp.float64)
    _, ys = sj.unroll(cell, ClockworkParams(W, U, b), xs)
    _, expected = sj.unroll(sj.Elman(FEATURES, param_dtype=jnp.float64), ElmanParams(W, U, b), xs)
    np.testing.assert_allclose(ys, expected, rtol=1e-13)


def test_the_clock_starts_at_zero_and_wraps_at_the_common_multiple(key):
    cell = sj.ClockworkRNN(4, periods=(2**15, 2**16 - 1))  # with 2^31 - 2^15 in common
    params = cell.init(key, 1)
    state = cell.initial_state(params, (2,))
    np.testing.assert_array_equal(state.h, np.zeros((2, 4)))
    np.testing.assert_array_equal(state.t, np.zeros(2))
    last = 2**15 * (2**16 - 1) - 1
    state = ClockworkState(state.h, jnp.array([last, last - 1], jnp.int32))
    after, _ = cell.step(params, state, jnp.ones((2, 1)))
    np.testing.assert_array_equal(after.t, [0, last])


def test_what_each_module_reads_is_drawn_as_one_matrix_and_the_rest_is_zero(key):
    cell = sj.ClockworkRNN(12, (1, 2, 4))
    U = np.asarray(cell.init(key, 5).recurrent_kernel)
    for module in range(3):
        columns = U[:, 4 * module : 4 * module + 4]
        np.testing.assert_array_equal(columns[: 4 * module], 0)
        np.testing.assert_allclose(columns.T @ columns, np.eye(4), atol=1e-5)
    drawn = sj.ClockworkRNN(12, (1, 2, 4), recurrent_init="uniform_fan_in").init(key, 5)
    for module, fan_in in enumerate((12, 8, 4)):
        largest = np.abs(drawn.recurrent_kernel[:, 4 * module : 4 * module + 4]).max()
        # All 16 or more entries lie below 3/5 of the bound with probability 3e-4.
        assert 0.6 < largest * np.sqrt(fan_in) <= 1
    np.testing.assert_array_equal(drawn.bias, np.zeros(12))


@pytest.mark.parametrize("rule", ["identity", SpectralRadius(0.9)])
def test_rules_for_square_matrices_fit_one_module(rule, key):
    U = sj.ClockworkRNN(4, (3,), recurrent_init=rule).init(key, 2).recurrent_kernel
    expected = 1 if rule == "identity" else 0.9
    np.testing.assert_allclose(np.abs(np.linalg.eigvals(U)).max(), expected, rtol=1e-4)
    message = "ClockworkRNN: recurrent_init: expected a rule for matrices of any shape"
    with pytest.raises(ValueError, match=message):
        sj.ClockworkRNN(4, (1, 3), recurrent_init=rule)


EXPECTED_PERIODS = "ClockworkRNN: periods: expected a tuple of increasing positive integers, got "
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"features": 0}, "ClockworkRNN: features: expected a positive integer, got 0"),
    (
        {"features": 6},
        "ClockworkRNN: features: expected a multiple of 4, the number of periods, got 6",
    ),
    ({"periods": ()}, EXPECTED_PERIODS + "()"),
    ({"periods": [1, 2]}, EXPECTED_PERIODS + "[1, 2]"),
    ({"periods": (0, 1)}, EXPECTED_PERIODS + "(0, 1)"),
    ({"periods": (2, 2)}, EXPECTED_PERIODS + "(2, 2)"),
    ({"periods": (4, 2)}, EXPECTED_PERIODS + "(4, 2)"),
    ({"periods": (1, 2.0)}, EXPECTED_PERIODS + "(1, 2.0)"),
    (
        {"periods": (2**16, 2**16 + 1)},
        "ClockworkRNN: periods: expected a least common multiple below 2^31, which the clock counts "
        "to, got (65536, 65537) with 4295032832",
    ),
]


@pytest.mark.parametrize(("fields", "message"), REFUSED)
def test_hyperparameters_that_make_no_cell_are_refused(fields, message, unchecked):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        sj.ClockworkRNN(**{"features": 8, **fields})


def test_inputs_of_another_size_are_refused(key):
    cell = sj.ClockworkRNN(4)
    params = cell.init(key, in_features=2)
    message = r"ClockworkRNN: x has shape \(4, 5\); expected \[\*batch, 2\]"
    with pytest.raises(ValueError, match=message):
        cell.step(params, cell.initial_state(params, (4,)), jnp.ones((4, 5)))
