"""The sLSTM against the paper's equations without its stabiliser, in float64 and in exact decimals."""

import functools
import re
from decimal import Decimal, localcontext
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seqjax as sj
from seqjax.cells.slstm import SLSTMParams, SLSTMState
from tests import oracles
from tests.cells import comparison
from tests.cells.comparison import BATCH, Comparison, unpacked, weigh

pytestmark = pytest.mark.usefixtures("quick_compilation")

FEATURES = 4


def by_gate(W, R, b):
    """The weights of each gate by itself, R with zeros between the heads."""
    heads, size, gates, _ = R.shape
    U = np.zeros((heads, size, gates, heads, size), R.dtype)
    for head in range(heads):
        U[head, :, :, head] = R[head]
    return unpacked("ifzo", W, U.reshape(heads * size, -1), b)


def row(forget_gate, W, R, b, x, h, c, n, m):
    """Equations 8 to 14 as they stand, for one sequence; m only scales c and n at the start.

    No stabiliser, and only operations that float64 and Decimal both have: in float64 this overflows
    where a gate is large, in decimals, whose exponents have six digits, it does not.
    """
    sigmoid = lambda a: 1 / (1 + np.exp(-a))
    tanh = lambda a: 2 * sigmoid(2 * a) - 1
    gates, hs = by_gate(W, R, b), []
    c, n = c * np.exp(m), n * np.exp(m)
    for x_t in x:
        i = np.exp(gates["i"](x_t, h))
        f = (np.exp if forget_gate == "exp" else sigmoid)(gates["f"](x_t, h))
        z = tanh(gates["z"](x_t, h))
        o = sigmoid(gates["o"](x_t, h))
        c = f * c + i * z
        n = f * n + i
        h = o * c / n
        hs.append(h)
    return np.array(hs), h, c, n


def in_the_middle(W, R, b, xs, h, c, n, m):
    """A state in the middle of a run: its normaliser is above 1."""
    return W, R, b, xs, h, c, 1 + np.abs(n), m


def at_first(W, R, b, xs, h, *memory):
    """An empty memory."""
    return W, R, b, xs, h, *(0 * leaf for leaf in memory)


def slstm(heads, forget_gate: Any = "sigmoid", prepare=in_the_middle):
    return Comparison(
        sj.SLSTM(FEATURES, heads, forget_gate=forget_gate),
        functools.partial(row, forget_gate),
        prepare=prepare,
        # c and n without their common factor.
        read=lambda s: (s.h, s.c * jnp.exp(s.m), s.n * jnp.exp(s.m)),
    )


VARIANTS = pytest.mark.parametrize(
    ("heads", "forget_gate"), [(1, "sigmoid"), (2, "exp"), (4, "sigmoid")]
)


@VARIANTS
def test_the_cell_and_all_its_gradients_are_those_of_the_equations(heads, forget_gate, x64):
    # Some gradients exceed 100, so that the quotients lose a digit.
    comparison.assert_follows_the_equations(slstm(heads, forget_gate), atol=1e-8)


@VARIANTS
def test_from_an_empty_memory_the_gradients_are_those_of_the_equations(heads, forget_gate, x64):
    """At n = 0 the cell ignores c and m, as an empty memory has none: there their gradient is zero.

    By n itself there is no derivative to compare with: below 0 the memory is empty, so the left
    derivative is zero, and above 0 it holds c / n, so the right one is not. What is returned is the left
    one. All else is differentiated as usual.
    """
    case = slstm(heads, forget_gate, at_first)
    results, gradients = case.outcome
    *others, c, n, m = case.arguments()
    comparison.assert_close(results, case.by_equation(*others, c, n, m), rtol=1e-12, atol=1e-12)
    quotients = oracles.finite_differences(
        lambda *others: weigh(case.by_equation(*others, c, n, m)), *others
    )
    comparison.assert_close(gradients[:5], quotients, rtol=1e-8, atol=1e-8)
    np.testing.assert_array_equal(gradients[5:], np.zeros((3, BATCH, FEATURES)))


def test_in_single_precision_the_cell_keeps_to_the_equations():
    comparison.assert_values_follow_the_equations(slstm(2))


@pytest.mark.parametrize(
    ("features", "heads", "in_features", "batch"),
    [(1, 1, 1, (2,)), (6, 3, 1, (1,)), (3, 1, 2, ()), (5, 5, 3, (2,))],
)
def test_odd_sizes_give_the_equations(features, heads, in_features, batch, x64):
    case = slstm(1, prepare=at_first).at(features, in_features, 3, batch, heads=heads)
    comparison.assert_values_follow_the_equations(case, jnp.float64)


def test_the_first_step_gives_the_output_gate_times_the_candidate_whatever_c_and_m_are(x64):
    W, R, b, xs, h, c, _, m = slstm(2).arguments()
    cell = sj.SLSTM(FEATURES, heads=2, param_dtype=jnp.float64)
    state = SLSTMState(*map(jnp.asarray, (h, c, np.zeros_like(c), m)))
    after, y = cell.step(SLSTMParams(*map(jnp.asarray, (W, R, b))), state, jnp.asarray(xs[0]))
    gates = by_gate(W, R, b)
    for row in range(BATCH):
        z, o = (gates[name](xs[0, row], h[row]) for name in "zo")
        np.testing.assert_allclose(y[row], oracles.sigmoid(o) * np.tanh(z), rtol=1e-13)
        np.testing.assert_allclose(after.m[row], gates["i"](xs[0, row], h[row]), rtol=1e-13)
    np.testing.assert_array_equal(after.n, np.ones((BATCH, FEATURES)))


