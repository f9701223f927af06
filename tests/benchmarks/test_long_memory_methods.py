import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seqjax as sj
from benchmarks import (
    long_memory_methods,
    long_memory_methods_report,
    long_memory_methods_run,
    long_memory_trainings,
)
from benchmarks.files import write_whole
from benchmarks.long_memory_methods_gradients import cosine, forward, truncated
from benchmarks.long_memory_methods_recipe import (
    CELLS,
    METHODS,
    PLAN,
    MethodRecipe,
    MethodRun,
    build,
    serves,
)
from benchmarks.long_memory_recipe import TASKS, Recipe, Run
from benchmarks.long_memory_run import Params, exact, init
from benchmarks.long_memory_run import train as train_cell
from benchmarks.processes import ROOT, Line, Watched, watch

pytest.importorskip("matplotlib", reason="matplotlib is not installed")

NAME = "long_memory_methods"
TINY = MethodRecipe(features=4, batch=3, updates=2, evaluate_every=1, tested=4)


def run(
    cell: str, task: str, length: int, method: str, value: float | None = 0.1, **more: Any
) -> dict:
    """The result of a training that never was."""
    return {
        **MethodRun(cell, task, length, 0, 3e-3, method)._asdict(),
        "solved": "updates_needed" in more,
        "updates_needed": None,
        "value": value,
        "updates": 2000,
        "seconds": 1800.0,
        "compile_seconds": 0.0,
        "parameters": 6369,
        "clip_rate": 0.1,
        "skipped": 0,
        "curve": [0.1, value],
        "cosines": [0.875, 0.25],
        "processes": 2,
        **more,
    }


def made_up() -> dict:
    """Results that no machine has measured."""
    return {
        "benchmark": NAME,
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
        "recipe": dataclasses.asdict(MethodRecipe()),
        "runs": [
            run("GRU", "adding", 20, "BPTT", 0.004, updates_needed=200, cosines=[1.0, 1.0]),
            run("GRU", "adding", 50, "BPTT", 0.004, updates_needed=400, cosines=[1.0, 1.0]),
            run("LSTM", "parity", 20, "BPTT", 0.0, updates_needed=300, cosines=[1.0, 1.0]),
            run("LRU", "copy", 50, "BPTT", 0.1, cosines=[1.0, 1.0]),
            run("GRU", "adding", 20, "UORO", 0.005, updates_needed=600),
            run("GRU", "adding", 50, "UORO", 0.15, cosines=[0.5, None]),
            run("LSTM", "parity", 20, "UORO", 0.5, cosines=[0.7, 0.1]),
            run("LRU", "copy", 50, "TBPTT 10", None),
            run("LSTM", "parity", 20, "e-prop", 0.0, updates_needed=450),
            run("GRU", "adding", 50, "TBPTT 10", 0.1),
        ],
    }


def keep(results: dict, into: Path) -> Path:
    file = into / "benchmarks" / "results" / f"{NAME}.json"
    write_whole(file, json.dumps(results))
    return file


def problem(cell: sj.Cell, task: str, length: int) -> tuple[Params, Any]:
    """Initial values, which for a = 0 would hide the head, and one batch."""
    params = init(cell, MethodRun("", task, length, 0, 1e-3, ""), TINY, jax.random.key(0))
    params = params._replace(bias=jnp.linspace(-1, 1, params.bias.size))
    return params, TASKS[task].draw(jax.random.key(1), length, TINY.batch)


def assert_same(one: Any, other: Any, rtol: float = 1e-4) -> None:
    """Float32 sums in two orders; entries are compared to the largest of their leaf."""
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * float(jnp.max(jnp.abs(b))))


pytestmark = pytest.mark.usefixtures("standard_promotion", "quick_compilation")


@pytest.mark.full
@pytest.mark.parametrize(
    ("cell", "task"),
    # One loss at the end, or one at each step; one kernel of the inputs, or three.
    [(sj.DiagonalGRU(4), "adding"), (sj.LRU(4), "copy")],
    ids=["DiagonalGRU", "LRU"],
)
def test_rtrl_gives_the_gradient_of_bptt_embedding_and_head_included(cell, task):
    params, batch = problem(cell, task, 4)
    key = jax.random.key(2)
    methods = forward(cell, TASKS[task], sj.rtrl), exact(cell, TASKS[task])
    both = jax.jit(lambda params, batch: [method(params, batch, key) for method in methods])
    assert_same(*both(params, batch))


