"""What a batch may hold where windows reach back: documents, lengths, noise, any carry, no carry."""

import functools
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import seqjax as sj
from seqjax.losses import Mean, mean_over
from seqjax.training import TrainState, fit

pytestmark = pytest.mark.usefixtures("quick_compilation", "standard_promotion")

TIME, LANES = 10, 3
DOUBLE = {"param_dtype": jnp.float64}
CELLS = {
    "lstm": sj.LSTM(3, **DOUBLE),
    "stack with noise": sj.Stack((sj.Dropout(sj.GRU(3, **DOUBLE), 0.5), sj.Elman(3, **DOUBLE))),
}


class Lanes(NamedTuple):
    xs: jax.Array
    targets: jax.Array
    mask: jax.Array
    resets: jax.Array


def ragged_lanes():
    """Lanes of 10, 7 and 2 valid steps, with documents that begin within them."""
    keys = jax.random.split(jax.random.key(7), 2)
    mask = jnp.arange(TIME)[:, None] < jnp.array([10, 7, 2])[None]
    resets = jnp.zeros((TIME, LANES), bool).at[4, 0].set(True).at[3, 1].set(True)
    xs = jax.random.normal(keys[0], (TIME, LANES, 2), float)
    # A number that spoils everything wherever it is read, in the padding.
    xs = jnp.where(jnp.broadcast_to(mask[:, :, None], xs.shape), xs, jnp.nan)
    return Lanes(xs, jax.random.normal(keys[1], (TIME, LANES, 3), float), mask, resets)


def loss_of(cell):
    def loss(params, carry, batch, key):
        lengths = batch.mask.sum(0)
        state, ys = sj.unroll(
            cell, params, batch.xs, carry, key=key, lengths=lengths, resets=batch.resets
        )
        error = mean_over(jnp.mean((ys - batch.targets) ** 2, axis=-1), batch.mask)
        return error.value, (state, {"error": error})

    return loss


@pytest.mark.usefixtures("x64")
def test_with_resets_and_lengths_windows_that_reach_the_beginning_add_up_to_bptt():
    """Weighed by valid steps; the noise is in the carry, where no key redraws it."""
    cell, batch = CELLS["stack with noise"], ragged_lanes()
    loss, params = loss_of(cell), cell.init(jax.random.key(0), 2)
    carry = cell.initial_state(params, (LANES,), key=jax.random.key(5))
    arguments = params, carry, batch, None
    whole = jax.jit(sj.bptt(loss))(*arguments)
    found = jax.jit(sj.tbptt(4, TIME, weight="error")(loss))(*arguments)
    chex.assert_trees_all_close(found.grads, whole.grads, rtol=1e-10, atol=1e-14)
    assert float(found.metrics["error"].count) == 10 + 7 + 2
    same = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12)
    same(found.metrics["error"].value, whole.metrics["error"].value)
    jax.tree.map(same, found.carry, whole.carry)


@pytest.mark.usefixtures("x64")
def test_blocks_weigh_by_their_steps_unless_a_metric_is_named():
    """The weight is what makes ragged windows one mean: without it the last ones count too much."""
    cell, batch = CELLS["lstm"], ragged_lanes()
    loss, params = loss_of(cell), cell.init(jax.random.key(0), 2)
    carry = cell.initial_state(params, (LANES,))
    pieces = [jax.tree.map(lambda a, s=s: a[s : s + 5], batch) for s in (0, 5)]
    first = sj.bptt(loss)(params, carry, pieces[0], None)
    second = sj.bptt(loss)(params, first.carry, pieces[1], None)
    counts = 5 + 5 + 2, 5 + 2
    for weight, (a, b) in ((None, (0.5, 0.5)), ("error", (counts[0] / 19, counts[1] / 19))):
        gradient = sj.tbptt(5, 5, weight=weight)(loss)
        found = jax.jit(gradient)(params, carry, batch, None)
        expected = jax.tree.map(lambda g, h, a=a, b=b: a * g + b * h, first.grads, second.grads)
        chex.assert_trees_all_close(found.grads, expected, rtol=1e-12, atol=1e-15)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("losses", ["new", "window"])
def test_a_block_that_is_run_again_has_the_noise_that_it_had(losses):
    """Windows of two blocks, each block with its own key, written as one function of the params."""
    cell = CELLS["stack with noise"]
    loss, params, batch = loss_of(cell), cell.init(jax.random.key(0), 2), ragged_lanes()
    carry = cell.initial_state(params, (LANES,), key=jax.random.key(5))
    key = jax.random.key(9)
    method = sj.tbptt(5, 10, losses=losses, weight="error")
    found = jax.jit(method(loss))(params, carry, batch, key)
    keys = jax.random.split(key, 3)  # one for each block, and one for what is left over
    pieces = [jax.tree.map(lambda a, s=s: a[s : s + 5], batch) for s in (0, 5)]

    def objective(params):
        first, (middle, seen) = loss(params, carry, pieces[0], keys[0])
        second, (_, also) = loss(params, middle, pieces[1], keys[1])
        a, b = seen["error"].count, also["error"].count
        times = 1 if losses == "new" else 2  # the first block is in both windows
        return (times * a * first + b * second) / (times * a + b)

    expected = jax.grad(objective)(params)
    chex.assert_trees_all_close(found.grads, expected, rtol=1e-10, atol=1e-14)


