"""How far truncated gradients reach, and which losses they count: against windows unrolled by hand."""

import functools
import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import seqjax as sj
from seqjax.gradients import bptt
from seqjax.initializers import SpectralRadius
from seqjax.losses import mean_over

pytestmark = pytest.mark.usefixtures("quick_compilation", "x64", "standard_promotion")

TIME, RATE = 11, 1.0
CELLS = {
    "elman": sj.Elman(4, param_dtype=jnp.float64),
    "lstm": sj.LSTM(3, param_dtype=jnp.float64),
    "lru": sj.LRU(3, param_dtype=jnp.float64),  # its state is complex
}

# A multiple, no multiple, all, a step at a time, k2 below k1; no k1 but 1 divides the time.
LENGTHS = [(3, 9), (3, 7), (5, 11), (1, 4), (4, 2)]


def problem(cell, time=TIME, lanes=2, seed=0):
    keys = jax.random.split(jax.random.key(seed), 3)
    params = cell.init(keys[0], 2)
    batch = (
        jax.random.normal(keys[1], (time, lanes, 2), float),
        jax.random.normal(keys[2], (time, lanes, cell.out_features), float),
    )

    def loss(params, carry, batch, key):
        xs, targets = batch
        state, ys = sj.unroll(cell, params, xs, carry)
        error = mean_over((ys - targets) ** 2)
        return error.value, (state, {"error": error})

    return loss, params, cell.initial_state(params, (lanes,)), batch


def part(batch, begin, end):
    return jax.tree.map(lambda a: a[begin:end], batch)


