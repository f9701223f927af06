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

pytestmark = pytest.mark.usefixtures("quick_compilation")

TIME, LANES = 5, 3


class Data:
    """Batches that say where they are."""

    def __init__(self):
        self.position = 0

    def __iter__(self):
        return self

    def __next__(self):
        self.position += 1
        return jax.random.normal(jax.random.key(self.position), (TIME, LANES, 2))

    def get_state(self):
        return {"position": self.position}

    def set_state(self, state):
        self.position = state["position"]


def build(setting):
    """A GRU that is to give back the sum of its inputs; with dropout, so that keys matter."""
    cell = sj.Dropout(sj.GRU(setting.get("features", 4)), rate=0.2)

    def loss(params, carry, batch, key):
        carry, ys = sj.unroll(cell, params, batch, carry, key=key)
        error = sj.losses.mean_over((ys[..., 0] - jnp.cumsum(batch[..., 0], axis=0)) ** 2)
        return error.value, (carry, {"error": error})

    init_key, fit_key = jax.random.split(jax.random.key(setting["seed"]))
    params = jax.tree.map(lambda w: setting["scale"] * w, cell.init(init_key, 2))
    optimizer = sj.optim.clipped_adamw(setting["learning_rate"], clip_norm=setting["clip_norm"])
    carry = cell.initial_state(params, (LANES,), key=fit_key)
    return loss, optimizer, TrainState.create(params, optimizer, fit_key, carry)


SETTINGS = [
    {"learning_rate": rate, "clip_norm": clip, "scale": scale, "seed": seed}
    for rate, clip, scale, seed in [(0.1, 0.5, 1.0, 0), (0.01, 5.0, 0.3, 1), (0.003, 1.0, 2.0, 5)]
]


def alone(setting, steps):
    return fit(*build(setting), Data(), steps=steps, display=False)


@pytest.mark.parametrize("across", ["map", "vmap"])
def test_each_training_is_what_fit_makes_of_its_setting_alone(across):
    settings = [setting | {"features": n} for n in (4, 3) for setting in SETTINGS]
    together = sweep(
        build, settings, Data(), steps=12, static=["features"], across=across, display=False
    )
    assert not together.interrupted
    for index, setting in enumerate(settings):
        single = alone(setting, 12)
        state = together.state(index)
        assert int(state.step) == 12
        chex.assert_trees_all_close(state.params, single.state.params, rtol=2e-5, atol=1e-6)
        chex.assert_trees_all_close(state.carry.cell, single.state.carry.cell, rtol=2e-5, atol=1e-6)
        for name in ("train/error", "train/loss"):
            here = [record[name][index] for record in together.records]
            assert here == pytest.approx([record[name] for record in single.records], rel=1e-5)
    scores = together.last("train/loss")
    assert together.best == np.argmin(scores)
    assert len(set(np.round(scores, 5))) == 6


def test_a_training_that_diverges_leaves_the_others_as_they_are():
    def line(setting):
        loss = lambda params, carry, batch, key: (jnp.sum((params - batch) ** 2), (carry, {}))
        optimizer = optax.sgd(setting["learning_rate"])
        return loss, optimizer, TrainState.create(jnp.zeros(2), optimizer, jax.random.key(0))

    batches = [jnp.array([1.0, 2.0])]
    rates = [0.1, 1e20, 0.2]
    result = sweep(line, grid(learning_rate=rates), batches, steps=9, log_every=1, display=False)
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
    all_lost = sweep(line, grid(learning_rate=[1e20]), batches, steps=9, log_every=1, display=False)
    with pytest.raises(ValueError, match="train/loss is not finite under any of the 1 settings"):
        print(all_lost.best)


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
        return {"distance": known[far.astype(jnp.int32), setting["seed"] - 1], "loss": jnp.ones(())}

    settings = grid(kind=["a", "b"], rate=[0.1, 0.2], seed=[1, 2])
    options = {"steps": 4, "evaluate": evaluate, "evaluate_every": 3, "display": False}
    result = sweep(nothing, settings, [0.0], **options)
    assert result.score == "valid/loss"
    result = sweep(nothing, settings, [0.0], score="valid/distance", **options)
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
    one = sweep(nothing, grid(rate=[0.1, 0.2], seed=[2]), [0.0], score="valid/distance", **options)
    assert one.plot().axes[1].get_xlabel() == "rate"
    with pytest.raises(ValueError, match="expected one of kind, rate, seed, got 'width'"):
        result.plot("width")
    with pytest.raises(ValueError, match=r"no record has 'valid/f1'; expected one of .*valid/loss"):
        result.last("valid/f1")