@pytest.mark.full
@pytest.mark.parametrize("task", ["adding", "parity"])  # targets at the end, or at each step
def test_windows_whose_targets_count_differently_add_up_to_the_whole_loss(task):
    cell = sj.GRU(4)
    params, batch = problem(cell, task, 7)
    time = TASKS[task].time(7)
    methods = [exact(cell, TASKS[task])]
    methods += [truncated(cell, TASKS[task], 3, k2) for k2 in (time, 3)]

    @jax.jit
    def gradients(params: Params, batch: Any) -> list[Params]:
        return [method(params, batch, jax.random.key(0)) for method in methods]

    whole, long, short = gradients(params, batch)
    # Windows of 3 that reach over all: exact, though only the last counts in the adding problem.
    assert_same(long, whole)
    # The head sees the loss of each step directly, whatever is cut.
    assert_same((short.head, short.bias), (whole.head, whole.bias))
    assert float(cosine(short, whole)) < 1 - 1e-4


@pytest.mark.full
def test_uoro_draws_its_noise_from_the_key_and_has_the_right_gradient_in_the_mean():
    cell, task = sj.Elman(4), TASKS["parity"]
    params, batch = problem(cell, "parity", 5)
    gradient = forward(cell, task, sj.uoro)
    keys = jax.random.split(jax.random.key(0), 4000)
    many = jax.jit(jax.vmap(lambda key: gradient(params, batch, key)))(keys)
    U, exact_U = many.cell.recurrent_kernel, exact(cell, task)(params, batch, keys[0])
    spread = np.std(U, axis=0) / np.sqrt(len(keys))
    assert (spread > 0).all()
    # 4.5 standard errors: one entry of 16 is beyond them once in 10,000 draws of all keys.
    assert (np.abs(np.mean(U, axis=0) - exact_U.cell.recurrent_kernel) < 4.5 * spread).all()


def test_the_cosine_leaves_out_the_head():
    params, _ = problem(sj.Elman(2), "parity", 5)
    turned = params._replace(head=-params.head, bias=-params.bias)
    assert float(cosine(params, turned)) == pytest.approx(1, abs=1e-6)
    opposite = params._replace(
        embedding=-params.embedding, cell=jax.tree.map(jnp.negative, params.cell)
    )
    assert float(cosine(params, opposite)) == pytest.approx(-1, abs=1e-6)
    nothing = jax.tree.map(jnp.zeros_like, params)
    assert np.isnan(cosine(params, nothing))


# RTRL: from end to end, below. BPTT: beside the training of the cells themselves.
@pytest.mark.full
@pytest.mark.parametrize(
    ("method", "cell", "task", "length"),
    [
        ("TBPTT 10, 30", "Elman, leak 0.1", "copy", 11),
        ("SnAp-1", "LSTM", "parity", 5),
        ("UORO", "GRU", "adding", 5),
        ("RFLO", "Elman, leak 0.1", "adding", 5),
        ("e-prop", "GRU", "parity", 5),
    ],
)
def test_a_tiny_training_by_each_family_of_methods_gives_its_numbers(method, cell, task, length):
    result = long_memory_methods_run.train(MethodRun(cell, task, length, 0, 1e-3, method), TINY)
    assert (result["updates"], len(result["curve"])) == (2, 2)
    assert (result["method"], result["compile_seconds"] > 0) == (method, True)
    assert np.isfinite(result["value"])
    before, after = result["cosines"]
    assert -1 <= before < 1 - 1e-6
    assert before != after


@pytest.mark.full
def test_bptt_here_is_the_training_of_the_cells_themselves():
    here = long_memory_methods_run.train(
        MethodRun("Elman (tanh)", "adding", 4, 0, 1e-3, "BPTT"), TINY
    )
    recipe = Recipe(features=4, batch=3, updates=2, evaluate_every=1, tested=4)
    there = train_cell(Run("Elman (tanh)", "adding", 4, 0, 1e-3), recipe)
    assert (here["curve"], here["value"]) == (there["curve"], there["value"])
    assert here["cosines"] == [pytest.approx(1, abs=1e-5)] * 2  # six digits are written


@pytest.mark.parametrize("method", ["TBPTT 10, 30", "RTRL", "SnAp-1", "UORO", "RFLO", "e-prop"])
def test_every_method_takes_every_cell_that_it_is_said_to_serve(method):
    for name in METHODS[method].cells:
        wanted = MethodRun(name, "parity", 120, 0, 1e-3, method)
        cell = build(wanted, TINY)
        shapes = jax.eval_shape(lambda cell=cell: problem(cell, "parity", 120))
        gradient = METHODS[method].gradient(cell, TASKS["parity"])
        found = jax.eval_shape(gradient, *shapes, jax.random.key(0))
        assert jax.tree.map(jnp.shape, found) == jax.tree.map(jnp.shape, shapes[0])


