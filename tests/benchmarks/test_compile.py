"""The benchmark of compilation: what is compiled, how it is timed, and what the section says."""

import copy
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import compile as compiling
from benchmarks import compile_report, compile_run
from benchmarks.compile_programs import BUILDERS, gradient_of, layers_of
from benchmarks.compile_run import Case, Sizes
from benchmarks.layers_run import agree
from benchmarks.peers import PEERS, ours
from benchmarks.peers.problem import GATES, Shape, sample
from benchmarks.processes import MeasurementError
from tests.benchmarks.made_up import frame

pytestmark = pytest.mark.usefixtures("quick_compilation")

SHAPE = Shape(batch=2, time=3, inputs=5, features=4)
SIZES = Sizes(batch=2, inputs=5, features=4)

PEERS_AND_CELLS = [
    (name, cell)
    for name in BUILDERS
    for cell in GATES
    if name != "ours" and cell not in PEERS[name].without
]


def gradients(name: str, cell: str, depth: int) -> list[np.ndarray]:
    layers = layers_of(cell, SHAPE, depth)
    program = BUILDERS[name](layers)
    params = jax.tree.map(jnp.asarray, program.params)
    found = jax.jit(gradient_of(program.make()))(params, layers[0].xs)
    return program.weights(jax.tree.map(np.asarray, found))


@functools.cache
def expected(cell: str, depth: int) -> list[np.ndarray]:
    """The gradient of mean(ys²), step by step and layer by layer in a Python loop, weight by weight."""
    layers = layers_of(cell, SHAPE, depth)
    make, params_of = ours.CELLS[cell]

    def loss(weights):
        xs = jnp.asarray(layers[0].xs)
        for each in weights:
            one, params = make(4), params_of(*each)
            state, ys = one.initial_state(params, (2,)), []
            for x in xs:
                state, y = one.step(params, state, x)
                ys.append(y)
            xs = jnp.stack(ys)
        return jnp.sum(xs**2) / xs.size

    found = jax.jit(jax.grad(loss))([layer.weights for layer in layers])
    return [np.asarray(array) for arrays in found for array in arrays]


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("cell", GATES)
def test_ours_is_the_gradient_of_the_mean_square_through_all_layers(cell, depth):
    mine = gradients("ours", cell, depth)
    assert len(mine) == depth * (4 if cell == "GRU" else 3)
    for came, right in zip(mine, expected(cell, depth), strict=True):
        # Some ten roundings of float32 in sums of three steps.
        np.testing.assert_allclose(came, right, rtol=0, atol=3e-6 * np.abs(right).max())


@pytest.mark.full
@pytest.mark.peer
@pytest.mark.usefixtures("standard_promotion")
@pytest.mark.parametrize(("name", "cell"), PEERS_AND_CELLS)
def test_a_peer_compiles_the_same_function_of_two_layers(name, cell):
    if not PEERS[name].installed:
        pytest.skip(f"{PEERS[name].distribution} is not installed")
    came = gradients(name, cell, 2)
    if PEERS[name].variant(cell):
        with pytest.raises(MeasurementError, match="computes something else"):
            agree(sample(came), sample(gradients("ours", cell, 2)[: len(came)]))
        return
    for theirs, right in zip(came, expected(cell, 2), strict=True):
        np.testing.assert_allclose(theirs, right, rtol=0, atol=3e-6 * np.abs(right).max())


def test_a_program_is_traced_and_compiled_anew_every_time():
    layers = layers_of("Elman", SHAPE, 1)
    program = BUILDERS["ours"](layers)

    def anew():
        with compile_run.counted() as counts:
            seconds, compiled = compile_run.compiled_anew(program, layers[0].xs)
        assert len(counts.traces) == 1
        assert len(counts.compilations) >= 1
        assert min(seconds) > 0
        return compiled

    anew()
    compiled = anew()
    found = program.weights(jax.tree.map(np.asarray, compiled(program.params, layers[0].xs)))
    assert agree(sample(found), sample(expected("Elman", 1))) < 1e-5