@pytest.mark.usefixtures("x64")
def test_a_language_model_that_reaches_the_beginning_has_the_gradient_of_bptt():
    model = sj.models.LanguageModel(6, sj.Dropout(sj.LSTM(3, **DOUBLE), 0.4), 2, **DOUBLE)
    params = model.init(jax.random.key(0))
    batch = sj.data.lanes(np.arange(31) ** 2 % 6, 4)  # 30 pairs in 4 lanes of 8: 2 of padding
    batch.resets[3, 1] = True
    carry = model.initial_state(params, (4,), key=jax.random.key(1))
    arguments = params, carry, batch, None
    whole = jax.jit(sj.bptt(model.loss))(*arguments)
    found = jax.jit(sj.tbptt(3, 8, weight="nats")(model.loss))(*arguments)
    chex.assert_trees_all_close(found.grads, whole.grads, rtol=1e-10, atol=1e-14)
    assert float(found.metrics["nats"].count) == 30


def test_with_a_key_a_language_model_trains_by_windows_that_reach_back():
    model = sj.models.LanguageModel(6, sj.Dropout(sj.LSTM(3), 0.4), 2, dropout=0.3)
    params = model.init(jax.random.key(0))
    optimizer = optax.adam(0.03)
    batches = sj.data.Windows(sj.data.lanes(np.arange(91) % 6, 4), 4, windows_per_batch=3)
    carry = model.initial_state(params, (4,), key=jax.random.key(1))
    state = TrainState.create(params, optimizer, jax.random.key(2), carry)
    # A pass of 23 steps ends with a batch of 11, shorter than k2.
    method = sj.tbptt(4, 12, losses="window", weight="nats", short_batches=True)
    result = fit(model.loss, optimizer, state, batches, steps=24, method=method, display=False)
    losses = [record["train/nats"] for record in result.records]
    assert int(optax.tree_utils.tree_get(result.state.opt_state, "count")) == 24 * 3
    assert losses[0] > 1.4  # ln 6 = 1.79 is the loss of knowing nothing
    assert losses[-1] < 0.8 * losses[0]


def test_accumulated_windows_are_a_method_of_fit_with_one_update_a_batch():
    cell = sj.GRU(3)
    params = cell.init(jax.random.key(0), 2)
    xs = jax.random.normal(jax.random.key(1), (10, 4, 2))

    def loss(params, carry, batch, key):
        state, ys = sj.unroll(cell, params, batch, carry)
        size = mean_over(ys**2)
        return size.value, (state, {"size": size})

    optimizer, carry = optax.adam(1e-2), cell.initial_state(params, (4,))
    state = TrainState.create(params, optimizer, jax.random.key(0), carry)
    method = sj.tbptt(4, 10, accumulate=True)
    result = fit(loss, optimizer, state, [xs], steps=2, method=method, display=False)
    update = jax.jit(sj.bptt.update(loss, optimizer))
    expected = (params, optimizer.init(params), carry)
    for _ in range(2):
        expected = update(*expected, xs, None)[:3]
    chex.assert_trees_all_close(result.state.params, expected[0], rtol=1e-4, atol=1e-6)
    assert result.records[-1]["tokens"] == 2 * 10 * 4 * 3


def test_a_carry_may_hold_counters_flags_and_keys():
    """They are carried and put into the ring as they are; only what is floating is differentiated."""

    def loss(params, carry, batch, key):
        noise = jax.random.normal(jax.random.fold_in(carry["key"], carry["count"]), ())
        h = jnp.where(carry["flag"], jnp.tanh(params * carry["h"] + jnp.sum(batch) + noise), 0.0)
        after = {"h": h, "count": carry["count"] + 1, "flag": carry["flag"], "key": carry["key"]}
        return h**2, (after, {})

    carry = {"h": jnp.array(0.5), "count": jnp.array(0), "flag": jnp.array(True)}
    carry["key"] = jax.random.key(3)
    batch = jnp.linspace(-1, 1, 6)
    found = jax.jit(sj.tbptt(2, 6)(loss))(jnp.array(0.7), carry, batch, None)

    def whole(params):
        state, total = carry, 0.0
        for begin in (0, 2, 4):
            value, (state, _) = loss(params, state, batch[begin : begin + 2], None)
            total += value / 3
        return total, state

    (_, after), grads = jax.value_and_grad(whole, has_aux=True)(jnp.array(0.7))
    assert float(found.grads) == pytest.approx(float(grads), rel=1e-5)
    assert int(found.carry["count"]) == 3
    assert bool(found.carry["flag"])
    assert jnp.array_equal(
        jax.random.key_data(found.carry["key"]), jax.random.key_data(after["key"])
    )


