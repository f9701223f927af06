"""UORO: noisy, and right on the mean."""

import importlib
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import seqjax as sj
from seqjax.gradients.uoro import random_signs
from tests.contract.registry import REGISTRY
from tests.gradients import online_problem
from tests.gradients.online_problem import assert_close, by_bptt, distance, forward, squares

pytestmark = pytest.mark.usefixtures("quick_compilation")

MODULE = importlib.import_module(
    "seqjax.gradients.uoro"
)  # whose name in the package is the function

CELLS = {
    "dense": sj.Elman(2, param_dtype=jnp.float64),
    "learned and complex": sj.LearnedState(sj.LRU(1, param_dtype=jnp.float64)),
    "stack": sj.Stack((sj.MinGRU(1, param_dtype=jnp.float64), sj.MGU(1, param_dtype=jnp.float64))),
}


@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
def test_the_mean_over_all_signs_is_bptt(cell, monkeypatch, x64):
    """Two states and three steps draw four pairs of signs, the last of which come too late to matter."""
    problem = online_problem.make(cell, time=3, batch=())

    def total(signs):
        # All but the first are drawn twice: the state that comes in is checked against a new one.
        left = iter(jnp.repeat(signs, 2, axis=0)[1:])
        monkeypatch.setattr(MODULE, "random_signs", lambda key, like: next(left, jnp.ones(2)))
        rule = sj.uoro(cell).online(squares)
        online_state = rule.init(problem.params, key=problem.key)
        grads = jax.tree.map(jnp.zeros_like, problem.params)
        for x, target in zip(*problem.batch[:2], strict=True):
            result = rule.update(problem.params, online_state, x, target)
            grads, online_state = jax.tree.map(jnp.add, grads, result.grads), result.state
        return grads

    every = jnp.asarray(list(itertools.product([1.0, -1.0], repeat=6))).reshape(64, 3, 2)
    grads = jax.jit(jax.vmap(total))(every)
    mean = jax.tree.map(lambda g: g.mean(axis=0), grads)
    # The scales, which cancel, may be as small as 1e-7, and take as many digits with them.
    assert_close(mean, by_bptt(problem)[0], rtol=1e-7, atol=1e-8)
    assert distance(jax.tree.map(lambda g: g[0], grads), mean) > 1e-3


def test_the_mean_over_seeds_converges_to_bptt_as_one_over_the_root_of_their_number(x64):
    cell = sj.LSTM(2, param_dtype=jnp.float64)
    problem = online_problem.make(cell, resets=[(2, 0)])
    expected, _ = ravel_pytree(by_bptt(problem)[0])
    run = jax.jit(jax.vmap(lambda key: ravel_pytree(forward(sj.uoro, problem, key=key)[0])[0]))
    drawn = np.asarray(run(jax.random.split(jax.random.key(5), 8192))) - np.asarray(expected)
    # Along a fixed direction, whose mean over 8192 lies within 4 standard errors.
    along = drawn @ np.cos(np.arange(len(expected)))
    assert abs(along.mean()) < 4 * along.std() / np.sqrt(len(along))
    errors = [
        np.sqrt(np.mean(np.square(along.reshape(-1, size).mean(axis=1)))) for size in (1, 16, 256)
    ]
    # 512 means of 16 have a root mean square that is known to 3 %, 32 means of 256 to 13 %.
    np.testing.assert_allclose(errors[1] / errors[0], 1 / 4, rtol=0.2)
    np.testing.assert_allclose(errors[2] / errors[1], 1 / 4, rtol=0.5)


@pytest.mark.parametrize("name", ["a deep stack with noise", "Zoneout of a complex state"])
def test_values_are_those_of_the_cell_and_the_first_gradient_is_exact(name, x64):
    """Before anything is behind it a step needs no trace; noise is that of BPTT with the same state."""
    problem = online_problem.make(REGISTRY[name].build(jnp.float64, None), time=1)
    state = problem.cell.initial_state(problem.params.cell, (2,), key=problem.key)
    run = jax.jit(lambda: (forward(sj.uoro, problem, state=state), by_bptt(problem, state)))
    online, backward = run()
    assert_close(online[:3], backward[:3])
    assert_close(online[3].cell, backward[3])


def test_a_reset_forgets_the_past_of_its_row(x64):
    cell = sj.GRU(2, param_dtype=jnp.float64)
    problem = online_problem.make(cell, time=4)
    rule = sj.uoro(cell).online(squares)
    state = rule.init(problem.params, (2,), key=problem.key)
    xs, targets, _ = problem.batch
    update = jax.jit(rule.update)
    begun = state
    for t in range(3):
        state = update(problem.params, state, xs[t], targets[t]).state
    reset = jnp.asarray([True, False])
    now = problem.params, xs[3], targets[3]
    one = jnp.asarray([1.0, 0.0])[:, None]  # the loss of the first row alone
    first = sj.uoro(cell).online(lambda head, y, target: squares(head, y * one, target))
    step = jax.jit(
        lambda s, params, x, target, reset: first.update(params, s, x, target, reset=reset)
    )
    cut, fresh = step(state, *now, reset), step(begun, *now, ~(reset | True))
    np.testing.assert_allclose(cut.y[0], fresh.y[0], rtol=1e-12)
    assert_close(cut.grads, fresh.grads)


def test_the_signs_are_one_and_minus_one_alike():
    drawn = np.asarray(random_signs(jax.random.key(0), jnp.ones(4096)))
    assert set(drawn.tolist()) == {1.0, -1.0}
    assert abs(drawn.mean()) < 4 / 64  # four standard errors
