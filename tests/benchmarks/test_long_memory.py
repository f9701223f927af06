import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import seqjax as sj
from benchmarks import long_memory, long_memory_report, long_memory_run, long_memory_trainings
from benchmarks.files import write_whole
from benchmarks.long_memory_recipe import CELLS, TASKS, Recipe, Run
from benchmarks.processes import ROOT, Line, MeasurementError, Watched, watch

pytest.importorskip("matplotlib", reason="matplotlib is not installed")


def run(cell: str, task: str, length: int, rate: float, value: float | None, **more: Any) -> dict:
    """The result of a training that never was."""
    solved = "updates_needed" in more
    return {
        **Run(cell, task, length, 0, rate)._asdict(),
        "solved": solved,
        "updates_needed": None,
        "value": value,
        "updates": 3000,
        "seconds": 1800.0,
        "compile_seconds": 0.0,
        "parameters": 8417,
        "clip_rate": 0.1,
        "skipped": 0,
        "curve": [0.1, value],
        "processes": 2,
        **more,
    }


def made_up() -> dict:
    """Results that no machine has measured."""
    return {
        "benchmark": "long_memory",
        "made": "2026-01-31",
        "machine": {
            "processor": "Abacus 9000",
            "cores": 8,
            "cores_usable": 2,
            "system": "Linux x86_64",
            "load_average": 0.25,
            "environment": {},
        },
        "versions": {"jax": "0.10.2"},
        "recipe": dataclasses.asdict(Recipe()),
        "runs": [
            run("LSTM", "adding", 100, 3e-3, 0.004, updates_needed=1234),
            run("LSTM", "adding", 200, 3e-3, 0.1234),
            run("LSTM", "adding", 200, 5e-4, 0.15),
            run("IRNN", "adding", 100, 3e-3, None),
            run("GRU", "parity", 100, 3e-3, 0.25),
            run("GRU", "copy", 100, 3e-3, 0.1),
        ],
    }


def keep(results: dict, into: Path) -> Path:
    file = into / "benchmarks" / "results" / "long_memory.json"
    write_whole(file, json.dumps(results))
    return file


@pytest.mark.full
@pytest.mark.usefixtures("standard_promotion", "quick_compilation")
@pytest.mark.parametrize("task", ["copy", "parity"])  # adding: from end to end, below
def test_a_tiny_training_gives_its_numbers(task):
    recipe = Recipe(features=8, batch=4, updates=5, evaluate_every=2, tested=4)
    result = long_memory_run.train(Run("GRU", task, 6, 0, 1e-3), recipe)
    assert (result["solved"], result["updates_needed"], result["updates"]) == (False, None, 6)
    # Three evaluations, since the last two updates come together.
    assert len(result["curve"]) == 3
    # Hardly moved by six updates: within a factor of the value without memory.
    assert result["value"] < 10 * TASKS[task].baseline(6)
    gru = 3 * (8 * 8 + 8 * 8 + 8) + 8
    inputs, outputs = TASKS[task].in_features, TASKS[task].out_features
    assert result["parameters"] == 8 * inputs + gru + (8 + 1) * outputs


@pytest.mark.parametrize(
    ("values", "finals", "solved", "needed"),
    [
        # Twice below 0.01 in a row, and so is the final test.
        ([0.1, 0.005, 0.02, 0.004, 0.006, 0.1], [0.007], True, 8),
        # The final test, on more sequences, is not: training goes on.
        ([0.005, 0.006, 0.004, 0.1], [0.02, 0.007], True, 4),
        ([0.005, 0.02, 0.005, 0.02, 0.005, 0.02], [], False, None),
        # Only the very last one is, and no update is left to confirm it.
        ([0.1, 0.1, 0.1, 0.1, 0.1, 0.005], [0.006], True, 12),
        ([0.005, math.nan, 0.005, math.nan, 0.005, 0.1], [], False, None),
    ],
)
def test_solved_is_two_evaluations_in_a_row_and_the_final_test(
    monkeypatch, values, finals, solved, needed
):
    shown, tested = iter(values), iter([*finals, *[0.5] * 2])
    program = stand_in(lambda params, key: next(shown))
    monkeypatch.setattr(long_memory_run, "compiled", lambda *_: program)
    monkeypatch.setattr(long_memory_run, "final_value", lambda *_: next(tested))
    recipe = Recipe(updates=12, evaluate_every=2)
    result = long_memory_run.train(Run("GRU", "adding", 6, 0, 1e-3), recipe)
    assert (result["solved"], result["updates_needed"]) == (solved, needed)
    assert result["updates"] == (min(needed + 2, 12) if needed else 12)