def test_bptt_is_measured_for_everything_in_the_plan_and_windows_are_shorter_than_sequences():
    units = long_memory_methods.units(long_memory_methods.Options())
    planned = {run for unit in units for run in unit}
    problems = {(run.cell, run.task, run.length) for run in planned}
    assert problems == {
        (c, t, n) for t, row in PLAN.items() for n, cells in row.items() for c in cells
    }
    assert {(r.cell, r.task, r.length) for r in planned if r.method == "BPTT"} == problems
    assert {run.method for run in planned} == set(METHODS)
    assert [unit[0].length for unit in units] == sorted(unit[0].length for unit in units)
    assert not serves("TBPTT 30", "GRU", "adding", 30)
    assert serves("TBPTT 30", "GRU", "copy", 30)  # 50 steps
    assert not serves("RTRL", "GRU", "adding", 30)


def test_what_is_there_is_not_trained_again_and_each_method_is_a_training_of_its_own(
    tmp_path, monkeypatch
):
    asked = []

    def train(wanted: MethodRun, *_: Any) -> dict:
        asked.append(wanted)
        return run(wanted.cell, wanted.task, wanted.length, wanted.method)

    monkeypatch.setattr(long_memory_methods, "train", train)
    own = ["--cells", "GRU", "--tasks", "adding", "--lengths", "20", "--into", str(tmp_path)]
    long_memory_methods.main([*own, "--methods", "BPTT", "UORO"])
    assert [wanted.method for wanted in asked] == ["BPTT", "UORO"]
    long_memory_methods.main([*own, "--methods", "BPTT", "UORO", "e-prop"])
    assert [wanted.method for wanted in asked[2:]] == ["e-prop"]
    results = json.loads(
        long_memory_methods.Options(into=tmp_path).results(NAME).read_text("utf-8")
    )
    assert [found["method"] for found in results["runs"]] == ["BPTT", "UORO", "e-prop"]
    assert {wanted.learning_rate for wanted in asked} == {3e-3}


def test_a_tiny_benchmark_from_end_to_end(tmp_path, monkeypatch, capsys):
    def watch(arguments: list[str], echo: Any) -> Watched:
        asked = json.loads(arguments[-1])
        recipe = MethodRecipe(**asked["recipe"])
        result = long_memory_methods_run.train(MethodRun(*asked["run"]), recipe, echo)
        return Watched(0.0, [Line(0.0, json.dumps(result))])

    # In this process, not in a fresh one.
    monkeypatch.setattr(long_memory_trainings, "watch", watch)
    tiny = ["--features", "4", "--batch", "3", "--updates", "2", "--evaluate-every", "1"]
    asked = ["--cells", "DiagonalGRU", "--tasks", "adding", "--lengths", "6", "--methods", "RTRL"]
    long_memory_methods.main([*tiny, "--tested", "4", *asked, "--into", str(tmp_path)])
    text = long_memory_methods.Options(into=tmp_path).results(NAME).read_text("utf-8")
    results = json.loads(text)
    (only,) = results["runs"]
    assert only["cosines"] == [pytest.approx(1, abs=1e-5)] * 2  # six digits are written
    page = (tmp_path / "docs" / f"{NAME}.md").read_text("utf-8")
    assert page == long_memory_methods_report.document(results)
    assert "**Not the default recipe**: features 4 instead of 32" in page
    assert f"{only['value']:.4f}" in page
    assert "1/1 DiagonalGRU, RTRL, adding 6, rate 0.003: not solved" in capsys.readouterr().out
    for private in (str(tmp_path), str(ROOT)):
        assert private not in text + page