def test_the_same_call_goes_on_where_it_was_and_the_best_is_restored(tmp_path):
    unbroken = sweep(build, SETTINGS, Data(), steps=11, log_every=4, display=False)
    folder = tmp_path / "sweep"
    options = {"log_every": 4, "directory": folder, "display": False}
    sweep(build, SETTINGS, Data(), steps=6, **options)
    again = sweep(build, SETTINGS, Data(), steps=11, **options)
    for index in range(3):
        chex.assert_trees_all_equal(again.state(index).params, unbroken.state(index).params)
    at_8 = lambda result: next(r["train/error"] for r in result.records if r["step"] == 11)
    assert at_8(again) == pytest.approx(at_8(unbroken))
    best = Checkpoints(folder / "best")
    target = jax.eval_shape(lambda: build(SETTINGS[0])[2])
    state, facts = best.restore(target)
    chex.assert_trees_all_equal(state.params, unbroken.state(unbroken.best).params)
    assert facts["setting"] == SETTINGS[unbroken.best]
    assert (folder / "table.txt").read_text("utf-8") == f"{again}\n"
    assert json.loads((folder / "settings.json").read_text("utf-8")) == SETTINGS
    largest = sweep(build, SETTINGS, Data(), steps=11, score="norm_after", **options)
    assert largest.best != unbroken.best
    _, facts = Checkpoints(folder / "best").restore(target)
    assert facts["setting"] == SETTINGS[largest.best]
    with pytest.raises(ValueError, match=r"holds a sweep over other settings"):
        sweep(build, SETTINGS[:2], Data(), steps=11, **options)


DEVICES = """
import jax, sys
jax.config.update("jax_num_cpu_devices", 2)
import numpy as np
from tests.training.test_sweep import SETTINGS, Data, build
from seqjax.training import sweep
assert jax.local_device_count() == 2
result = sweep(build, SETTINGS, Data(), steps=3, across=sys.argv[1], display=False)
leaves = [leaf for i in range(3) for leaf in jax.tree.leaves(result.state(i).params)]
np.savez(sys.argv[2], *leaves)
"""


@pytest.mark.parametrize("across", ["map", "vmap"])
def test_two_devices_share_an_odd_number_of_trainings(across, tmp_path):
    file = tmp_path / "leaves.npz"
    command = [sys.executable, "-c", DEVICES, across, str(file)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-2000:]
    result = sweep(build, SETTINGS, Data(), steps=3, display=False)
    here = [leaf for i in range(3) for leaf in jax.tree.leaves(result.state(i).params)]
    there = np.load(file)
    for number, leaf in enumerate(here):
        np.testing.assert_allclose(there[f"arr_{number}"], leaf, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "options", "message"),
    [
        ([], {}, r"settings: expected at least one, with a name, got \[\]"),
        ([{}], {}, "expected at least one, with a name"),
        ([{"a": 1}, {"b": 1}], {}, r"settings\[1\] has b; expected a, as settings\[0\] has"),
        (SETTINGS, {"static": ["width"]}, "static: expected some of .*seed, got 'width'"),
        (SETTINGS, {"steps": 0}, "steps: expected a positive integer, got 0"),
        (SETTINGS, {"across": "pmap"}, "across: expected one of 'auto', 'map', 'vmap'"),
        ([SETTINGS[0] | {"features": 4}], {}, "features.* by name in static"),
        ([SETTINGS[0] | {"kind": [1]}], {}, r"values that can be hashed, for kind; got \[\[1\]\]"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_what_cannot_be_swept_is_refused(settings, options, message):
    with pytest.raises(ValueError, match=message):
        sweep(build, settings, Data(), **({"steps": 2, "display": False} | options))


def test_what_never_trained_does_not_bind_the_folder_to_its_settings(tmp_path):
    options = {"steps": 1, "directory": tmp_path, "display": False}
    wrong: Any = lambda setting: (*build(setting)[:2], None)
    with pytest.raises(ValueError, match="the state that build gives: expected a TrainState"):
        sweep(wrong, SETTINGS[:1], Data(), **options)
    assert len(sweep(build, SETTINGS[1:2], Data(), **options).settings) == 1


def test_a_grid_is_every_combination_and_an_axis_without_values_is_refused():
    assert grid(a=[1, 2], b=["x"]) == [{"a": 1, "b": "x"}, {"a": 2, "b": "x"}]
    with pytest.raises(ValueError, match=r"grid: b: expected at least one value, got \[\]"):
        grid(a=[1], b=[])
