import json
import subprocess
import sys
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import seqjax as sj
from seqjax.training import Checkpoints, TrainState, fit, grid, sweep
from tests.training import runs
from tests.training.runs import Data

pytestmark = pytest.mark.usefixtures("quick_compilation")

STEPS = 8
QUIET: Any = {"display": False}


def build(setting):
    """A network that is to give back the sum of its inputs; with dropout, so that keys matter."""
    cell = sj.Dropout(sj.Elman(setting.get("features", 4)), rate=0.2)

    def loss(params, carry, batch, key):
        carry, ys = sj.unroll(cell, params, batch[:, None], carry, key=key)
        error = sj.losses.mean_over((ys[..., 0] - jnp.cumsum(batch[:, :1], axis=0)) ** 2)
        return error.value, (carry, {"error": error})

    init_key, fit_key = jax.random.split(jax.random.key(setting["seed"]))
    params = jax.tree.map(lambda w: setting["scale"] * w, cell.init(init_key, 2))
    optimizer = sj.optim.clipped_adamw(setting["learning_rate"], clip_norm=setting["clip_norm"])
    carry = cell.initial_state(params, (1,), key=fit_key)
    return loss, optimizer, TrainState.create(params, optimizer, fit_key, carry)


NUMBERS = [
    {"learning_rate": rate, "clip_norm": clip, "scale": scale, "seed": seed}
    for rate, clip, scale, seed in [(0.1, 0.5, 1.0, 0), (0.01, 5.0, 0.3, 1), (0.003, 1.0, 2.0, 5)]
]
SETTINGS = [*(setting | {"features": 4} for setting in NUMBERS), NUMBERS[1] | {"features": 3}]
"""An odd number that one program trains, and one by itself."""


def together(across):
    return sweep(build, SETTINGS, Data(), steps=STEPS, static=["features"], across=across, **QUIET)


def trained(result):
    """Params, carries and the log of each training."""
    states = [result.state(index) for index in range(len(SETTINGS))]
    metrics = [[r[n] for r in result.records] for n in ("train/error", "train/loss", "norm_before")]
    return [(state.params, state.carry.cell) for state in states], np.asarray(metrics)[:, 0]


@pytest.fixture(scope="module")
def alone():
    """The same of `fit` for each setting by itself."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        results = [fit(*build(s), Data(), steps=STEPS, **QUIET) for s in SETTINGS]
    names = ("train/error", "train/loss", "norm_before")
    metrics = np.array([[r.records[-1][name] for r in results] for name in names])
    return [(r.state.params, r.state.carry.cell) for r in results], metrics


@pytest.mark.parametrize("across", ["map", "vmap"])
def test_each_training_is_what_fit_makes_of_its_setting_alone(across, alone):
    result = together(across)
    assert not result.interrupted
    assert [int(result.state(index).step) for index in range(4)] == [STEPS] * 4
    chex.assert_trees_all_close(trained(result), alone, rtol=2e-5, atol=1e-6)
    scores = result.last("train/loss")
    assert result.best == np.argmin(scores)
    assert len(set(np.round(scores, 5))) == len(SETTINGS)


DEVICES = """
import jax, sys
jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_disable_most_optimizations", True)
import numpy as np
from tests.training.test_sweep import together, trained
assert jax.local_device_count() == 2
for across in ("map", "vmap"):
    np.savez(f"{sys.argv[1]}/{across}.npz", *jax.tree.leaves(trained(together(across))))