EXTREMES = np.array([-1000.0, -999.5, -30.0, 0.0, 1.5, 30.0, 999.25, 1000.0])


def extreme():
    """Weights of the identity, so that xs are the pre-activations, and a little recurrence."""
    random = np.random.default_rng(1)
    xs = random.choice(EXTREMES, (6, 4 * FEATURES))
    xs[:, ::FEATURES] = 0  # in one unit log f + m and log i tie at every step, where f is exp
    R = 0.3 * random.standard_normal((2, 2, 4, 2))
    return np.eye(4 * FEATURES), R, np.zeros(4 * FEATURES), xs


def extreme_run(forget_gate, dtype):
    W, R, b, xs = (jnp.asarray(a, dtype) for a in extreme())
    cell = sj.SLSTM(FEATURES, heads=2, forget_gate=forget_gate, param_dtype=dtype)
    weights = jnp.asarray(np.cos(np.arange(xs.shape[0] * FEATURES)), dtype).reshape(-1, FEATURES)

    def loss(R, xs):
        _, ys = sj.unroll(cell, SLSTMParams(W, R, b), xs)
        return (ys * weights).sum(), ys

    (_, ys), gradients = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))(R, xs)
    return ys, gradients


def exact(forget_gate):
    """Values and gradients of `extreme_run` in a hundred digits."""
    decimals = np.vectorize(Decimal, otypes=[object])
    W, R, b, xs = map(decimals, extreme())
    weights = decimals(np.cos(np.arange(xs.shape[0] * FEATURES)).reshape(-1, FEATURES))
    nothing = decimals(np.zeros(FEATURES))

    def values(R, xs):
        return row(forget_gate, W, R, b, xs, nothing, nothing, nothing, nothing)[0]

    def quotients(loss, argument, step=Decimal(10) ** -30):
        gradient = np.zeros(argument.shape)
        for index in np.ndindex(argument.shape):
            moved = argument.copy()
            moved[index] += step
            gradient[index] = float((loss(moved) - loss(argument)) / step)
        return gradient

    with localcontext() as context:
        context.prec = 100
        loss = lambda R, xs: (values(R, xs) * weights).sum()
        by_R = quotients(lambda R: loss(R, xs), R)
        by_xs = quotients(lambda xs: loss(R, xs), xs)
        return values(R, xs).astype(float), (by_R, by_xs)


@pytest.mark.parametrize("forget_gate", ["sigmoid", "exp"])
def test_pre_activations_of_a_thousand_give_the_exact_values_and_gradients(forget_gate, x64):
    ys, gradients = extreme_run(forget_gate, jnp.float64)
    expected, quotients = exact(forget_gate)
    # The sum log f + m, of order 1e3 to 1e4, is rounded to 1e-12 at each of six steps.
    np.testing.assert_allclose(ys, expected, rtol=1e-10, atol=1e-11)
    assert np.abs(quotients[0]).max() > 0.01  # not all is saturated
    assert np.abs(quotients[1]).max() > 0.01
    for ours, theirs in zip(gradients, quotients, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-11)
    # In float32 the same sum is rounded to 5e-4.
    narrow, gradients = extreme_run(forget_gate, jnp.float32)
    np.testing.assert_allclose(narrow, expected, atol=5e-3)
    for ours, theirs in zip(gradients, quotients, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-2)


@pytest.mark.parametrize("forget_gate", ["sigmoid", "exp"])
def test_after_the_first_step_the_normaliser_never_falls_below_one(forget_gate):
    W, R, b, xs = (jnp.asarray(a, jnp.float32) for a in extreme())
    cell = sj.SLSTM(FEATURES, heads=2, forget_gate=forget_gate)
    params = SLSTMParams(W, R, b)
    state = cell.initial_state(params)
    largest = np.full(FEATURES, -np.inf)
    for x in xs:
        log_i = np.asarray(cell.project(params, x).reshape(4, FEATURES)[0])
        state, _ = cell.step(params, state, x)
        assert np.all(np.asarray(state.n) >= 1)
        assert np.all(np.abs(state.c) <= state.n)
        largest = np.maximum(largest, log_i + 2)  # what R adds is below 2
        assert forget_gate == "exp" or np.all(np.asarray(state.m) <= largest)


def test_scaling_all_input_gates_alike_changes_nothing(x64):
    case = slstm(2, prepare=at_first)
    W, R, b, xs, *state = map(jnp.asarray, case.arguments())
    shifted = b + jnp.repeat(jnp.array([7.0, 0.0, 0.0, 0.0]), FEATURES)
    (one, *_), (other, *_) = (case.run(W, R, bias, xs, *state) for bias in (b, shifted))
    np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-13)


def test_an_exponential_forget_gate_starts_at_one(key):
    i, f, z, o = jnp.split(sj.SLSTM(6, forget_gate="exp").init(key, 2).bias, 4)
    np.testing.assert_array_equal([i, f, z, o], np.zeros((4, 6)))


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"heads": 4}, "SLSTM: heads: expected a divisor of the 6 features, got 4"),
    ({"heads": 0}, "SLSTM: heads: expected a positive integer, got 0"),
    ({"forget_gate": "relu"}, "SLSTM: forget_gate: expected one of 'sigmoid', 'exp', got 'relu'"),
]


@pytest.mark.parametrize(("fields", "message"), REFUSED)
def test_hyperparameters_that_make_no_cell_are_refused(fields, message, unchecked):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        sj.SLSTM(**{"features": 6, **fields})
