"""One device and two give the same; the two are in a process of their own."""

import functools
import re
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

import seqjax as sj
from seqjax.data import Batch, Padded
from seqjax.losses import Mean, mean_over
from seqjax.training import TrainState, devices, fit, sharded, use_cores
from seqjax.training.devices import SHARDS, specs_of
from seqjax.training.sharded import Sharded, ShardedUpdate, gather, place

pytestmark = pytest.mark.usefixtures("quick_compilation", "standard_promotion")

ROWS, TIME, KEY = 6, 7, 3


def language_model():
    double: Any = {
        "param_dtype": jnp.float64 if jax.config.values["jax_enable_x64"] else jnp.float32
    }
    model = sj.models.LanguageModel(5, sj.Elman(3, **double), 2, **double)
    return model, model.init(jax.random.key(0))


def ragged(seed=0):
    """Windows in which the first half of the lanes has most of the valid tokens, and some resets."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, 5, (2, TIME, ROWS)).astype(np.int32)
    mask = rng.random((TIME, ROWS)) < np.where(np.arange(ROWS) < ROWS // 2, 0.9, 0.3)
    return Batch(tokens[0], tokens[1], mask, rng.random((TIME, ROWS)) < 0.1)


def compiled(update):
    return update if isinstance(update, ShardedUpdate) else jax.jit(update)


def updated(method, loss, params, carry, batches):
    """All that updates give, one after another, each from the carry of the one before."""
    optimizer = optax.chain(optax.clip_by_global_norm(0.5), optax.sgd(0.3, momentum=0.9))
    update = compiled(sharded(method).update(loss, optimizer))
    found, opt_state = [], optimizer.init(params)
    for n, batch in enumerate(batches):
        result = update(params, opt_state, carry, batch, jax.random.key(n))
        params, opt_state, carry, _ = result
        found.append(result)
    return found


def windowed():
    """Truncated gradients that weigh windows by their tokens, with a carry."""
    model, params = language_model()
    carry = model.initial_state(params, (ROWS,))
    method = sj.tbptt(2, 5, losses="window", weight="nats", accumulate=True)
    return updated(method, model.loss, params, carry, [ragged(0), ragged(1)])


def classified():
    """Sequences of unequal length; of the second half one row is real."""
    double: Any = {"param_dtype": jnp.float64}
    inputs, cell = sj.models.Tokens(5, 2, **double), sj.LSTM(3, **double)
    model = sj.models.Classifier(inputs, cell, 4, **double)
    rng = np.random.default_rng(0)
    batch = Padded(
        rng.integers(0, 5, (TIME, ROWS)).astype(np.int32),
        rng.integers(0, 4, ROWS).astype(np.int32),
        np.array([7, 2, 5, 4, 0, 0], np.int32),
        None,
        np.arange(ROWS) < 4,
    )
    params = model.init(jax.random.key(0))
    return updated(sj.bptt, model.loss, params, None, [batch])


def nothing_real():
    """First one half of the lanes without a valid token, then all of them; the norm of params counts."""

    def loss(params, carry, batch, key):
        values, mask = batch
        error = mean_over((values - params) ** 2, mask)
        return error.value + params**2, (carry, {"error": error})

    values, half = np.arange(12.0).reshape(2, ROWS), np.arange(ROWS) < ROWS // 2
    masks = [np.stack([half, half]), np.zeros((2, ROWS), bool)]
    batches = [(values, mask) for mask in masks]
    return updated(sj.bptt, loss, jnp.array(2.0), None, batches)


def by_hand():
    """Rows first, something that all share, a loss that is a mean over rows and not over tokens."""

    def loss(params, carry, batch, key):
        rows, real, scale = batch["rows"], batch["real"], batch["scale"]
        error = mean_over(jnp.mean((rows - params * scale) ** 2, axis=1), real)
        return error.value, (
            carry,
            {
                "error": error,
                "tokens": Mean(jnp.sum(rows**2), float(rows.size)),
                "scalar": error.value,
            },
        )

    method = sharded(sj.bptt, weight="error", batch_axes={"rows": 0, "real": 0, "scale": None})
    batch = {
        "rows": np.arange(24.0).reshape(ROWS, 4),
        "real": np.arange(ROWS) < 4,
        "scale": np.arange(4.0),
    }
    optimizer, params = optax.sgd(0.1), jnp.ones(())
    return compiled(method.update(loss, optimizer))(
        params, optimizer.init(params), None, batch, None
    )


def fitted():
    """A whole short run, with its log, its evaluations and the state that they see."""
    model, params = language_model()
    optimizer = optax.chain(optax.clip_by_global_norm(0.5), optax.sgd(0.3, momentum=0.9))
    carry = model.initial_state(params, (ROWS,))
    state = TrainState.create(params, optimizer, jax.random.key(KEY), carry)
    lanes = sj.data.lanes(np.random.default_rng(0).integers(0, 5, 200), ROWS)
    seen = []
    result = fit(
        model.loss,
        optimizer,
        state,
        sj.data.Windows(lanes, 8, restart=0.2),
        steps=7,
        method=sj.tbptt(5),
        evaluate=lambda params: {"nats": float(params.readout.bias[1])},
        evaluate_every=3,
        on_evaluation=lambda state: seen.append(jax.tree.map(np.array, state.carry)),
        log_every=2,
        display=False,
    )
    records = [{k: v for k, v in r.items() if k != "seconds"} for r in result.records]
    return result.state._replace(key=None), records, seen


def looped():
    """An own loop that never waits for anything."""
    loss = lambda params, carry, batch, key: (
        (error := mean_over((batch - params) ** 2)).value,
        (carry, {"error": error}),
    )
    optimizer, params = optax.sgd(0.01), jnp.zeros(())
    update = compiled(sharded(sj.bptt).update(loss, optimizer))
    for _ in range(200):
        params = update(params, optimizer.init(params), None, np.ones((1, 2)), None).params
    return params


def gradients():
    """The gradient with fixed params, and no update."""
    model, params = language_model()
    arguments = params, model.initial_state(params, (ROWS,)), ragged(), None
    methods = [sharded(method) for method in (sj.bptt, sj.tbptt(2, 4, weight="nats"))]
    run = lambda m: m(model.loss) if isinstance(m, Sharded) else jax.jit(m(model.loss))
    return [run(method)(*arguments) for method in methods]


CASES = {
    "gradients": gradients,
    "accumulated TBPTT": windowed,
    "lengths": classified,
    "nothing real": nothing_real,
    "axes by hand": by_hand,
    "fit": fitted,
    "a loop": looped,
}


def all_reduces():
    """How many a compiled update has, of a loss with four params and two metrics."""

    def loss(params, carry, batch, key):
        (a, b, c, d), (values, mask) = params, batch
        error = mean_over((a * values + b) ** 2 * c + d, mask)
        return error.value, (carry, {"error": error, "size": mean_over(jnp.abs(values), mask)})

    optimizer, params = optax.sgd(0.1), (jnp.zeros(()),) * 4
    update = sharded(sj.bptt).update(loss, optimizer)
    assert isinstance(update, ShardedUpdate)
    batch = jnp.ones((3, 2)), jnp.ones((3, 2), bool)
    arguments = params, optimizer.init(params), None, batch, None
    text = str(jax.jit(update.traced).lower(*arguments).compile().as_text())
    return len(re.findall(r" all-reduce(-start)?\(", text))


def noisy():
    """Noise of each device, added up."""

    def loss(params, carry, batch, key):
        return params * 0.0, (carry, {"drawn": Mean(jax.random.normal(key), 1.0)})

    optimizer, params = optax.sgd(0.1), jnp.zeros(())
    update = sharded(sj.bptt).update(loss, optimizer)
    state = optimizer.init(params)
    return update(params, state, None, jnp.ones((1, 2)), jax.random.key(KEY)).metrics["drawn"]


CHILD = """
import jax, sys
import seqjax as sj
assert sj.training.use_cores(2, batch=6) == 2
jax.config.update("jax_enable_x64", True)
import numpy as np
from tests.training.test_sharded import CASES, all_reduces, noisy
assert jax.local_device_count() == 2
count = all_reduces()
jax.config.update("jax_disable_most_optimizations", True)
found = {name: jax.tree.leaves(case()) for name, case in {**CASES, "noise": noisy}.items()}
found["all-reduces"] = [count]
np.savez(sys.argv[1], **{f"{k}/{n}": leaf for k, v in found.items() for n, leaf in enumerate(v)})
"""


@pytest.fixture(scope="module")
def on_two(tmp_path_factory):
    """The leaves of all cases, from a process with two devices."""
    file = tmp_path_factory.mktemp("sharded") / "leaves.npz"
    command = [sys.executable, "-c", CHILD, str(file)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert ended.returncode == 0, ended.stderr[-2000:]
    leaves: dict[str, list[Any]] = {}
    with np.load(file) as loaded:
        for path in loaded.files:
            leaves.setdefault(path.split("/")[0], []).append(loaded[path])
    return leaves


@pytest.mark.parametrize("name", CASES)
@pytest.mark.usefixtures("x64")
def test_two_devices_give_what_one_gives(name, on_two):
    here = [np.asarray(leaf) for leaf in jax.tree.leaves(CASES[name]())]
    assert len(here) == len(on_two[name])
    for one, two in zip(here, on_two[name], strict=True):
        # Sums of the two halves in another order: a few units in the last of 16 digits, seven steps on.
        np.testing.assert_allclose(two, one, rtol=1e-11, atol=1e-13)
        assert one.dtype == two.dtype


@pytest.mark.usefixtures("x64")
def test_each_device_draws_from_a_key_of_its_own(on_two):
    keys = [jax.random.fold_in(jax.random.key(KEY), n) for n in range(2)]
    expected = sum(float(jax.random.normal(key)) for key in keys)
    total, count = on_two["noise"]
    np.testing.assert_allclose(total, [expected], rtol=1e-12)
    assert count == [2.0]


def on_one_device(weight=None):
    """The machinery for many devices, over one."""
    return Sharded(sj.bptt, weight, "auto", Mesh(np.array(jax.devices()[:1]), (SHARDS,)))


def mean_loss(params, carry, batch, key):
    error = mean_over((batch - params) ** 2)
    return error.value, (carry, {"error": error})


def test_with_one_device_the_method_is_itself():
    method = sj.tbptt(4)
    assert sharded(method) is method


def test_an_update_adds_over_devices_at_most_three_times(on_two):
    """Counts, gradients, totals: no more than one all-reduce each, however many leaves there are."""
    assert 0 < on_two["all-reduces"][0] <= 3


def test_a_state_goes_to_the_devices_and_comes_back_but_not_inside_another_program():
    optimizer = optax.sgd(0.1)
    state = TrainState.create(jnp.zeros(()), optimizer, jax.random.key(0), jnp.ones((2, 4)))
    update = on_one_device().update(mean_loss, optimizer)
    there = place(update, state)
    assert there.carry.sharding.spec == P(SHARDS)
    assert there.params.sharding.spec == P()
    assert gather(update, there).carry.sharding.device_set == {jax.devices()[0]}
    arguments = *state[:3], jnp.ones((3, 2)), None
    assert float(update(*arguments).params) == pytest.approx(0.2)
    with pytest.raises(ValueError, match=r"inside another compiled .* without jax\.jit"):
        jax.jit(update)(*arguments)


def shapes(**leaves):
    return {name: np.zeros(shape) for name, shape in leaves.items()}


def test_the_batch_axis_is_the_second_one_or_the_only_one():
    found = specs_of(shapes(a=(7, 4), b=(4,), c=(), d=(9, 4, 2)), shapes(h=(4, 3)), "auto", 2)
    assert found == {"a": P(None, SHARDS), "b": P(SHARDS), "c": P(), "d": P(None, SHARDS)}
    padded_of: Any = Padded
    padded = Padded(np.zeros((4, 3)), np.zeros((7, 4)), None, np.zeros(4), np.zeros(4))
    found = specs_of(padded, None, padded_of(0, 1, None, 0, None), 4)
    assert found == padded_of(P(SHARDS), P(None, SHARDS), None, P(SHARDS), P())
    assert specs_of(shapes(a=(4, 7), b=(4,)), None, 0, 2) == {"a": P(SHARDS), "b": P(SHARDS)}


def test_a_batch_that_devices_cannot_share_is_an_error():
    nothing = "batch holds nothing that devices can share"
    cases: list[Any] = [
        (shapes(a=(7, 33)), None, "auto", r"multiple of 4, or 3 devices, as use_cores\(batch=33\)"),
        (shapes(a=(7, 31)), None, "auto", "31 sequences, .* a multiple of 4, or 1 device, as"),
        (
            shapes(a=(7, 4), b=(4, 3)),
            None,
            "auto",
            r"batch\['a'\] has 4 sequences \(axis 1 of \(7, 4\)\) but batch\['b'\] has 3 \(axis 1 of "
            r"\(4, 3\)\); expected as many in all",
        ),
        (shapes(a=(7, 4)), shapes(h=(8, 3)), "auto", r"but carry\['h'\] has 8 \(axis 0"),
        (
            shapes(a=(7, 4)),
            shapes(n=()),
            "auto",
            r"carry\['n'\] has shape \(\) .* \[batch, \.\.\.\]",
        ),
        (
            shapes(a=(4,)),
            None,
            1,
            r"batch\['a'\] has shape \(4,\) and no axis 1; expected .* an array",
        ),
        (shapes(a=()), None, "auto", nothing),
        (shapes(a=(4, 4)), None, None, nothing),
        (shapes(a=(4, 4)), None, {"b": 0}, "batch_axes is {'b': 0}, which does not fit the batch"),
        (shapes(a=(4, 4)), None, -1.5, r"batch_axes holds -1\.5; expected axes from 0, None for"),
    ]
    for batch, carry, axes, message in cases:
        with pytest.raises(ValueError, match=message):
            specs_of(batch, carry, axes, 4)


def test_a_loss_that_does_not_say_how_much_it_counts_is_an_error():
    unknown = r"weight is None, and the loss reports one count for \[\]; .* means .* would be wrong"
    cases: list[Any] = [
        ({}, None, unknown),
        ({"columns": Mean(jnp.ones(2), jnp.ones(2))}, None, unknown),
        ({"accuracy": 0.5}, None, unknown),
        (
            {"nats": Mean(1.0, 1.0)},
            "tokens",
            r"weight is 'tokens', and the loss reports one count for \['nats'\]",
        ),
    ]
    for metrics, weight, message in cases:
        loss = lambda params, carry, batch, key, m=metrics: (params * 1.0, (carry, m))
        update = on_one_device(weight).update(loss, optax.sgd(0.1))
        with pytest.raises(ValueError, match=message):
            update(jnp.zeros(()), optax.sgd(0.1).init(0.0), None, jnp.ones((3, 2)), None)


@pytest.mark.usefixtures("unchecked")
def test_methods_that_cannot_be_shared_are_an_error():
    wrong: Any = "tbptt"
    for method, message in (
        (sj.rtrl(sj.DiagonalLSTM(2)), r"method is RTRL\(.*, whose step_loss does not say"),
        (wrong, "method: expected a sj.gradients.Method, .* got 'tbptt'"),
    ):
        with pytest.raises(ValueError, match=f"sharded: {message}"):
            sharded(method)


def test_cores_are_asked_for_before_jax_starts():
    jax.devices()
    assert use_cores(1) == 1
    assert not devices.in_use()
    with pytest.raises(RuntimeError, match=r"started with 1 CPU device; expected 3: call"):
        use_cores(3)
    assert not devices.in_use()
    assert use_cores(4, batch=31) == 1
    for name in ("count", "batch"):
        with pytest.raises(ValueError, match=f"use_cores: {name}: expected a positive integer"):
            functools.partial(use_cores, **{name: 0})()
    assert devices.usable() >= 1
