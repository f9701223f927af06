import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqjax import losses
from seqjax.data import adding_problem, copy_task, parity

pytestmark = pytest.mark.usefixtures("quick_compilation")

# Enough that five standard errors are a tight bound, and a right program fails once in a million keys.
MANY = 4000


def drawn(task: Callable[..., Any], *sizes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Inputs, targets and mask, drawn by one compiled program."""
    inputs, targets, mask = jax.jit(lambda key: task(key, *sizes))(jax.random.key(3))
    return np.asarray(inputs), np.asarray(targets), np.asarray(mask)


@pytest.mark.parametrize("length", [2, 7, 10])
def test_the_sum_is_that_of_the_marked_values(length):
    inputs, targets, mask = drawn(adding_problem, length, 50)
    for b in range(50):
        values, markers = inputs[:, b].T
        first, second = np.flatnonzero(markers)
        assert markers[first] == markers[second] == 1
        assert first < length // 2 <= second
        # One rounding of a float32 sum below 2.
        assert abs(targets[-1, b, 0] - (values[first] + values[second])) < 2**-23
        assert mask[:, b].tolist() == [False] * (length - 1) + [True]
    assert not targets[:-1].any()
    assert inputs[..., 0].min() >= 0
    assert inputs[..., 0].max() < 1


def test_markers_fall_on_every_step_of_their_half_equally_often_and_answering_one_costs_a_sixth():
    inputs, targets, mask = drawn(adding_problem, 5, MANY)
    shares = inputs[..., 1].mean(axis=1)
    expected = np.array([1 / 2, 1 / 2, 1 / 3, 1 / 3, 1 / 3])
    assert (np.abs(shares - expected) < 5 * np.sqrt(expected * (1 - expected) / MANY)).all()
    ones, targets, mask = map(jnp.asarray, (np.ones_like(targets), targets, mask))
    error = losses.mean_squared_error(ones, targets, mask=mask)
    # (s - 1)² has mean 1/6 and, since E(s - 1)⁴ = 1/15, variance 1/15 - 1/36.
    assert abs(float(error) - 1 / 6) < 5 * math.sqrt((1 / 15 - 1 / 36) / MANY)


@pytest.mark.parametrize(("delay", "symbols", "alphabet"), [(1, 1, 2), (4, 3, 5), (30, 10, 8)])
def test_the_symbols_come_back_after_the_delimiter_in_their_order(delay, symbols, alphabet):
    task = lambda key: copy_task(key, delay, 6, symbols=symbols, alphabet=alphabet)
    inputs, targets, mask = (np.asarray(field) for field in jax.jit(task)(jax.random.key(1)))
    assert inputs.shape == (delay + 2 * symbols, 6, alphabet + 2)
    assert (inputs.sum(axis=-1) == 1).all()
    assert mask.all()
    for shown, asked in zip(inputs.argmax(axis=-1).T, targets.T, strict=True):
        answer = shown[:symbols].tolist()
        assert max(answer) < alphabet
        assert shown[symbols:].tolist() == (
            [alphabet] * (delay - 1) + [alphabet + 1] + [alphabet] * symbols
        )
        # s_k is asked for delay + symbols steps after it was shown, and a blank before.
        assert asked.tolist() == [alphabet] * (delay + symbols) + answer


def test_guessing_each_symbol_costs_what_the_copy_task_states():
    inputs, targets, mask = drawn(copy_task, 30, 500)
    shares = inputs[:10, :, :8].mean(axis=(0, 1))  # every symbol is drawn equally often
    assert (np.abs(shares - 1 / 8) < 5 * math.sqrt(1 / 8 * 7 / 8 / 5000)).all()
    # Sure of a blank until the delimiter, then each symbol with probability 1/8.
    sure = np.where(np.arange(9) == 8, 0.0, -np.inf)
    guess = np.where(np.arange(9) == 8, -np.inf, 0.0)
    asked = (np.arange(50) >= 40)[:, None, None]
    logits = np.broadcast_to(np.where(asked, guess, sure), (50, 500, 9)).astype(np.float32)
    cost = losses.cross_entropy(*map(jnp.asarray, (logits, targets)), mask=jnp.asarray(mask))
    # Any draw costs just this, up to the rounding of a float32 mean.
    assert abs(float(cost) - 10 * math.log(8) / (30 + 20)) < 1e-6


def test_the_target_is_the_parity_so_far():
    inputs, targets, mask = drawn(parity, 30, 40)
    assert (inputs.sum(axis=-1) == 1).all()
    assert mask.all()
    for b in range(40):
        odd = 0
        for t in range(30):
            odd ^= int(inputs[t, b, 1])
            assert targets[t, b] == odd


def test_a_guess_is_right_half_of_the_time_in_parity():
    inputs, targets, _ = drawn(parity, 9, MANY)
    bound = 5 * math.sqrt(1 / 4 / MANY)
    assert abs(targets[-1].mean() - 1 / 2) < bound
    # The last bit alone says nothing about the parity of all.
    assert abs((targets[-1] == inputs[-1, :, 1]).mean() - 1 / 2) < bound


@pytest.mark.parametrize("task", [adding_problem, copy_task, parity])
def test_another_key_gives_another_batch_and_the_same_key_the_same(task):
    draw = lambda seed: np.asarray(task(jax.random.key(seed), 12, 3).inputs)
    assert np.array_equal(draw(0), draw(0))
    assert not np.array_equal(draw(0), draw(1))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda key: adding_problem(key, 1, 3), "length: expected at least 2, got 1"),
        (lambda key: adding_problem(key, 0, 3), "adding_problem: length: expected a positive int"),
        (lambda key: adding_problem(key, 5, 0), "adding_problem: batch: expected a positive int"),
        (lambda key: copy_task(key, 0, 3), "copy_task: delay: expected a positive int"),
        (lambda key: copy_task(key, 5, 0), "copy_task: batch: expected a positive int"),
        (lambda key: copy_task(key, 5, 3, symbols=0), "copy_task: symbols: expected a positive"),
        (lambda key: copy_task(key, 5, 3, alphabet=1), "alphabet: expected at least 2, got 1"),
        (lambda key: parity(key, 0, 3), "parity: length: expected a positive int"),
        (lambda key: parity(key, 5, -1), "parity: batch: expected a positive int"),
    ],
)
def test_sizes_that_are_too_small_are_errors(key, call, message):
    with pytest.raises(ValueError, match=message):
        call(key)