@pytest.mark.full
def test_a_training_runs_in_a_process_of_its_own(monkeypatch):
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    recipe = MethodRecipe(features=2, batch=1, updates=1, evaluate_every=1, tested=1)
    wanted = MethodRun("DiagonalGRU", "parity", 2, 0, 1e-3, "RTRL")
    command = long_memory_methods_run.command(wanted, recipe, long_memory_trainings.cores()[0])
    heard = []
    result = watch(command, heard.append).result
    assert (result["method"], result["updates"]) == ("RTRL", 1)
    assert heard[0].startswith("update      1  value")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--report-only"], "long_memory_methods.json does not exist; expected it"),
        (["--methods", "BPTTT"], "methods: 'BPTTT' is unknown; expected some of BPTT"),
        (["--methods", "UORO", "UORO"], "methods are .*; expected none of them twice"),
        (["--patience", "0"], "patience is 0; expected at least 1"),
        (["--cells", "IRNN"], "cells: 'IRNN' is unknown; expected some of Elman"),
        (["--cells", "LSTM", "--methods", "RTRL"], "none of the methods .* serves any"),
    ],
)
def test_what_cannot_be_measured_is_refused_at_once(tmp_path, monkeypatch, arguments, message):
    monkeypatch.setattr(long_memory_methods, "measure_into", lambda *_: pytest.fail("it measured"))
    with pytest.raises(SystemExit, match=message):
        long_memory_methods.main(["--into", str(tmp_path), *arguments])
    assert not list(tmp_path.iterdir())


def test_the_page_holds_every_number():
    page = long_memory_methods_report.document(made_up())
    # A task has columns for its own methods alone.
    assert "| cell | T | BPTT | TBPTT 10 | UORO |\n" in page
    assert "| GRU | 20 | **200** |  | **600** |\n" in page
    assert "| GRU | 50 | **400** | 0.1000 (60 %) | 0.1500 (90 %) |\n" in page
    # 10 log 8 / 70 = 0.2971
    assert "| LRU | 50 | 0.1000 (34 %) | not finite |\n" in page
    assert "| LSTM | 20 | 0.70 → 0.10 | 0.88 → 0.25 |\n" in page
    assert "| GRU | 50 | 0.88 → 0.25 | 0.50 → none |\n" in page
    for word in ("Abacus 9000", "2 of 8 cores", "jax 0.10.2", "5.0 hours", "2 side by side"):
        assert word in page
    assert "Not the default recipe" not in page
    assert "one update a batch" in page


def test_a_method_is_judged_by_the_problems_that_bptt_solves():
    results = made_up()
    found = long_memory_methods_report.record(results, "UORO")
    assert (len(found.problems), len(found.solvable), len(found.solved)) == (3, 3, 1)
    assert found.slower == 3
    # 0.875, 0.5, 0.7 and 0.25, none, 0.1
    assert (found.before, found.after) == (0.7, pytest.approx(0.175))
    page = long_memory_methods_report.document(results)
    assert "| UORO | 3 | 1 of 3 | 3.0 × | 0.70 | 0.17 |" in page
    assert (
        "of the 3 problems that BPTT solves it solves 1 (adding 1 of 2, parity 0 of 1), "
        "in 3.0 times the updates; cosine 0.70 before training"
    ) in page
    assert "that BPTT solves it solves all (parity 1 of 1), in 1.5 times" in page
    assert "that BPTT solves it solves none (adding 0 of 1); cosine" in page
    assert "it solves 3 of 4 problems" in page
    results["runs"].append(run("LRU", "copy", 50, "UORO", 0.01, updates_needed=900))
    found = long_memory_methods_report.record(results, "UORO")
    assert (len(found.solved), len(found.more)) == (1, 1)


def test_a_method_without_a_problem_that_bptt_solves_is_not_judged():
    results = made_up()
    results["runs"] = [
        found for found in results["runs"] if (found["cell"], found["task"]) == ("LRU", "copy")
    ]
    page = long_memory_methods_report.document(results)
    assert "*Seen*: BPTT solves none of its problems, so that nothing can be said." in page
    assert "| TBPTT 10 | 1 | 0 of 0 |  | 0.88 | 0.25 |" in page


def test_results_without_a_part_are_refused(tmp_path):
    results = made_up()
    del results["machine"], results["runs"]
    keep(results, tmp_path)
    with pytest.raises(SystemExit, match="hold no machine, runs; expected what"):
        long_memory_methods.main(["--report-only", "--into", str(tmp_path)])


def test_the_report_draws_and_writes_from_the_json_alone(tmp_path):
    file = keep(made_up(), tmp_path)
    before = file.read_bytes()
    long_memory_methods.main(["--report-only", "--into", str(tmp_path)])
    page = tmp_path / "docs" / f"{NAME}.md"
    assert page.read_text("utf-8") == long_memory_methods_report.document(made_up())
    linked = page.parent / f"../benchmarks/results/{NAME}.png"
    assert linked.read_bytes().startswith(b"\x89PNG")
    assert file.read_bytes() == before


def test_the_cells_of_the_plan_are_known():
    assert {cell for row in PLAN.values() for cells in row.values() for cell in cells} == set(CELLS)