@pytest.mark.parametrize("losses", ["new", "window"])
def test_without_a_carry_nothing_reaches_back_and_only_losses_add_up(losses):
    def loss(params, carry, batch, key):
        return jnp.mean(params * batch), (carry, {})

    optimizer = optax.sgd(1.0)
    update = jax.jit(sj.tbptt(2, 4, losses=losses).update(loss, optimizer))
    result = update(jnp.array(0.0), optimizer.init(jnp.array(0.0)), None, jnp.arange(6.0), None)
    means = {"new": [0.5, 2.5, 4.5], "window": [0.5, 1.5, 3.5]}[losses]
    assert float(result.params) == pytest.approx(-sum(means), rel=1e-6)


def test_no_block_is_run_that_is_not_reached():
    """Four windows of one block each, which reach up to two further back: 0 + 1 + 2 + 2 of these."""
    runs = []

    def loss(params, carry, batch, key):
        jax.debug.callback(lambda first: runs.append(float(first)), batch[0])
        return params * jnp.mean(batch), (carry + params, {})

    batch = jnp.arange(8.0)
    gradient = jax.jit(sj.tbptt(2, 6)(loss))
    jax.block_until_ready(gradient(jnp.array(1.0), jnp.array(0.0), batch, None))
    jax.effects_barrier()
    assert sorted(runs) == sorted([0, 2, 4, 6, 0, 2, 0, 4, 2])


def test_what_lies_before_the_beginning_leaves_no_nan():
    """A block that is run from the carry of another is NaN here: log(1 - (where - there)²)."""

    def loss(params, carry, batch, key):
        where, h = carry
        astray = jnp.log(1 - (where - batch[0]) ** 2)
        h = jnp.tanh(params * h + 0.5) + params * astray
        return h, ((where + 1, h), {})

    arguments = jnp.array(0.9), (jnp.array(0.0), jnp.array(1.0)), jnp.arange(4.0), None
    found = jax.jit(sj.tbptt(1, 4)(loss))(*arguments)

    def whole(params):
        carry, total = arguments[1], 0.0
        for t in range(4):
            value, (carry, _) = loss(params, carry, jnp.array([float(t)]), None)
            total += value / 4
        return total

    assert float(found.grads) == pytest.approx(float(jax.grad(whole)(arguments[0])), rel=1e-6)


@pytest.mark.usefixtures("x64")
def test_a_batch_without_a_valid_step_has_gradient_0():
    cell, batch = CELLS["lstm"], ragged_lanes()
    params = cell.init(jax.random.key(0), 2)
    nothing = batch._replace(mask=jnp.zeros_like(batch.mask))
    gradient = jax.jit(sj.tbptt(4, 10, losses="window", weight="error")(loss_of(cell)))
    found = gradient(params, cell.initial_state(params, (LANES,)), nothing, None)
    chex.assert_trees_all_equal(found.grads, jax.tree.map(jnp.zeros_like, params))


def operations(method, time):
    """How many operations the program of an update is made of."""
    loss = lambda params, carry, batch, key: (
        jnp.mean(params * (carry + batch)),
        (jnp.tanh(params * carry), {"mean": Mean(jnp.mean(batch), jnp.array(1.0))}),
    )
    optimizer = optax.sgd(0.1)
    arguments = jnp.array(1.0), optimizer.init(jnp.array(1.0)), jnp.array(0.0), jnp.ones(time), None
    return str(jax.make_jaxpr(method.update(loss, optimizer))(*arguments)).count(" = ")


def test_the_program_does_not_grow_with_time_nor_with_reach():
    for kind in (sj.tbptt, functools.partial(sj.tbptt, accumulate=True)):
        assert operations(kind(2, 6), 12) == operations(kind(2, 6), 240)
        assert operations(kind(2, 6), 240) == operations(kind(2, 40), 240)
        assert operations(kind(2, 7), 12) == operations(kind(2, 41), 240)
        # Without reach there is no ring and nothing to go back through.
        assert operations(kind(2), 12) < operations(kind(2, 6), 12)


def test_a_second_call_never_traces_again_and_metrics_have_an_entry_for_each_window():
    def loss(params, carry, batch, key):
        drawn = mean_over(jax.random.normal(key)[None])
        each = Mean(jnp.ones(4), jnp.ones(4))
        return params * 1.0, (carry, {"each": each, "drawn": drawn})

    sgd, params = optax.sgd(0.1), jnp.array(1.0)
    update = jax.jit(chex.assert_max_traces(sj.tbptt(3).update(loss, sgd), n=3))
    for time, windows in ((6, 2), (7, 3), (2, 1), (7, 3)):
        batch = jnp.zeros((time, 1))
        result = update(params, sgd.init(params), None, batch, jax.random.key(0))
        assert jnp.shape(result.metrics["each"].total) == (windows, 4)
        # Each window has a key of its own.
        assert len(set(np.asarray(result.metrics["drawn"].value).tolist())) == windows