def stand_in(test: Any) -> long_memory_run.Program:
    """A program that trains nothing."""
    none = long_memory_run.Params(*jnp.zeros((4, 0)))
    state = sj.optim.clipped_adamw(1e-3).init(none)
    return long_memory_run.Program(lambda params, state, key: (params, state), test, none, state)


def test_a_training_whose_weights_overflow_ends_and_has_no_value(monkeypatch):
    values = iter([0.1, math.nan, 0.3, math.inf, math.nan, *[math.nan] * 8])
    program = stand_in(lambda params, key: next(values))
    monkeypatch.setattr(long_memory_run, "compiled", lambda *_: program)
    result = long_memory_run.train(Run("GRU", "adding", 6, 0, 1e-3), Recipe(evaluate_every=2))
    assert (result["solved"], result["updates"], result["value"]) == (False, 10, None)
    assert json.loads(json.dumps(result, allow_nan=False))["curve"] == [0.1, None, 0.3, None, None]


@pytest.mark.parametrize(
    ("late", "updates"),
    [
        (0.17, 24),  # no better than 1/6, given up at once when it may be
        (0.15, 30),  # 10 % better from its 13th evaluation on: goes on to the last
    ],
)
def test_a_training_that_has_learned_nothing_is_given_up(monkeypatch, late, updates):
    values = iter([0.17] * 5 + [late] * 10 + [late] * 8)
    program = stand_in(lambda params, key: next(values))
    monkeypatch.setattr(long_memory_run, "compiled", lambda *_: program)
    monkeypatch.setitem(TASKS, "adding", TASKS["adding"]._replace(patience=23))
    recipe = Recipe(updates=30, evaluate_every=2)
    result = long_memory_run.train(Run("GRU", "adding", 6, 0, 1e-3), recipe)
    assert (result["solved"], result["updates"]) == (False, updates)


@pytest.mark.usefixtures("standard_promotion", "quick_compilation")
def test_a_tiny_benchmark_from_end_to_end(tmp_path, monkeypatch, capsys):
    def watch(arguments: list[str], echo: Any) -> Watched:
        asked = json.loads(arguments[-1])
        recipe = Recipe(**asked["recipe"])
        result = long_memory_run.train(Run(*asked["run"]), recipe, echo)
        return Watched(0.0, [Line(0.0, json.dumps(result))])

    # In this process, not in a fresh one.
    monkeypatch.setattr(long_memory_trainings, "watch", watch)
    tiny = ["--features", "8", "--batch", "4", "--updates", "4", "--evaluate-every", "2"]
    asked = ["--cells", "GRU", "--tasks", "adding", "--lengths", "6", "--learning-rates", "1e-3"]
    long_memory.main([*tiny, "--tested", "4", *asked, "--into", str(tmp_path)])
    file = tmp_path / "benchmarks" / "results" / "long_memory.json"
    results = json.loads(file.read_text("utf-8"))
    (only,) = results["runs"]
    assert Run(*(only[name] for name in Run._fields)) == Run("GRU", "adding", 6, 0, 1e-3)
    assert len(only["curve"]) == 2
    page = (tmp_path / "docs" / "long_memory.md").read_text("utf-8")
    assert page == long_memory_report.document(results)
    assert "**Not the default recipe**: features 8 instead of 32" in page
    assert f"{only['value']:.4f}" in page
    assert file.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert "1/1 GRU, adding 6, rate 0.001: not solved, value" in capsys.readouterr().out
    for private in (str(tmp_path), str(ROOT)):
        assert private not in file.read_text("utf-8") + page


def pretend(monkeypatch: pytest.MonkeyPatch, outcome: Any) -> list[Run]:
    """Trainings that take no time: `outcome(run)` says whether it is solved; gives what was asked."""
    asked = []

    def train(wanted: Run, *_: Any) -> dict:
        asked.append(wanted)
        needed = {"updates_needed": 100} if outcome(wanted) else {}
        return {**run(*wanted[:3], wanted.learning_rate, 0.1, **needed), "seed": wanted.seed}

    monkeypatch.setattr(long_memory, "train", train)
    return asked