@pytest.mark.parametrize("cell", GATES)
def test_a_second_call_with_an_equal_cell_made_anew_never_traces_again(cell):
    counts = compile_run.traced_again(cell, SHAPE)
    assert [each["way"] for each in counts] == list(compile_run.ways(cell, SHAPE))
    for each in counts:
        assert each["again"] == {"traces": 0, "compilations": 0}
        # The counters count: what was never seen before is traced.
        for new in ("first", "other"):
            assert each[new]["traces"] == 1
            assert each[new]["compilations"] >= 1


def test_no_program_comes_from_an_earlier_process(tmp_path):
    before = jax.config.values["jax_enable_compilation_cache"]
    with compile_run.without_cache():
        assert jax.config.values["jax_enable_compilation_cache"] is False
    assert jax.config.values["jax_enable_compilation_cache"] == before


def test_contestants_take_turns_and_every_round_is_kept(monkeypatch):
    order, now = [], iter(range(1, 1000))

    def anew(program, xs):
        order.append(program)
        return compile_run.Seconds(0.25, float(next(now))), None

    def enter(case, sizes, names, say):
        each = {name: compile_run.Entry((case.time, name), None, None, []) for name in "abc"}  # pyright: ignore[reportArgumentType] - only names are read
        return {"ours" if name == "a" else name: entry for name, entry in each.items()}, {}

    monkeypatch.setattr(compile_run, "compiled_anew", anew)
    monkeypatch.setattr(compile_run, "enter", enter)
    cases = [Case("GRU", 7, 1), Case("GRU", 9, 1)]
    found = compile_run.measure(cases, SIZES, [], 4, lambda line: None)
    # Round by round, all cases in each, and in each case all contestants.
    assert [time for time, _ in order] == 4 * [7, 7, 7, 9, 9, 9]
    turns = ["".join(name for _, name in order[n : n + 3]) for n in range(0, 24, 3)]
    assert turns == ["abc", "abc", "acb", "acb", "cab", "cab", "cba", "cba"]
    mine = found[0]["contestants"]["ours"]
    assert mine["compile_seconds"] == [1, 7, 14, 21]
    assert (mine["trace"], mine["compile"], mine["total"]) == (0.25, 10.5, 10.75)
    theirs = found[0]["contestants"]["b"]["compile_seconds"]
    assert theirs == [2, 9, 15, 20]
    ratios = sorted((b + 0.25) / (a + 0.25) for a, b in zip([1, 7, 14, 21], theirs, strict=True))
    assert found[0]["contestants"]["b"]["ratio"] == pytest.approx(sum(ratios[1:3]) / 2, rel=1e-3)


def made_up(**changed) -> dict:
    """Results that no machine has measured, in which all goals are reached."""

    def contestant(trace, compile, ratio=1.0):
        return {
            "trace_seconds": [trace, trace, trace],
            "compile_seconds": [compile, compile, compile],
            "trace": trace,
            "compile": compile,
            "total": trace + compile,
            "ratio": ratio,
            "deviation": 0.0,
        }

    def case(time, depth, compile):
        haiku = contestant(0.125, 1.5 * compile, 1.4)
        mine = contestant(0.125, compile)
        return {
            "cell": "GRU",
            "time": time,
            "depth": depth,
            "contestants": {"ours": mine, "haiku": haiku},
            "left_out": {"linen": "TypeError: no"} if depth == 4 else {},
        }

    counts = lambda traces, compilations: {"traces": traces, "compilations": compilations}
    return {
        **frame("compile"),
        "rounds": 3,
        "sizes": {"batch": 16, "inputs": 64, "features": 64},
        "missing": {"equinox": "equinox is not installed"},
        "cases": [case(16, 1, 0.5), case(128, 1, 0.5625), case(128, 4, 1.25)],
        "again": [
            {
                "cell": "GRU",
                "way": "sj.unroll",
                "first": counts(1, 2),
                "again": counts(0, 0),
                "other": counts(1, 1),
            }
        ],
    } | changed


