"""Online rules as a way to train: updates on the way, what is carried, and `fit`."""

import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import seqjax as sj
from tests.gradients import online_problem
from tests.gradients.online_problem import squares

pytestmark = pytest.mark.usefixtures("standard_promotion", "quick_compilation")


def problem(time=7, cell=None):
    cell = sj.GRU(3) if cell is None else cell
    return online_problem.make(cell, time, resets=[(1, 1)], dtype=jnp.float32)


@pytest.mark.parametrize("every", [1, 3, 7, 9])
def test_updates_are_made_one_after_the_other_from_summed_gradients(every):
    """The scan is the loop a person would write, the ragged tail included."""
    made, optimizer = problem(), optax.adam(1e-2)
    rule = sj.rtrl(made.cell, squares)
    params, opt_state = made.params, optimizer.init(made.params)
    state = rule.init(params, (2,))
    update = jax.jit(sj.online(made.cell, sj.rtrl, every)(squares, optimizer))
    result = update(params, opt_state, state, made.batch, None)
    step, losses = jax.jit(rule.update), []
    for begin in range(0, 7, every):
        total, window = jax.tree.map(jnp.zeros_like, params), []
        for t in range(begin, min(begin + every, 7)):
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


def test_traces_live_on_from_batch_to_batch_unless_the_carry_is_none():
    made, still = problem(8), optax.sgd(0.0)
    update = jax.jit(sj.online(made.cell, sj.rtrl, 8)(squares, still))
    halves = jax.jit(sj.online(made.cell, sj.rtrl, 4)(squares, still))
    state = sj.rtrl(made.cell, squares).init(made.params, (2,))
    whole = update(made.params, still.init(made.params), state, made.batch, None)
    for half in (slice(0, 4), slice(4, 8)):
        batch = jax.tree.map(lambda a, half=half: a[half], made.batch)
        result = halves(made.params, still.init(made.params), state, batch, None)
        state = result.carry
    chex.assert_trees_all_close(state, whole.carry, rtol=1e-5, atol=1e-6)
    anew = update(made.params, still.init(made.params), None, made.batch[:2], None)
    assert anew.carry is None
    begun = sj.rtrl(made.cell, squares).init(made.params, (2,))
    given = update(made.params, still.init(made.params), begun, made.batch[:2], None)
    chex.assert_trees_all_close(anew.metrics, given.metrics, rtol=1e-6)


def test_a_key_draws_the_noise_of_a_batch_and_nothing_else():
    cell = sj.RecurrentDropout(sj.GRU(3), 0.5)
    made, still = problem(2, cell), optax.sgd(0.0)
    update = jax.jit(sj.online(cell, sj.rtrl)(squares, still))
    carry = sj.rtrl(cell, squares).init(made.params, (2,), key=jax.random.key(1))
    masks = []
    for key in (None, jax.random.key(2), jax.random.key(2), jax.random.key(3)):
        result = update(made.params, still.init(made.params), carry, made.batch[:2], key)
        masks.append(np.asarray(result.carry.cell.mask).tolist())
    assert masks[0] == np.asarray(carry.cell.mask).tolist()
    assert masks[1] == masks[2] != masks[3]


RULES = {
    "rtrl": sj.rtrl,
    "snap": sj.snap(1),
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

    head = 0.5 * jnp.ones((8, 1))
    params = sj.OnlineParams(cell.init(keys[0], 1), head)
    carry = RULES[name](cell, loss).init(params, (16,), key=keys[1])
    state = sj.training.TrainState.create(params, optimizer, keys[2], carry)
    step_loss: Any = loss  # `fit` is typed for losses over whole batches
    result = sj.training.fit(
        step_loss,
        optimizer,
        state,
        [batch(key) for key in jax.random.split(keys[2], 4)],
        steps=16,
        method=sj.online(cell, RULES[name], every=5),
        log_every=4,
        display=False,
    )
    first, *_, last = [record["train/loss"] for record in result.records]
    assert last < 0.5 * first


def test_batches_of_another_form_are_refused():
    made, still = problem(), optax.sgd(0.0)
    with pytest.raises(ValueError, match="online: every: expected a positive integer"):
        sj.online(made.cell, sj.rtrl, every=0)
    update = sj.online(made.cell, sj.rtrl)(squares, still)
    call = lambda batch: update(made.params, still.init(made.params), None, batch, None)
    xs, targets, _ = made.batch
    with pytest.raises(ValueError, match=r"batch is a dict; expected \(xs, targets\) or"):
        call({"xs": xs, "targets": targets})
    with pytest.raises(ValueError, match=r"expected \[time, ...\] with one time for all"):
        call((xs, targets[:-1]))
    with pytest.raises(ValueError, match="batch has 0 time steps"):
        call((xs[:0], targets[:0]))
    with pytest.raises(ValueError, match="uoro: key is None"):
        sj.online(made.cell, sj.uoro)(squares, still)(
            made.params, still.init(made.params), None, (xs, targets), None
        )


@pytest.mark.parametrize("rule", [sj.rtrl, sj.uoro])
@pytest.mark.parametrize("reset", [np.zeros(3, bool), np.zeros((2, 3)), np.zeros((3, 2), bool)])
def test_a_reset_that_is_not_one_bool_for_each_row_is_refused(rule, reset, unchecked):
    cell = sj.GRU(2)
    params = sj.OnlineParams(cell.init(jax.random.key(0), 2))
    online = rule(cell, lambda head, y, target: jnp.sum(y))
    state = online.init(params, (2, 3), key=jax.random.key(1))
    with pytest.raises(ValueError, match=r"reset is (bool|float).*; expected bool\[2, 3\]"):
        online.update(params, state, jnp.ones((2, 3, 2)), None, reset=jnp.asarray(reset))


def test_gradients_of_narrow_params_are_summed_in_float32(standard_promotion):
    """bfloat16 adds nothing to 256 but what is at least 1."""
    cell = sj.DiagonalGRU(2)
    head = jnp.ones(1, jnp.bfloat16)
    params = sj.OnlineParams(cell.init(jax.random.key(0), 1), head)
    update = sj.online(cell, sj.rtrl, every=1000)(
        lambda head, y, target: jnp.sum(head), optax.sgd(1.0)
    )
    batch = jnp.ones((1000, 1, 1)), jnp.zeros((1000, 1))
    result = jax.jit(update)(params, optax.sgd(1.0).init(params), None, batch, None)
    assert result.params.head == 1 - 1000
    assert result.metrics["loss"].count == 1000