def test_what_is_there_is_not_trained_again(tmp_path, monkeypatch):
    asked = pretend(monkeypatch, lambda run: False)
    own = ["--cells", "GRU", "--tasks", "adding", "--lengths", "6", "--into", str(tmp_path)]
    once, twice = ["--learning-rates", "1e-3"], ["--learning-rates", "1e-3", "1e-2"]
    long_memory.main([*own, *once])
    assert asked == [Run("GRU", "adding", 6, 0, 1e-3)]
    file = tmp_path / "benchmarks" / "results" / "long_memory.json"
    runs = json.loads(file.read_text("utf-8"))["runs"]

    long_memory.main([*own, *once])
    assert len(asked) == 1
    assert json.loads(file.read_text("utf-8"))["runs"] == runs

    # Another rate and another seed are missing; the first rate of the first seed is not.
    long_memory.main([*own, *twice, "--seeds", "0", "1"])
    missing = [(0, 1e-2), (1, 1e-3), (1, 1e-2)]
    assert [(run.seed, run.learning_rate) for run in asked[1:]] == missing

    long_memory.main([*own, *once, "--again"])
    assert asked[4:] == [Run("GRU", "adding", 6, 0, 1e-3)]
    assert len(json.loads(file.read_text("utf-8"))["runs"]) == 4


def test_the_next_learning_rate_is_tried_only_where_the_last_one_failed(tmp_path, monkeypatch):
    asked = pretend(monkeypatch, lambda run: run.learning_rate == 5e-4 or run.cell == "GRU")
    own = ["--cells", "GRU", "LSTM", "--tasks", "parity", "--lengths", "50", "--into"]
    long_memory.main([*own, str(tmp_path)])
    expected = [("GRU", 3e-3), ("LSTM", 3e-3), ("LSTM", 5e-4)]
    assert [(run.cell, run.learning_rate) for run in asked] == expected


@pytest.mark.full
def test_all_cells_tasks_and_lengths_are_asked_for_and_short_ones_come_first(tmp_path, monkeypatch):
    asked = pretend(monkeypatch, lambda run: True)
    long_memory.main(["--into", str(tmp_path)])
    assert len(asked) == len(CELLS) * sum(len(task.lengths) for task in TASKS.values())
    lengths = [run.length for run in asked]
    assert lengths == sorted(lengths)


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), MeasurementError("it failed")])
def test_what_had_ended_before_an_interruption_is_kept(tmp_path, monkeypatch, failure):
    def outcome(run: Run) -> bool:
        if run.length == 60:
            raise failure
        return True

    asked = pretend(monkeypatch, outcome)
    own = ["--cells", "GRU", "--tasks", "parity", "--lengths", "50", "60", "70", "--into"]
    with pytest.raises(SystemExit, match="kept"):
        long_memory.main([*own, str(tmp_path)])
    assert [run.length for run in asked] == [50, 60]
    file = tmp_path / "benchmarks" / "results" / "long_memory.json"
    assert [run["length"] for run in json.loads(file.read_text("utf-8"))["runs"]] == [50]
    asked = pretend(monkeypatch, lambda run: True)
    long_memory.main([*own, str(tmp_path)])
    assert [run.length for run in asked] == [60, 70]


def test_results_of_another_recipe_are_not_mixed_in(tmp_path, monkeypatch):
    file = keep(made_up(), tmp_path)
    before = file.read_bytes()
    asked = pretend(monkeypatch, lambda run: True)
    own = ["--cells", "GRU", "--tasks", "parity", "--batch", "16", "--into", str(tmp_path)]
    with pytest.raises(SystemExit, match=r"another recipe \(batch 16 instead of 32\)"):
        long_memory.main(own)
    assert file.read_bytes() == before
    assert not asked
    long_memory.main([*own, "--again"])
    results = json.loads(file.read_text("utf-8"))
    assert results["recipe"]["batch"] == 16
    assert {run["cell"] for run in results["runs"]} == {"GRU"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--report-only"], "long_memory.json does not exist; expected it"),
        (["--cells", "GRUU"], "cells: 'GRUU' is unknown; expected some of Elman"),
        (["--tasks", "sorting"], "tasks: 'sorting' is unknown; expected some of adding"),
        (["--lengths", "100", "100"], "lengths are .*; expected none of them twice"),
        (["--lengths", "1"], "expected at least 2 steps"),
        (["--seeds", "-1"], "expected at least one, from 0 on"),
        (["--updates", "0"], "updates is 0; expected at least 1"),
        (["--learning-rates", "0"], "0.0 is among them; expected positive numbers"),
        (["--clip-norm", "nan"], "nan is among them; expected positive numbers"),
        (["--processes", "999"], "processes is 999, but .* cores are usable"),
    ],
)
def test_what_cannot_be_measured_is_refused_at_once(tmp_path, monkeypatch, arguments, message):
    monkeypatch.setattr(long_memory, "measure_into", lambda *_: pytest.fail("it measured"))
    with pytest.raises(SystemExit, match=message):
        long_memory.main(["--into", str(tmp_path), *arguments])
    assert not list(tmp_path.iterdir())