def test_the_section_says_that_goals_are_reached_where_they_are():
    page = compile_report.section(made_up())
    for line in (
        "## Tracing and compilation\n",
        "B = 16, D = 64, H = 64",
        "medians of 3 rounds",
        "- Tracing and compilation do not grow with T: **reached**. The most is 1.10 times",
        "of GRU from T = 16 to 128; the goal is at most 1.25 times.",
        "- One layer in under 1 s: **reached**, on this machine. Tracing and compilation together take "
        "0.62 to 0.69 s, the longest of GRU at T = 128; 2 of 2 lie below 1 s.",
        "never traces again: **reached**. In the second calls, with cells made anew, ours was traced 0 "
        "times and 0 programs were compiled (GRU; `sj.unroll`). A first call traced it 1 times",
        "| 16 | 1 | 0.12 + 0.50 | 0.12 + 0.75 (1.40) † |",
        "| 128 | 4 | 0.12 + 1.25 | 0.12 + 1.88 (1.40) † |",
        "- 4 layers of GRU take 2.00 times as long as one, at T = 128.",
        "- haiku takes 1.40 to 1.40 times as long as ours; ours is ready sooner in 3 of 3.",
        "- equinox is missing: equinox is not installed.",
        "- † haiku: its GRU resets before the recurrent matmul.",
        "- linen is left out of GRU, T = 128, layers 4: TypeError: no.",
        "`torch.compile` is not among them",
        "Measured on 2026-01-31: Abacus 9000, 2 cores",
    ):
        assert line in page
    assert "not reached" not in page


def test_the_section_says_that_each_goal_is_not_reached_where_it_is_not():
    slow = made_up()
    # In the same round 1.4, 1.2 and 1.3 times as long as one of 16 steps, and above a second.
    slow["cases"][0]["contestants"]["ours"] |= {"total": 1.0, "compile_seconds": [0.875] * 3}
    slow["cases"][1]["contestants"]["ours"] |= {
        "total": 1.3,
        "compile_seconds": [1.275, 1.075, 1.175],
    }
    slow["again"][0]["again"] = {"traces": 1, "compilations": 2}
    grows, soon, again = compile_report.goals(slow)
    assert "grow with T: **not reached**. The most is 1.30 times" in grows
    assert "in under 1 s: **not reached**" in soon
    assert "take 1.00 to 1.30 s, the longest of GRU at T = 128; 0 of 2 lie below 1 s." in soon
    assert "never traces again: **not reached**" in again
    assert "was traced 1 times and 2 programs were compiled" in again
    assert again.endswith("It did again in: GRU, sj.unroll.")
    page = compile_report.section(slow)
    assert page.count("**not reached**") == 3
    assert "**reached**" not in page


def test_growth_beyond_the_shortest_is_told_apart():
    three = made_up()
    third = json.loads(json.dumps(three["cases"][1])) | {"time": 1024}
    three["cases"].insert(2, third)
    assert compile_report.goals(three)[0].endswith(
        "which is a larger program, once: from T = 128 on the most is 1.00 times, of GRU at 1024."
    )
    assert "larger program" not in compile_report.goals(made_up())[0]


def test_one_length_says_nothing_about_growth():
    one = made_up()
    one["cases"] = one["cases"][1:]
    grows = compile_report.goals(one)[0]
    assert "not measured" in grows
    assert "reached" not in grows


def run(tmp_path, *arguments: str) -> dict:
    """The results of a small run on the CPU."""
    sizes = ["--times", "3", "--depths", "1", "2", "--depth-time", "3"]
    small = [*sizes, "--batch", "2", "--features", "4", "--rounds", "1", "--device", "cpu"]
    compiling.main([*small, *arguments, "--into", str(tmp_path)])
    return json.loads((tmp_path / "benchmarks/results/compile.json").read_text("utf-8"))


