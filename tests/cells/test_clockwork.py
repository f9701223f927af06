"""The Clockwork RNN against the paper's equations module by module, and what its clock promises."""

import functools
import math
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seqjax as sj
from seqjax.cells.clockwork import ClockworkState
from seqjax.cells.elman import ElmanParams, ElmanState
from seqjax.initializers import SpectralRadius
from tests.cells import comparison
from tests.cells.comparison import Comparison
from tests.oracles import ACTIVATIONS

pytestmark = pytest.mark.usefixtures("quick_compilation")

PERIODS = (1, 2, 3)  # all modules tick together every 6 steps
FEATURES = 6
CLOCKS = np.array([1.0, 5.0])  # the rows stand at different steps


def row(periods, activation, W, U, b, x, h, clock):
    """One sequence, module by module; the clock only ever counts up, until it is told.

    y_i^(t) = φ(Σ_{j: T_j ≥ T_i} W_H,ij y_j^(t-1) + W_I,i x^(t) + b_i) where t mod T_i = 0.
    """
    phi, size = ACTIVATIONS[activation].value, len(b) // len(periods)
    module = lambda i: slice(i * size, (i + 1) * size)
    ys, clock = [], round(float(clock))
    for step, x_t in enumerate(x):
        after = h.copy()
        for i, T_i in enumerate(periods):
            if (clock + step) % T_i != 0:
                continue
            a = x_t @ W[:, module(i)] + b[module(i)]
            for j, T_j in enumerate(periods):
                if T_j >= T_i:
                    a = a + h[module(j)] @ U[module(j), module(i)]
            after[module(i)] = phi(a)
        h = after
        ys.append(h)
    return np.array(ys), h, np.array((clock + len(x)) % math.lcm(*periods), float)


def clockwork(
    features=FEATURES, periods=PERIODS, activation: Any = "tanh", clocks=CLOCKS, **sizes: Any
):
    """U is full, so that the test sees whether it is masked; the clock is told as a float."""
    return Comparison(
        sj.ClockworkRNN(features, periods, activation=activation),
        functools.partial(row, periods, activation),
        prepare=lambda *drawn: (*drawn[:-1], clocks),
        state=lambda h, t: ClockworkState(h, t.astype(jnp.int32)),
        read=lambda state: (state.h, state.t.astype(state.h.dtype)),
        **{"time": 8, **sizes},
    )


def masked():
    """Where a unit would read one of a faster module."""
    module = np.arange(FEATURES) // (FEATURES // len(PERIODS))
    return module[:, None] < module[None]


@pytest.mark.parametrize("activation", ["tanh", "sigmoid"])
def test_the_cell_and_all_its_gradients_are_those_of_the_equations(activation, x64):
    case = clockwork(activation=activation)
    comparison.assert_follows_the_equations(case)
    by_U = np.asarray(case.outcome[1][1])
    assert np.all(by_U[masked()] == 0)
    assert np.all(by_U[~masked()] != 0)


def test_in_single_precision_the_cell_keeps_to_the_equations():
    comparison.assert_values_follow_the_equations(clockwork())


@pytest.mark.parametrize(
    ("features", "periods", "in_features", "time", "batch"),
    [(1, (2,), 1, 4, (2,)), (4, (1, 2, 4, 8), 2, 17, ()), (4, (3, 5), 2, 1, (1,))],
)
def test_odd_sizes_and_long_runs_give_the_equations(
    features, periods, in_features, time, batch, x64
):
    sizes = {"in_features": in_features, "time": time, "batch": batch}
    case = clockwork(features, periods, clocks=np.zeros(batch), **sizes)
    comparison.assert_values_follow_the_equations(case, jnp.float64)


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
    case = clockwork()
    results, gradients = case.outcome
    W, U, *rest = case.arguments()
    came, others = comparison.differentiate(case.run, W, np.where(masked(), np.nan, U), *rest)
    for one, other in zip([*results, *gradients], [*came, *others], strict=True):
        np.testing.assert_array_equal(one, other)


def test_with_one_module_of_period_one_it_is_an_elman_network(x64):
    case = clockwork(periods=(1,), clocks=np.zeros(2))
    W, U, b, xs, h, t = map(jnp.asarray, case.arguments())
    ys, *_ = case.run(W, U, b, xs, h, t)
    elman = sj.Elman(FEATURES)
    expected, _ = comparison.unrolled(elman, ElmanParams(W, U, b), xs, ElmanState(h))
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
