"""The gradient by lag: the terms are those of the double sum, and their sum is the gradient."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import seqjax as sj
from seqjax.cells.elman import ElmanParams, ElmanState
from seqjax.diagnostics import flow as by_lag_of
from tests import oracles
from tests.contract.cases import CAUSAL, covering
from tests.contract.registry import IN_FEATURES, REGISTRY
from tests.oracles import Gate

pytestmark = pytest.mark.usefixtures("quick_compilation")


# Sums of a few hundred float64 terms in two orders.
ROUNDING: Any = {"rtol": 1e-10, "atol": 1e-12}


def weighted(ys):
    """A loss that is no sum over steps, and sees each entry of y in its own way."""
    weights = jnp.cos(jnp.arange(ys.size, dtype=ys.dtype)).reshape(ys.shape)
    return jnp.sum(jnp.sin(ys) * weights) + jnp.sum(ys) ** 2


def numbers(*shape, seed=1):
    return np.random.RandomState(seed).standard_normal(shape)


@functools.partial(jax.jit, static_argnames=("cell", "loss"))
def gradient(cell, params, xs, loss, state=None, key=None):
    return jax.grad(lambda params: loss(sj.unroll(cell, params, xs, state, key=key)[1]))(params)


def assert_trees_close(ours, theirs, **tolerance):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **tolerance), ours, theirs)


def sum_over_lags(flow):
    return jax.tree.map(lambda leaf: jnp.sum(leaf, axis=0), flow.by_lag)


@pytest.mark.parametrize("name", covering(CAUSAL))
def test_the_terms_of_all_lags_sum_to_the_gradient_for_every_cell(name, x64, key):
    cell = REGISTRY[name].build(jnp.float64, None)
    params = cell.init(jax.random.key(1), IN_FEATURES)
    xs = jnp.asarray(numbers(4, 2, IN_FEATURES))
    flow = by_lag_of(cell, params, xs, weighted, key=key)
    expected = gradient(cell, params, xs, weighted, key=key)
    largest = max(float(jnp.max(jnp.abs(leaf))) for leaf in jax.tree.leaves(expected))
    assert_trees_close(sum_over_lags(flow), expected, rtol=1e-10, atol=1e-13 * largest)
    assert flow.exact
    assert flow.total_rest[-1] < 1e-14
    np.testing.assert_allclose(jnp.sum(flow.total_shares), 1, rtol=1e-12)


def elman_problem(time):
    """A tanh network without batch, its inputs, its start, and ∂L_t/∂s_t of a loss."""
    weights = Gate(0.6 * numbers(2, 3), 0.6 * numbers(3, 3, seed=2), 0.6 * numbers(3, seed=3))
    return weights, numbers(time, 2, seed=4), numbers(3, seed=5), numbers(time, 3, seed=6)


def flow_of_elman(time, **options):
    weights, x, s_0, loss_gradients = elman_problem(time)
    cell = sj.Elman(3, param_dtype=jnp.float64)
    params = ElmanParams(*(jnp.asarray(w) for w in weights))
    loss = lambda ys: jnp.sum(ys * loss_gradients)
    return by_lag_of(cell, params, jnp.asarray(x), loss, ElmanState(jnp.asarray(s_0)), **options)


@pytest.mark.parametrize("time", [1, 5])
def test_each_lag_is_the_part_of_the_double_sum_with_that_lag(time, x64):
    flow = flow_of_elman(time)
    weights, x, s_0, loss_gradients = elman_problem(time)
    for lag in range(time):
        k_of_lag = lambda t, lag=lag: [t - lag] if t > lag else []
        part = oracles.double_sum(weights, "tanh", x, s_0, loss_gradients, starts=k_of_lag)
        ours = jax.tree.map(lambda leaf, lag=lag: leaf[lag], flow.by_lag)
        assert_trees_close(tuple(ours), tuple(part), rtol=1e-11, atol=1e-13)
    # A state that came in as data owes nothing to the weights.
    assert_trees_close(tuple(leaf[time] for leaf in flow.by_lag), (0, 0, 0), atol=0)


def test_the_norms_of_states_are_those_of_the_products_of_jacobians(x64):
    time = 5
    flow = flow_of_elman(time)
    weights, x, s_0, loss_gradients = elman_problem(time)
    s = [s_0, *oracles.elman(weights, "tanh", x, s_0)]
    a = [weights(x[t], s[t]) for t in range(time)]  # a[t] is that of step t, which starts from s[t]
    expected = np.zeros((time, time))
    for t in range(time):
        row = loss_gradients[t]
        for k in range(t, -1, -1):
            row = row @ oracles.jacobian("tanh", a[k], weights.U)
            expected[t, k] = np.linalg.norm(row)
    np.testing.assert_allclose(flow.state_norms, expected, **ROUNDING)
    for t in range(time):
        by_lag = [0, *expected[t, t::-1], *[0] * (time - t - 1)]
        np.testing.assert_allclose(flow.lag_norms[t], by_lag, **ROUNDING)
    mean_of_lag_2 = np.mean([expected[t, t - 1] for t in range(1, time)])
    np.testing.assert_allclose(flow.mean_norms()[2], mean_of_lag_2, rtol=1e-12)


def jacobian_of(function, at):
    return np.asarray(jax.jacfwd(function)(at))


@pytest.mark.parametrize("time", [1, 4])
def test_each_lag_of_an_lstm_with_a_learned_state_is_a_product_of_jacobians(time, x64):
    """Step by step: ravelled params θ, ravelled state s, ∂⁺ by holding the other fixed."""
    cell = sj.LearnedState(sj.LSTM(2, param_dtype=jnp.float64))
    params = cell.init(jax.random.key(1), 2)
    params = jax.tree.map(lambda p: p + 0.3 * jnp.cos(jnp.arange(p.size)).reshape(p.shape), params)
    x, g = numbers(time, 2), numbers(time, 2, seed=2)
    θ, unravel = ravel_pytree(params)
    s_0, unravel_state = ravel_pytree(cell.initial_state(params))

    def step(θ, s, x_t):
        after, y = cell.step(unravel(θ), unravel_state(s), jnp.asarray(x_t))
        return ravel_pytree(after)[0], y

    jacobian = jax.jit(jax.jacfwd(step, argnums=(0, 1)))
    s, from_θ, from_s, y_from_θ, y_from_s = s_0, [], [], [], []
    for t in range(time):
        (s_θ, s_s), (y_θ, y_s) = jacobian(θ, s, x[t])
        from_θ.append(np.asarray(s_θ))
        from_s.append(np.asarray(s_s))
        y_from_θ.append(np.asarray(y_θ))
        y_from_s.append(np.asarray(y_s))
        s, _ = step(θ, s, x[t])
    start_from_θ = jacobian_of(lambda θ: ravel_pytree(cell.initial_state(unravel(θ)))[0], θ)
    expected = np.zeros((time + 1, θ.size))
    for t in range(time):
        expected[0] += g[t] @ y_from_θ[t]
        row = g[t] @ y_from_s[t]
        for k in range(t - 1, -1, -1):
            expected[t - k] += row @ from_θ[k]
            row = row @ from_s[k]
        expected[t + 1] += row @ start_from_θ

    flow = by_lag_of(cell, params, jnp.asarray(x), lambda ys: jnp.sum(ys * g))
    for lag in range(time + 1):
        term = jax.tree.map(lambda leaf, lag=lag: leaf[lag], flow.by_lag)
        ours, _ = ravel_pytree(term)
        np.testing.assert_allclose(ours, expected[lag], **ROUNDING)


def problem(batch=(), time=6, dtype: Any = jnp.float64):
    cell = sj.Elman(3, param_dtype=dtype)
    return cell, cell.init(jax.random.key(1), 2), jnp.asarray(numbers(time, *batch, 2), dtype)


def test_norms_shares_and_rest_are_those_of_the_terms(x64):
    flow = by_lag_of(*problem((2,)), weighted)
    terms = np.concatenate([np.reshape(p, (7, -1)) for p in jax.tree.leaves(flow.by_lag)], axis=1)
    total = terms.sum(axis=0)
    size = np.linalg.norm(total)
    np.testing.assert_allclose(flow.total_shares, terms @ total / size**2, **ROUNDING)
    tails = [np.linalg.norm(terms[lag + 1 :].sum(axis=0)) / size for lag in range(7)]
    np.testing.assert_allclose(flow.total_rest, tails, **ROUNDING)
    U = np.asarray(flow.by_lag.recurrent_kernel)
    np.testing.assert_allclose(
        flow.norms.recurrent_kernel, np.linalg.norm(U, axis=(1, 2)), **ROUNDING
    )
    np.testing.assert_allclose(np.sum(flow.shares.recurrent_kernel), 1, rtol=1e-12)
    left = np.linalg.norm(U[3:].sum(axis=0)) / np.linalg.norm(U.sum(axis=0))
    np.testing.assert_allclose(flow.rest.recurrent_kernel[2], left, **ROUNDING)


def test_axes_of_batch_change_nothing(x64):
    cell, params, xs = problem((2, 3))

    def flow_of(xs):
        start = cell.initial_state(params, xs.shape[1:-1])
        return by_lag_of(cell, params, xs, lambda ys: jnp.sum(jnp.sin(ys)), start)

    apart, as_one = flow_of(xs), flow_of(xs.reshape(6, 6, 2))
    assert_trees_close(apart.by_lag, as_one.by_lag, rtol=1e-13)
    np.testing.assert_allclose(apart.state_norms, as_one.state_norms, rtol=1e-13)
    assert_trees_close(flow_of(xs[:, :1, 0]).by_lag, flow_of(xs[:, 0, 0]).by_lag, rtol=1e-13)


def test_a_sample_of_steps_and_rows_is_exact_for_the_loss_of_these(x64):
    cell, params, xs = problem((4,))
    flow = by_lag_of(cell, params, xs, lambda ys: jnp.sum(jnp.sin(ys)), times=2, rows=3)
    assert not flow.exact
    assert list(flow.times) == [2, 5]
    assert list(flow.rows) == [0, 1, 3]

    def loss_of(ys, steps):
        return jnp.sum(jnp.sin(ys[jnp.array(steps)][:, jnp.array([0, 1, 3])]))

    expected = gradient(cell, params, xs, lambda ys: loss_of(ys, (2, 5)))
    assert_trees_close(flow.gradient, expected, **ROUNDING)
    assert_trees_close(sum_over_lags(flow), expected, **ROUNDING)
    # Of a loss that sees these rows alone no other is followed.
    every_step = by_lag_of(cell, params, xs, lambda ys: loss_of(ys, range(6)))
    assert every_step.exact
    assert list(every_step.rows) == [0, 1, 3]
    np.testing.assert_allclose(flow.state_norms, every_step.state_norms[np.array([2, 5])])


def test_a_loss_at_the_last_step_is_exact_from_that_step_alone(x64):
    cell, params, xs = problem((2,))
    loss = lambda ys: jnp.sum(jnp.sin(ys[-1]))
    flow = by_lag_of(cell, params, xs, loss, times=1)
    assert flow.exact
    assert list(flow.times) == [5]
    assert_trees_close(sum_over_lags(flow), gradient(cell, params, xs, loss), **ROUNDING)


def test_long_sequences_are_sampled_and_large_gradients_not_kept(monkeypatch, x64):
    module = __import__("sys").modules["seqjax.diagnostics.by_lag"]
    monkeypatch.setattr(module, "FULL_RESOLUTION", 17)
    monkeypatch.setattr(module, "SAMPLED_TIMES", 3)
    monkeypatch.setattr(module, "MOST_NUMBERS", 10)
    cell, params, xs = problem((2,))  # 6 steps of 3 entries
    flow = by_lag_of(cell, params, xs, weighted)
    assert list(flow.times) == [1, 3, 5]
    assert not flow.exact
    assert flow.by_lag is None
    assert by_lag_of(cell, params, xs[:5], weighted).exact  # 15 numbers


def test_a_window_that_starts_from_a_state_and_one_without_steps(x64):
    cell, params, xs = problem((2,), time=0)
    empty = by_lag_of(cell, params, xs, weighted)
    assert list(empty.lags) == [0]
    assert_trees_close(empty.by_lag, jax.tree.map(lambda p: 0 * p[None], params), atol=0)
    assert empty.reach() == 0
    silent = by_lag_of(*problem((2,)), lambda ys: jnp.sum(0 * ys))
    assert silent.times.size == 0
    assert np.all(silent.total_rest == 0)


def test_float32_sums_to_the_gradient_to_its_own_rounding():
    cell, params, xs = problem((2,), dtype=jnp.float32)
    flow = by_lag_of(cell, params, xs, weighted)
    # Some ten terms of size one, each rounded at 6e-8.
    assert_trees_close(
        sum_over_lags(flow), gradient(cell, params, xs, weighted), rtol=1e-5, atol=1e-4
    )
    assert flow.total_rest[-1] < 1e-6


def test_a_gradient_that_is_too_large_to_square_has_its_norm():
    cell = sj.IRNN(2, scale=30.0)
    params = cell.init(jax.random.key(0), 1)
    params = params._replace(input_kernel=jnp.ones((1, 2)))
    flow = by_lag_of(cell, params, jnp.zeros((16, 1)) + 1e-30, lambda ys: jnp.sum(ys[-1]))
    # ∂y_T/∂s_0 = 30^16 in each of two units; its square is 3e47, beyond float32.
    np.testing.assert_allclose(flow.state_norms[0, 0], 2**0.5 * 30.0**16, rtol=1e-5)
    np.testing.assert_allclose(jnp.sum(flow.total_shares), 1, rtol=1e-5)


def test_reach_counts_from_the_last_lag_that_matters(x64):
    flow = flow_of_elman(5)
    rest = jnp.asarray([0.5, 0.001, 0.2, 0.009, 0.0, 0.0])
    flow = flow._replace(total_rest=rest)
    assert flow.reach() == 3
    assert flow.reach(0.3) == 1
    assert flow.reach(0.6) == 0
    assert flow._replace(total_rest=rest + 1).reach() == 5


def test_the_table_says_what_it_shows(x64):
    text = str(flow_of_elman(5))
    rows = [line.split() for line in text.splitlines()]
    assert [row[0] for row in rows[1:-1]] == ["0", "1", "2", "4", "5"]
    assert rows[-2][2] == "100.0%"
    assert "exact: every step" in text
    assert "a sample: the loss at steps 1, 4, rows 0 of the batch" in str(flow_of_elman(5, times=2))