@pytest.mark.peer
@pytest.mark.usefixtures("standard_promotion")
def test_a_small_run_writes_results_picture_and_section(tmp_path, capsys, monkeypatch):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    pytest.importorskip("equinox", reason="Equinox is not installed")
    monkeypatch.setitem(PEERS, "haiku", PEERS["haiku"]._replace(package="no_such_package"))
    found = run(tmp_path, "--cells", "Elman", "--peers", "linen", "haiku", "equinox")
    cases = [(case["cell"], case["time"], case["depth"]) for case in found["cases"]]
    assert cases == [("Elman", 3, 1), ("Elman", 3, 2)]
    page = (tmp_path / "docs/benchmarks.md").read_text("utf-8")
    for case in found["cases"]:
        assert set(case["contestants"]) == {"ours", "linen"}
        assert case["left_out"] == {"equinox": "has no Elman"}
        for each in case["contestants"].values():
            assert len(each["trace_seconds"]) == len(each["compile_seconds"]) == 1
            assert min(*each["trace_seconds"], *each["compile_seconds"]) > 0
            assert each["deviation"] < 1e-5
        theirs = case["contestants"]["linen"]
        assert f" {theirs['trace']:.2f} + {theirs['compile']:.2f} ({theirs['ratio']:.2f}) |" in page
    assert {each["again"]["traces"] for each in found["again"]} == {0}
    assert {"jax", "flax"} <= set(found["versions"])
    assert found["missing"] == {"haiku": "dm-haiku is not installed"}
    shown = capsys.readouterr().out
    assert "haiku is left out: dm-haiku is not installed" in shown
    assert "round 1/1: Elman, 3 steps, 2 layers: ours " in shown
    assert "A second call with an equal configuration never traces again: reached." in shown
    picture = tmp_path / "benchmarks/results/compile.png"
    assert picture.read_bytes()[1:4] == b"PNG"
    picture.unlink()
    compiling.main(["--report-only", "--into", str(tmp_path)])
    assert (tmp_path / "docs/benchmarks.md").read_text("utf-8") == page
    assert picture.is_file()


def test_a_peer_that_fails_or_compiles_something_else_is_left_out_and_named(monkeypatch):
    def failing(layers):
        raise TypeError("no such thing\nas this")

    def cheating(layers):
        program = BUILDERS["ours"](layers)
        return program._replace(params=jax.tree.map(lambda leaf: 2 * leaf, program.params))

    monkeypatch.setitem(BUILDERS, "linen", failing)
    monkeypatch.setitem(BUILDERS, "haiku", cheating)
    said = []
    case = Case("LSTM", 3, 1)
    entries, left_out = compile_run.enter(case, SIZES, ["linen", "haiku"], said.append)
    assert set(entries) == {"ours"}
    assert left_out["linen"] == "TypeError: no such thing"
    assert left_out["haiku"].startswith("it computes something else")
    assert said[0].startswith("linen is left out of LSTM, 3 steps, 1 layer: TypeError")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--peers", "pytorch"],
            r"^peers: 'pytorch' is unknown; expected some of linen, haiku, eq",
        ),
        (["--cells", "lstm"], r"^cells: 'lstm' is unknown; expected some of LSTM, GRU, Elman$"),
        (["--cells"], "^cells: expected at least one of LSTM"),
        (["--rounds", "0"], "^rounds: expected at least 1, got 0"),
        (["--times", "5", "0"], "^times: expected at least 1"),
        (["--depths"], "^depths: expected at least 1"),
        (["--times", "1000000000"], r"GB of memory needed, .* GB free; expected smaller"),
        (["--report-only"], "compile.json does not exist"),
    ],
)
def test_what_cannot_be_measured_is_refused(arguments, message, tmp_path):
    with pytest.raises(SystemExit, match=message):
        run(tmp_path, *arguments)
    assert not any(tmp_path.iterdir())


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_one_sentence(tmp_path):
    with pytest.raises(SystemExit, match=r"^--device gpu: JAX finds none here"):
        compiling.main(["--device", "gpu", "--into", str(tmp_path)])
    assert not any(tmp_path.iterdir())


def test_an_interruption_leaves_the_old_files_whole(tmp_path, monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    file = tmp_path / "benchmarks" / "results" / "compile.json"
    file.parent.mkdir(parents=True)
    file.write_text("old", "utf-8")
    monkeypatch.setattr(compile_run, "measure", interrupted)
    with pytest.raises(SystemExit, match="interrupted; nothing was written"):
        run(tmp_path, "--peers")
    assert file.read_text("utf-8") == "old"
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [file]


def test_results_of_a_gpu_have_a_heading_of_their_own():
    gpu = {"platform": "gpu", "kind": "H200", "count": 1}
    page = compile_report.section(copy.deepcopy(made_up(name="compile-h200", device=gpu)))
    assert "## Tracing and compilation, on H200\n" in page
    assert "### Compiling GRU, on H200\n" in page
    assert "results/compile-h200.png" in page