def unrolled(loss, params, starts, batch, k1, window, counted):
    """The mean loss of the steps `counted`, as a function of params in the steps `window` alone.

    A block that is run again starts from the carry that was there before it (starts[n] before block
    n): that stands in the place of the end of the block before, and hands gradients on to it.
    """
    (first, end), (counted_from, _) = window, counted
    t = first - first % k1
    state = starts[t // k1]
    if t < first:
        fixed = jax.lax.stop_gradient(params)
        _, (state, _) = loss(fixed, state, part(batch, t, first), None)
        state = jax.lax.stop_gradient(state)
    total, t = 0.0, first
    while t < end:
        stop = min(end, t - t % k1 + k1)
        value, (after, _) = loss(params, state, part(batch, t, stop), None)
        if t >= counted_from:
            total += (stop - t) * value
        if stop < end:
            hand_on = lambda there, a: there + (a - jax.lax.stop_gradient(a))
            state = jax.tree.map(hand_on, starts[stop // k1], after)
        t = stop
    return total / (end - counted_from)


def by_hand(loss, params, carry, batch, k1, k2, losses="new", rate=0.0):
    """Window after window: (gradient, loss, steps that it counts) of each; the params; the carry.

    With a rate the params go downhill after each window.
    """
    time, starts, found = len(batch[0]), [carry], []
    for begin in range(0, time, k1):
        end = min(begin + k1, time)
        first = max(0, end - k2) if k2 > k1 else max(begin, end - k2)
        counted = (max(first, begin) if losses == "new" else first, end)
        objective = functools.partial(
            unrolled, loss, starts=starts, batch=batch, k1=k1, window=(first, end), counted=counted
        )
        value, grads = jax.value_and_grad(objective)(params)
        found.append((grads, value, end - counted[0]))
        _, (after, _) = loss(params, starts[-1], part(batch, begin, end), None)
        starts.append(after)
        params = jax.tree.map(lambda p, g: p - rate * g, params, grads)
    return found, params, starts[-1]


@functools.cache
def exact(name):
    loss, *arguments = problem(CELLS[name])
    return jax.jit(bptt(loss))(*arguments, None)


def distance(a, b):
    norm = lambda tree: np.sqrt(sum(float(jnp.sum(leaf**2)) for leaf in jax.tree.leaves(tree)))
    return norm(jax.tree.map(jnp.subtract, a, b)) / norm(b)


CASES = [("elman", *lengths, "new") for lengths in LENGTHS]
CASES += [("elman", *lengths, "window") for lengths in ((3, 9), (3, 7))]
CASES += [("lstm", 3, 7, "new"), ("lru", 4, 10, "window")]


@pytest.mark.parametrize(("name", "k1", "k2", "losses"), CASES)
def test_params_that_change_are_those_of_windows_unrolled_by_hand(name, k1, k2, losses):
    loss, params, carry, batch = problem(CELLS[name])
    optimizer = optax.sgd(RATE)
    update = jax.jit(sj.tbptt(k1, k2, losses=losses)(loss, optimizer))
    result = update(params, optimizer.init(params), carry, batch, None)
    windows, expected, _ = by_hand(loss, params, carry, batch, k1, k2, losses, RATE)
    chex.assert_trees_all_close(result.params, expected, rtol=1e-11, atol=1e-13)
    values = [float(value) for _, value, _ in windows]
    np.testing.assert_allclose(result.metrics["loss"].value, values, rtol=1e-11)
    assert distance(expected, params) > 0.01  # the params did change


@pytest.mark.parametrize(("name", "k1", "k2", "losses"), CASES)
def test_the_accumulated_gradient_is_the_mean_over_windows_unrolled_by_hand(name, k1, k2, losses):
    loss, params, carry, batch = problem(CELLS[name])
    gradient = jax.jit(sj.accumulated_tbptt(k1, k2, losses=losses).gradient(loss))
    found = gradient(params, carry, batch, None)
    windows, _, after = by_hand(loss, params, carry, batch, k1, k2, losses)
    counted = sum(steps for _, _, steps in windows)
    weighed = [
        jax.tree.map(lambda g, n=steps: g * n / counted, grads) for grads, _, steps in windows
    ]
    expected = functools.reduce(lambda a, b: jax.tree.map(jnp.add, a, b), weighed)
    chex.assert_trees_all_close(found.grads, expected, rtol=1e-11, atol=1e-13)
    chex.assert_trees_all_close(found.carry, after, rtol=1e-12)
    value = sum(float(value) * steps for _, value, steps in windows) / counted
    assert float(found.metrics["loss"].value) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize(("name", "k1"), [("lstm", 1), ("lstm", 4), ("lstm", 11), ("lru", 3)])
def test_windows_that_reach_the_beginning_add_up_to_bptt(name, k1):
    loss, params, carry, batch = problem(CELLS[name])
    gradient = jax.jit(sj.accumulated_tbptt(k1, TIME).gradient(loss))
    found = gradient(params, carry, batch, None)
    chex.assert_trees_all_close(found, exact(name), rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("losses", ["new", "window"])
def test_one_window_of_the_whole_length_is_bptt_to_the_last_bit(losses):
    loss, params, carry, batch = problem(CELLS["lstm"])
    show = optax.GradientTransformation(  # an optimizer that keeps the gradient, and stays put
        lambda params: params,
        lambda grads, *_: (jax.tree.map(jnp.zeros_like, grads), grads),  # pyright: ignore[reportArgumentType] - optax types say what a state is
    )
    update = jax.jit(sj.tbptt(TIME, TIME, losses=losses)(loss, show))
    found = update(params, params, carry, batch, None)
    # The whole window weighs its one block by 11, and divides by 11: that may round.
    rtol = 0 if losses == "new" else 1e-13
    chex.assert_trees_all_close(found.opt_state, exact("lstm").grads, rtol=rtol, atol=rtol)
    chex.assert_trees_all_equal(found.carry, exact("lstm").carry)


def test_the_bias_shrinks_as_gradients_reach_further_back_in_a_contracting_network():
    """Three networks: the gradients of all are taken by the same few programs."""
    cell = sj.Elman(6, recurrent_init=SpectralRadius(0.6), param_dtype=jnp.float64)
    problems = [problem(cell, time=16, lanes=8, seed=seed) for seed in (0, 1, 2)]
    loss = problems[0][0]
    gradients = [sj.accumulated_tbptt(1, k2).gradient(loss) for k2 in (1, 2, 4, 8, 16)]
    programs = [jax.jit(gradient) for gradient in (bptt(loss), *gradients)]
    for _, params, carry, batch in problems:
        whole, *truncated = (program(params, carry, batch, None).grads for program in programs)
        biases = [distance(grads, whole) for grads in truncated]
        assert all(shorter > longer for shorter, longer in itertools.pairwise(biases))
        assert biases[0] > 0.1  # there was something to lose
        assert biases[3] < 0.05
        assert biases[-1] < 1e-12


@pytest.mark.parametrize(("k1", "k2"), [(5, 11), (4, 6), (6, 2)])
def test_metrics_merge_to_those_of_one_run_and_the_carry_is_that_of_an_unbroken_one(k1, k2):
    loss, params, carry, batch = problem(CELLS["lstm"])
    still = optax.sgd(0.0)
    result = jax.jit(sj.tbptt(k1, k2)(loss, still))(params, still.init(params), carry, batch, None)
    whole = exact("lstm")
    error = result.metrics["error"]
    assert error.total.shape == (-(-TIME // k1),)
    assert float(error.count.sum()) == float(whole.metrics["error"].count)
    np.testing.assert_allclose(error.total.sum(), whole.metrics["error"].total, rtol=1e-12)
    chex.assert_trees_all_close(result.carry, whole.carry, rtol=1e-12)


def test_the_sum_over_many_windows_is_not_rounded_as_the_params_are():
    """In bfloat16 one cannot count beyond 256; the sum of 512 windows is made in float32."""

    def loss(params, carry, batch, key):
        return params.astype(jnp.float32) * jnp.mean(batch), (carry, {})

    gradient = sj.accumulated_tbptt(1, 1).gradient(loss)
    batch = jnp.ones(512, jnp.float32)
    found = jax.jit(gradient)(jnp.ones((), jnp.bfloat16), None, batch, None)
    assert found.grads.dtype == jnp.bfloat16
    assert float(found.grads) == 1.0