"""


@pytest.mark.full
def test_two_devices_share_an_odd_number_of_trainings(tmp_path, alone):
    command = [sys.executable, "-c", DEVICES, str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-2000:]
    for across in ("map", "vmap"):
        there = list(np.load(tmp_path / f"{across}.npz").values())
        chex.assert_trees_all_close(there, jax.tree.leaves(alone), rtol=2e-5, atol=1e-6)


def test_a_training_that_diverges_leaves_the_others_as_they_are(capsys):
    def line(setting):
        loss = lambda params, carry, batch, key: (jnp.sum((params - batch) ** 2), (carry, {}))
        optimizer = optax.sgd(setting["learning_rate"])
        return loss, optimizer, TrainState.create(jnp.zeros(2), optimizer, jax.random.key(0))

    run = lambda rates: sweep(
        line, grid(learning_rate=rates), [jnp.array([1.0, 2.0])], steps=9, log_every=1
    )
    rates = [0.1, 1e20, 0.2]
    result = run(rates)
    shown = capsys.readouterr().out
    assert "3 trainings, 1 to compile" in shown
    assert "at best, " in shown
    assert "in the middle, 1 of 3 diverged" in shown
    assert np.isfinite(result.scores).tolist() == [True, False, True]
    for index in (0, 2):
        expected = np.array([1.0, 2.0]) * (1 - (1 - 2 * rates[index]) ** 9)
        np.testing.assert_allclose(result.state(index).params, expected, rtol=1e-5)
    assert result.best == 2
    lines = str(result).splitlines()
    assert [line.split()[0] for line in lines] == ["learning_rate", "0.2", "0.1", "1e+20"]
    assert lines[3].endswith("diverged")
    _, curve = result.curve("train/loss")
    np.testing.assert_allclose(curve[:, 0], 5 * 0.64 ** np.arange(9), rtol=1e-5)
    with pytest.raises(ValueError, match="train/loss is not finite under any of the 1 settings"):
        print(run([1e20]).best)


def test_what_is_evaluated_ranks_and_the_best_over_the_others_is_drawn():
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    wanted = {(0.1, 1): 4.0, (0.1, 2): 3.0, (0.2, 1): np.nan, (0.2, 2): np.nan}

    def nothing(setting):
        loss = lambda params, carry, batch, key: (0.0 * jnp.sum(params), (carry, {}))
        optimizer = optax.sgd(0.0)
        return loss, optimizer, TrainState.create(jnp.zeros(2), optimizer, jax.random.key(0))

    def evaluate(setting, params):
        known = jnp.array([[4.0, 3.0], [jnp.nan, jnp.nan]])
        far = setting["rate"] > jnp.float32(0.15)
        distance = known[far.astype(jnp.int32), setting["seed"] - 1]
        return {"distance": distance, "accuracy": jnp.ones(())}

    settings = grid(kind=["a", "b"], rate=[0.1, 0.2], seed=[1, 2])
    options: Any = {"steps": 4, "evaluate": evaluate, "evaluate_every": 3, **QUIET}
    result = sweep(nothing, settings, [0.0], **options)
    assert result.score == "valid/distance"  # the first that evaluate returns
    steps, values = result.curve("valid/distance")
    assert steps.tolist() == [3, 4]
    np.testing.assert_array_equal(values[0], [wanted[s["rate"], s["seed"]] for s in settings])
    names, smallest = result.best_over("rate", "kind")
    assert names == [[0.1, 0.2], ["a", "b"]]
    np.testing.assert_array_equal(smallest, [[3.0, 3.0], [np.nan, np.nan]])
    figure = result.plot("rate", "seed")
    curves, heat, _ = figure.axes
    assert len(curves.lines) == 8
    drawn = heat.images[0].get_array()
    assert np.asarray(drawn.filled(-1)).tolist() == [[4.0, -1.0], [3.0, -1.0]]  # up is the seed
    (crosses,) = heat.lines
    assert sorted(zip(*crosses.get_data(), strict=True)) == [(1, 0), (1, 1)]
    with_loss = options | {"evaluate": lambda *both: evaluate(*both) | {"loss": jnp.ones(())}}
    one = sweep(nothing, grid(rate=[0.1, 0.2], seed=[2]), [0.0], **with_loss)
    assert one.score == "valid/loss"
    assert one.plot().axes[1].get_xlabel() == "rate"
    with pytest.raises(ValueError, match="expected one of kind, rate, seed, got 'width'"):
        result.plot("width")
    with pytest.raises(ValueError, match=r"no record has 'valid/f1'; expected one of .*valid/acc"):
        result.last("valid/f1")


def cheap(setting):
    """The training of `runs`, under a learning rate and a first value."""
    optimizer = sj.optim.clipped_adamw(setting["learning_rate"], clip_norm=0.5)
    return runs.loss, optimizer, runs.begin(optimizer, setting["params"])


CHEAP = grid(learning_rate=[0.1, 0.01], params=[0.0, -1.0])


def test_the_same_call_goes_on_where_it_was_and_the_best_is_restored(tmp_path):
    options = {"log_every": 4, "directory": tmp_path, **QUIET}
    unbroken = sweep(cheap, CHEAP, Data(), steps=11, log_every=4, **QUIET)
    sweep(cheap, CHEAP, Data(), steps=6, **options)
    again = sweep(cheap, CHEAP, Data(), steps=11, **options)
    for index in range(len(CHEAP)):
        chex.assert_trees_all_equal(again.state(index).params, unbroken.state(index).params)
    np.testing.assert_allclose(again.last("train/error"), unbroken.last("train/error"))
    best = lambda: Checkpoints(tmp_path / "best").restore(
        jax.eval_shape(lambda: cheap(CHEAP[0])[2])
    )
    state, facts = best()
    chex.assert_trees_all_equal(state.params, unbroken.state(unbroken.best).params)
    assert facts["setting"] == CHEAP[unbroken.best]
    assert (tmp_path / "table.txt").read_text("utf-8") == f"{again}\n"
    assert json.loads((tmp_path / "settings.json").read_text("utf-8")) == CHEAP
    largest = sweep(cheap, CHEAP, Data(), steps=11, score="norm_after", **options)
    assert largest.best != unbroken.best
    assert best()[1]["setting"] == CHEAP[largest.best]
    with pytest.raises(ValueError, match=r"holds a sweep over other settings"):
        sweep(cheap, CHEAP[:2], Data(), steps=11, **options)


def test_what_never_trained_does_not_bind_the_folder_to_its_settings(tmp_path):
    options = {"steps": 1, "directory": tmp_path, **QUIET}
    wrong: Any = lambda setting: (*cheap(setting)[:2], None)
    with pytest.raises(ValueError, match="the state that build gives: expected a TrainState"):
        sweep(wrong, CHEAP[:1], Data(), **options)
    assert len(sweep(cheap, CHEAP[1:2], Data(), **options).settings) == 1


@pytest.mark.usefixtures("unchecked")
def test_what_cannot_be_swept_is_an_error():
    cases: list[Any] = [
        ([], {}, r"settings: expected at least one, with a name, got \[\]"),
        ([{}], {}, "expected at least one, with a name"),
        ([{"a": 1}, {"b": 1}], {}, r"settings\[1\] has b; expected a, as settings\[0\] has"),
        (NUMBERS, {"static": ["width"]}, "static: expected some of .*seed, got 'width'"),
        (NUMBERS, {"steps": 0}, "steps: expected a positive integer, got 0"),
        (NUMBERS, {"across": "pmap"}, "across: expected one of 'auto', 'map', 'vmap'"),
        (SETTINGS[:1], {}, "features.* by name in static"),
        ([NUMBERS[0] | {"kind": [1]}], {}, r"values that can be hashed, for kind; got \[\[1\]\]"),
    ]
    for settings, options, message in cases:
        with pytest.raises(ValueError, match=message):
            sweep(build, settings, Data(), **({"steps": 2, **QUIET} | options))
    assert grid(a=[1, 2], b=["x"]) == [{"a": 1, "b": "x"}, {"a": 2, "b": "x"}]
    with pytest.raises(ValueError, match=r"grid: b: expected at least one value, got \[\]"):
        grid(a=[1], b=[])
