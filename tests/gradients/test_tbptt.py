"""Truncated backpropagation against windows unrolled by hand: reach, counted losses, updates."""

import functools
import itertools
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import seqjax as sj
from seqjax.initializers import SpectralRadius
from seqjax.losses import mean_over

pytestmark = pytest.mark.usefixtures("quick_compilation", "x64", "standard_promotion")

TIME = 11
STILL, MOVING = optax.sgd(0.0), optax.sgd(1.0, momentum=0.5)
CELLS = {
    "elman": sj.Elman(4, param_dtype=jnp.float64),
    "lstm": sj.LSTM(3, param_dtype=jnp.float64),
    "lru": sj.LRU(3, param_dtype=jnp.float64),  # its state is complex
    "stack": sj.Stack((sj.GRU(3, param_dtype=jnp.float64), sj.Elman(3, param_dtype=jnp.float64))),
}

# A multiple, no multiple, all, a step at a time, k2 below k1, equal; no k1 but 1 divides the time.
LENGTHS = [(3, 9), (3, 7), (5, 11), (1, 4), (4, 2), (4, 4)]


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


def by_hand(loss, params, carry, batch, k1, k2, losses="new", optimizer=STILL):
    """Window after window: (gradient, loss, steps that it counts) of each; the params; the carry."""
    time, starts, found, opt_state = len(batch[0]), [carry], [], optimizer.init(params)
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
        updates, opt_state = optimizer.update(grads, opt_state, params)
        params = optax.apply_updates(params, updates)
    return found, params, starts[-1]


@functools.cache
def exact(name):
    loss, *arguments = problem(CELLS[name])
    return jax.jit(sj.bptt(loss))(*arguments, None)


def distance(a, b):
    norm = lambda tree: np.sqrt(sum(float(jnp.sum(leaf**2)) for leaf in jax.tree.leaves(tree)))
    return norm(jax.tree.map(jnp.subtract, a, b)) / norm(b)


CASES: list[Any] = [("elman", 3, 7, "new"), ("elman", 4, 2, "new"), ("elman", 3, 9, "window")]
CASES += [("lru", 4, 10, "window"), ("stack", 5, 5, "new")]
THOROUGH = [("elman", *lengths, "new") for lengths in LENGTHS if lengths not in [(3, 7), (4, 2)]]
THOROUGH += [("elman", 3, 7, "window"), ("lstm", 3, 7, "new")]
CASES += [pytest.param(*case, marks=pytest.mark.full) for case in THOROUGH]


@pytest.mark.parametrize(("name", "k1", "k2", "losses"), CASES)
def test_params_that_change_are_those_of_windows_unrolled_by_hand(name, k1, k2, losses):
    loss, params, carry, batch = problem(CELLS[name])
    update = jax.jit(sj.tbptt(k1, k2, losses=losses).update(loss, MOVING))
    result = update(params, MOVING.init(params), carry, batch, None)
    windows, expected, after = by_hand(loss, params, carry, batch, k1, k2, losses, MOVING)
    chex.assert_trees_all_close(result.params, expected, rtol=1e-11, atol=1e-13)
    chex.assert_trees_all_close(result.carry, after, rtol=1e-11, atol=1e-13)
    values = [float(value) for _, value, _ in windows]
    np.testing.assert_allclose(result.metrics["loss"].value, values, rtol=1e-11)
    assert distance(expected, params) > 0.01  # the params did change