def test_the_page_holds_every_number():
    page = long_memory_report.document(made_up())
    assert "| LSTM | 8,417 | **1,234** | 0.1234 (74 %) |" in page
    assert "| IRNN | 8,417 | not finite |  |" in page
    assert "| GRU | 8,417 | 25.0 % (50 %) |" in page
    # 10 log 8 / 120 = 0.1733
    assert "| GRU | 8,417 | 0.1000 (58 %) |\n| *without memory* |  | 0.1733 |" in page
    assert "| *without memory* |  | 0.1667 | 0.1667 |" in page
    assert "(adding: 0.003, then 0.0005; copy: 0.003; parity: 0.003)" in page
    for word in ("Abacus 9000", "2 of 8 cores", "jax 0.10.2", "3.0 hours", "2 side by side"):
        assert word in page
    assert "Not the default recipe" not in page
    for author in ("Hinton 2015", "Bengio 2016", "Grazzi et al. 2024", "Sarrof"):
        assert author in page


def test_several_seeds_are_counted_and_their_medians_taken():
    results = made_up()
    results["runs"] = [
        {**run("LSTM", "adding", 100, 3e-3, 0.004, updates_needed=400), "seed": 0},
        {**run("LSTM", "adding", 100, 3e-3, 0.15), "seed": 1},
        {**run("LSTM", "adding", 100, 5e-4, 0.005, updates_needed=600), "seed": 1},
        {**run("LSTM", "adding", 100, 3e-3, 0.15), "seed": 2},
        {**run("GRU", "adding", 100, 3e-3, 0.004, updates_needed=400), "seed": 0},
        {**run("GRU", "adding", 100, 3e-3, 0.15), "seed": 1},
        {**run("GRU", "adding", 100, 3e-3, 0.16), "seed": 2},
    ]
    page = long_memory_report.document(results)
    assert "| LSTM | 8,417 | **500** (2 of 3 seeds) |" in page
    assert "| GRU | 8,417 | 0.1500 (90 %) (1 of 3 seeds) |" in page


def test_results_without_a_part_are_refused(tmp_path):
    results = made_up()
    del results["machine"], results["runs"]
    keep(results, tmp_path)
    with pytest.raises(SystemExit, match="hold no machine, runs; expected what"):
        long_memory.main(["--report-only", "--into", str(tmp_path)])


def test_the_report_draws_and_writes_from_the_json_alone(tmp_path):
    file = keep(made_up(), tmp_path)
    before = file.read_bytes()
    long_memory.main(["--report-only", "--into", str(tmp_path)])
    page = tmp_path / "docs" / "long_memory.md"
    assert page.read_text("utf-8") == long_memory_report.document(made_up())
    linked = page.parent / "../benchmarks/results/long_memory.png"
    assert linked.read_bytes().startswith(b"\x89PNG")
    assert file.read_bytes() == before
    files = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert files == {"long_memory.json", "long_memory.png", "long_memory.md"}


@pytest.mark.parametrize("name", CELLS)
def test_every_cell_of_the_table_takes_the_embedding_and_feeds_the_head(name):
    wanted, recipe = Run(name, "copy", 5, 0, 1e-3), Recipe(features=16)
    cell = long_memory_run.build(wanted, recipe)
    init = lambda key: long_memory_run.init(cell, wanted, recipe, key)
    params = jax.eval_shape(init, jax.random.key(0))
    xs = jax.ShapeDtypeStruct((25, 3, 16), "float32")
    _, ys = jax.eval_shape(lambda p, xs: sj.unroll(cell, p, xs), params.cell, xs)
    assert ys.shape == (25, 3, params.head.shape[0])


@pytest.mark.full
def test_a_training_runs_in_a_process_of_its_own(monkeypatch):
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    recipe = Recipe(features=2, batch=1, updates=1, evaluate_every=1, tested=1)
    core = long_memory_trainings.cores()[0]
    heard = []
    command = long_memory_run.command(Run("Elman (tanh)", "parity", 2, 0, 1e-3), recipe, core)
    result = watch(command, heard.append).result
    assert (result["cell"], result["updates"]) == ("Elman (tanh)", 1)
    assert heard[0].startswith("update      1  value")
