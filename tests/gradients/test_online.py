"""Online rules as a way to train: updates on the way, what is carried, and `fit`."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import seqjax as sj
from tests.gradients import online_problem
from tests.gradients.online_problem import assert_close, forward, squares

pytestmark = pytest.mark.usefixtures("standard_promotion", "quick_compilation")

STILL = optax.sgd(0.0)


def problem(time=7, cell=None):
    cell = sj.GRU(3) if cell is None else cell
    return online_problem.make(cell, time, resets=[(1, 1)], dtype=jnp.float32)


@pytest.mark.parametrize("every", [1, 3, 7, 9, None])
def test_updates_are_made_one_after_the_other_from_summed_gradients(every):
    """The scan is the loop a person would write, the ragged tail included."""
    made, optimizer = problem(), optax.adam(1e-2)
    rule = sj.rtrl(made.cell, every)
    online = rule.online(squares)
    params, opt_state = made.params, optimizer.init(made.params)
    state = online.init(params, (2,))
    update = jax.jit(rule.update(squares, optimizer))
    result = update(params, opt_state, state, made.batch, None)
    step, losses = jax.jit(online.update), []
    for begin in range(0, 7, every or 7):
        total, window = jax.tree.map(jnp.zeros_like, params), []
        for t in range(begin, min(begin + (every or 7), 7)):
            x, target, reset = (a[t] for a in made.batch)
            state, grads, loss, _ = step(params, state, x, target, reset=reset)
            total = jax.tree.map(jnp.add, total, grads)
            window.append(float(loss))
        updates, opt_state = optimizer.update(total, opt_state, params)
        params = optax.apply_updates(params, updates)
        losses.append(np.mean(window))
    chex.assert_trees_all_close(result.params, params, rtol=1e-5, atol=1e-6)
    chex.assert_trees_all_close(result.carry, state, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(result.metrics["loss"].value, losses, rtol=1e-5)


@pytest.mark.parametrize("rule", [sj.rtrl, sj.uoro])
def test_the_gradient_of_a_batch_is_the_sum_over_its_steps(rule):
    made = problem()
    summed, losses, _, last = forward(rule, made)
    carry = rule(made.cell).online(squares).init(made.params, (2,), key=made.key)
    gradient = jax.jit(rule(made.cell, every=2)(squares))
    found = gradient(made.params, carry, made.batch, None)
    assert_close(found.grads, summed, rtol=1e-5, atol=1e-5)
    assert_close(found.carry, last, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found.metrics["loss"].total, losses.sum(), rtol=1e-6)
    assert float(found.metrics["loss"].count) == 7


def test_traces_live_on_from_batch_to_batch_unless_the_carry_is_none():
    made = problem(8)
    rule = sj.rtrl(made.cell, 4)
    update = jax.jit(rule.update(squares, STILL))
    run = lambda carry, batch: update(made.params, STILL.init(made.params), carry, batch, None)
    begun = rule.online(squares).init(made.params, (2,))
    whole, state = run(begun, made.batch), begun
    for half in (slice(0, 4), slice(4, 8)):
        state = run(state, jax.tree.map(lambda a, half=half: a[half], made.batch)).carry
    chex.assert_trees_all_close(state, whole.carry, rtol=1e-5, atol=1e-6)
    afresh = run(None, made.batch[:2])
    assert afresh.carry is None
    given = run(begun, made.batch[:2])
    chex.assert_trees_all_close(afresh.metrics, given.metrics, rtol=1e-6)


def test_a_key_draws_the_noise_of_a_batch_and_nothing_else():
    cell = sj.RecurrentDropout(sj.GRU(3), 0.5)
    made, rule = problem(2, cell), sj.rtrl(cell)
    update = jax.jit(rule.update(squares, STILL))
    carry = rule.online(squares).init(made.params, (2,), key=jax.random.key(1))
    masks = []
    for key in (None, jax.random.key(2), jax.random.key(2), jax.random.key(3)):
        result = update(made.params, STILL.init(made.params), carry, made.batch[:2], key)
        masks.append(np.asarray(result.carry.cell.mask).tolist())
    assert masks[0] == np.asarray(carry.cell.mask).tolist()
    assert masks[1] == masks[2] != masks[3]


RULES = {
    "rtrl": sj.rtrl,
    "snap": sj.snap,
    "uoro": sj.uoro,
    "rflo": sj.rflo,
    "eprop": functools.partial(
        sj.eprop, signal=lambda head, y, target: (y @ head - target) @ (0.5 * jnp.ones((1, 8)))
    ),
}


@pytest.mark.parametrize("name", RULES)
def test_fit_learns_with_every_rule(name):
    """The running mean of the inputs, which a leaky unit can hold, to a tenth of its variance."""
    cell, optimizer = sj.Elman(8, leak=0.2), optax.adam(1e-2)
    keys = jax.random.split(jax.random.key(0), 3)

    def batch(key):
        xs = jax.random.normal(key, (20, 16, 1))
        means = [jnp.zeros_like(xs[0])]
        for x in xs:
            means.append(0.8 * means[-1] + 0.2 * x)
        return sj.OnlineBatch(xs, jnp.stack(means[1:]))

    def loss(head, y, target):
        return jnp.mean(jnp.square(y @ head - target))

    method = RULES[name](cell, every=5)
    params = sj.OnlineParams(cell.init(keys[0], 1), 0.5 * jnp.ones((8, 1)))
    carry = method.online(loss).init(params, (16,), key=keys[1])
    state = sj.training.TrainState.create(params, optimizer, keys[2], carry)
    batches = [batch(key) for key in jax.random.split(keys[2], 4)]
    result = sj.training.fit(
        loss, optimizer, state, batches, steps=16, method=method, log_every=4, display=False
    )
    first, *_, last = [record["train/loss"] for record in result.records]
    assert last < 0.5 * first


def test_gradients_of_narrow_params_are_summed_in_float32():
    """bfloat16 adds nothing to 256 but what is at least 1."""
    cell = sj.DiagonalGRU(2)
    head = jnp.ones(1, jnp.bfloat16)
    params = sj.OnlineParams(cell.init(jax.random.key(0), 1), head)
    loss, sgd = lambda head, y, target: jnp.sum(head), optax.sgd(1.0)
    update = jax.jit(sj.rtrl(cell, every=1000).update(loss, sgd))
    batch = jnp.ones((1000, 1, 1)), jnp.zeros((1000, 1))
    result = update(params, sgd.init(params), None, batch, None)
    assert result.params.head == 1 - 1000
    assert result.metrics["loss"].count == 1000