@pytest.mark.parametrize(("name", "k1", "k2", "losses"), CASES)
def test_the_accumulated_gradient_is_the_mean_over_windows_unrolled_by_hand(name, k1, k2, losses):
    loss, params, carry, batch = problem(CELLS[name])
    gradient = jax.jit(sj.tbptt(k1, k2, losses=losses)(loss))
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
    gradient = jax.jit(sj.tbptt(k1, TIME)(loss))
    found = gradient(params, carry, batch, None)
    chex.assert_trees_all_close(found, exact(name), rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("losses", ["new", "window"])
def test_one_window_of_the_whole_length_is_bptt_to_the_last_bit(losses):
    loss, params, carry, batch = problem(CELLS["lstm"])
    show = optax.GradientTransformation(  # an optimizer that keeps the gradient, and stays put
        lambda params: params,
        lambda grads, *_: (jax.tree.map(jnp.zeros_like, grads), grads),  # pyright: ignore[reportArgumentType] - optax types say what a state is
    )
    update = jax.jit(sj.tbptt(TIME, TIME, losses=losses).update(loss, show))
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
    gradients = [sj.tbptt(1, k2)(loss) for k2 in (1, 2, 4, 8, 16)]
    programs = [jax.jit(gradient) for gradient in (sj.bptt(loss), *gradients)]
    for _, params, carry, batch in problems:
        whole, *truncated = (program(params, carry, batch, None).grads for program in programs)
        biases = [distance(grads, whole) for grads in truncated]
        assert all(shorter > longer for shorter, longer in itertools.pairwise(biases))
        assert biases[0] > 0.1  # there was something to lose
        assert biases[3] < 0.05
        assert biases[-1] < 1e-12


@pytest.mark.parametrize(("k1", "k2"), [(1, 1), (5, 11), (4, 6), (6, 2)])
def test_metrics_merge_to_those_of_one_run_and_the_carry_is_that_of_an_unbroken_one(k1, k2):
    loss, params, carry, batch = problem(CELLS["lstm"])
    update = jax.jit(sj.tbptt(k1, k2).update(loss, STILL))
    result = update(params, STILL.init(params), carry, batch, None)
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

    gradient = sj.tbptt(1, 1)(loss)
    batch = jnp.ones(512, jnp.float32)
    found = jax.jit(gradient)(jnp.ones((), jnp.bfloat16), None, batch, None)
    assert found.grads.dtype == jnp.bfloat16
    assert float(found.grads) == 1.0


def refused(message, call):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.usefixtures("unchecked")
def test_lengths_losses_and_weights_that_make_no_window_are_named():
    loss: Any = problem(CELLS["elman"])[0]
    positive = "expected a positive integer"
    for make, message in (
        *((lambda k1=k1: sj.tbptt(k1), f"tbptt: k1: {positive}, got {k1}") for k1 in (0, -1, True)),
        (lambda: sj.tbptt(4, 0), f"tbptt: k2: {positive}, got 0"),
        (
            lambda: sj.tbptt(4, 8, losses="all"),  # pyright: ignore[reportArgumentType]
            "tbptt: losses: expected one of 'new', 'window', got 'all'",
        ),
        (
            lambda: sj.tbptt(4, 8, weight="error").update(loss, STILL),
            "weight is 'error', but an update in every window with losses='new' has one",
        ),
    ):
        refused(message, make)


def test_what_a_batch_and_a_loss_must_give_is_named():
    loss, params, carry, batch = problem(CELLS["elman"])
    call = lambda method, loss=loss, carry=carry, batch=batch: method(loss)(
        params, carry, batch, None
    )
    short = sj.tbptt(4)
    rows = lambda p, c, b, k: (jnp.zeros(3), loss(p, c, b, k)[1])
    each = sj.losses.Mean(jnp.ones(3), jnp.ones(3))
    several = lambda p, c, b, k: (loss(p, c, b, k)[0], (c, {"each": each}))
    half = jax.tree.map(lambda s: s.astype(jnp.float16), carry)
    given: Any
    for message, given in (
        (r"with one time for all", {"batch": (batch[0], batch[1][:-1])}),
        ("0 time steps", {"batch": part(batch, 0, 0)}),
        ("start from the state that the model gives", {"carry": None}),
        (
            r"gives back.* is float64\[2, 4\]; expected float16",
            {"carry": half, "loss": lambda p, c, b, k: (jnp.sum(p.bias), (carry, {}))},
        ),
        (r"the loss gives float64\[3\]; expected one real number", {"loss": rows}),
        (r"weight is 'nats'; expected .* one of \['error'\]", {"method": "nats"}),
        (
            r"'each', whose count has shape \(3,\); expected one number",
            {"method": "each", "loss": several},
        ),
    ):
        weight = given.pop("method", None)
        method = short if weight is None else sj.tbptt(4, 8, weight=weight)
        refused(message, lambda method=method, given=given: call(method, **given))


@pytest.mark.parametrize("accumulate", [False, True])
def test_a_window_longer_than_the_sequence_is_named(accumulate):
    """An explicit k2 raises; `tbptt(k1)` alone takes what a pass leaves as a short window."""
    loss, params, carry, batch = problem(CELLS["elman"])
    method = functools.partial(sj.tbptt, accumulate=accumulate)
    arguments = params, MOVING.init(params), carry, batch, None
    for lengths, named in (((12, 12), "k1 is 12"), ((12, 4), "k1 is 12"), ((4, 12), "k2 is 12")):
        message = f"tbptt: {named} but the batch has 11 steps; expected at most 11: .* sj.bptt"
        update = method(*lengths).update(loss, MOVING)
        refused(message, lambda update=update: update(*arguments))
    whole = jax.jit(sj.bptt.update(loss, MOVING))(*arguments)
    for short in (method(12), method(11, 11), method(12, 20, short_batches=True)):
        found = jax.jit(short.update(loss, MOVING))(*arguments)
        chex.assert_trees_all_close(found.params, whole.params, rtol=1e-12, atol=1e-14)
