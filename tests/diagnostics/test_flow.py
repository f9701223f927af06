"""The gradient by lag: the terms are those of the double sum, and their sum is the gradient."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import seqjax as sj
from seqjax.diagnostics import flow as by_lag_of
from tests.contract.cases import CAUSAL, covering
from tests.contract.registry import IN_FEATURES, REGISTRY

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


@pytest.mark.parametrize("time", [1, 4])
def test_each_lag_of_an_lstm_with_a_learned_state_is_a_product_of_jacobians(time, x64):
    """Step by step: ravelled params θ, ravelled state s, ∂⁺ by holding the other fixed."""
    cell = sj.LearnedState(sj.LSTM(2, param_dtype=jnp.float64))
    params = cell.init(jax.random.key(1), 2)
    params = jax.tree.map(lambda p: p + 0.3 * jnp.cos(jnp.arange(p.size)).reshape(p.shape), params)
    x, g = jnp.asarray(numbers(time, 2)), numbers(time, 2, seed=2)
    θ, unravel = ravel_pytree(params)
    s, unravel_state = ravel_pytree(cell.initial_state(params))

    @jax.jit
    def step(θ, s, x_t):
        after, y = cell.step(unravel(θ), unravel_state(s), x_t)
        return ravel_pytree(after)[0], y

    jacobian = jax.jit(jax.jacfwd(step, argnums=(0, 1)))
    start_from_θ = jax.jacfwd(lambda θ: ravel_pytree(cell.initial_state(unravel(θ)))[0])(θ)
    expected, norms = np.zeros((time + 1, θ.size)), np.zeros((time, time))
    from_θ, from_s = [], []
    for t in range(time):
        (s_θ, s_s), (y_θ, y_s) = jax.tree.map(np.asarray, jacobian(θ, s, x[t]))
        expected[0] += g[t] @ y_θ
        row = g[t] @ y_s
        norms[t, t] = np.linalg.norm(row)
        for k in range(t - 1, -1, -1):
            expected[t - k] += row @ from_θ[k]
            row = row @ from_s[k]
            norms[t, k] = np.linalg.norm(row)
        expected[t + 1] += row @ start_from_θ
        from_θ.append(s_θ)
        from_s.append(s_s)
        s, _ = step(θ, s, x[t])

    loss = lambda ys: jnp.sum(ys * g)
    flow = by_lag_of(cell, params, x, loss)
    ours = np.concatenate([leaf.reshape(time + 1, -1) for leaf in jax.tree.leaves(flow.by_lag)], 1)
    np.testing.assert_allclose(ours, expected, **ROUNDING)
    np.testing.assert_allclose(flow.state_norms, norms, **ROUNDING)
    for t in range(time):
        by_lag = np.concatenate([[0], norms[t, t::-1], np.zeros(time - t - 1)])
        np.testing.assert_allclose(flow.lag_norms[t], by_lag, **ROUNDING)
    means = [0.0, *(float(np.diagonal(norms, -n).mean()) for n in range(time))]
    np.testing.assert_allclose(flow.mean_norms(), means, rtol=1e-12)
    # A state that comes in as data owes nothing to the params.
    given = by_lag_of(cell, params, x, loss, cell.initial_state(params))
    assert_trees_close(given.by_lag.cell, flow.by_lag.cell, **ROUNDING)
    assert not np.any(ravel_pytree(given.by_lag._replace(cell=()))[0])


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
    # A loss at the last step is exact from that step alone.
    loss = lambda ys: jnp.sum(jnp.sin(ys[-1]))
    last = by_lag_of(cell, params, xs, loss, times=1)
    assert last.exact
    assert list(last.times) == [5]
    assert_trees_close(sum_over_lags(last), gradient(cell, params, xs, loss), **ROUNDING)


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


def test_reach_counts_from_the_last_lag_that_matters_and_the_table_says_what_it_shows(x64):
    flow = by_lag_of(*problem((2,), time=5), weighted)
    rows = [line.split() for line in str(flow).splitlines()]
    assert [row[0] for row in rows[1:-1]] == ["0", "1", "2", "4", "5"]
    assert rows[-2][2] == "100.0%"
    assert "exact: every step" in str(flow)
    sample = flow._replace(exact=False, times=np.array([1, 4]), rows=np.array([0]))
    assert sample.seen == "a sample: the loss at steps 1, 4, rows 0 of the batch"
    rest = jnp.asarray([0.5, 0.001, 0.2, 0.009, 0.0, 0.0])
    flow = flow._replace(total_rest=rest)
    assert [flow.reach(), flow.reach(0.3), flow.reach(0.6)] == [3, 1, 0]
    assert flow._replace(total_rest=rest + 1).reach() == 5
