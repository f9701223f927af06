import importlib.util
import json
from pathlib import Path

import pytest

from benchmarks import shakespeare, shakespeare_report, shakespeare_run
from benchmarks.files import in_lines, write_whole
from benchmarks.processes import Line, MeasurementError, Watched, watch

pytest.importorskip("matplotlib", reason="matplotlib is not installed")


def made_up() -> dict:
    """Results that no machine has measured."""
    seeds = [
        {
            "seed": seed,
            "nats": 1.5512 + 0.02 * seed,
            "wall_seconds": 91.3 + seed,
            "first_loss_seconds": 5.1 + seed,
            "first_sample_seconds": 21.7 + seed,
            "curve": [
                {"step": 5, "seconds": 40.0, "training_seconds": 33.0, "nats": 1.8},
                {"step": 9, "seconds": 90.0, "training_seconds": 83.0, "nats": 1.5512},
            ],
            "train_curve": [],
        }
        for seed in range(3)
    ]
    peer = {
        "threads": 2,
        "parameters": 804_096,
        "import_seconds": 2.3,
        "seconds": 120.5,
        "recipe_nats": 1.874,
        "nats": 1.8811,
    }
    rate = {"first_call_seconds": 1.0, "seconds": [0.1]}
    return {
        "made": "2026-01-31",
        "command": "python -m benchmarks.shakespeare",
        "goal": {"nats": 1.58, "published_peer_nats": 1.88},
        "machine": {
            "processor": "Abacus 9000",
            "cores": 8,
            "cores_usable": 2,
            "system": "Linux x86_64",
            "load_average": 0.25,
            "environment": {"OMP_NUM_THREADS": "2"},
        },
        "versions": {"jax": "0.10.2"},
        "options": {"features": 320, "temperature": 0.8},
        "departures": [],
        "order": ["peer", "seed 0", "seed 1", "seed 2", "peer"],
        "peer": {"budget_seconds": 100.0, "runs": [peer, {**peer, "seconds": 79.5}]},
        "seeds": seeds,
        "sample": "\nROMEO:  \nIs the day so young?\n",
        "generation": {
            "characters": 2000,
            "calls": 5,
            "generate": {"characters_per_second": 21234.5, **rate},
            "stream": {"characters_per_second": 3456.7, **rate},
            "parameters": 543_210,
            "device": {"platform": "cpu", "kind": "cpu", "count": 1},
        },
        "import": {"repeats": 5, "jax_seconds": 1.21, "seqjax_seconds": 0.43, "seqjax_all": [0.43]},
    }


def keep(results: dict, into: Path) -> Path:
    file = into / "benchmarks" / "results" / "shakespeare.json"
    write_whole(file, json.dumps(results))
    return file


def test_the_page_holds_every_number():
    page = shakespeare_report.document(made_up())
    assert "| seqjax, seed 0 | 1.5512 | 0.0288 below | 91.3 s | 91 % | 543,210 |" in page
    assert "| seqjax, seed 2 | 1.5912 | 0.0112 above | 93.3 s | 93 % | 543,210 |" in page
    assert (
        "| nanoGPT's CPU recipe, run 2 | 1.8811 | 0.3011 above | 79.5 s | 80 % | 804,096 |" in page
    )
    for number in ("21,234 char", "3,457 char", "0.43 s", "1.21 s", "6.1 s (seeds: 5.1, 6.1, 7.1)"):
        assert number in page
    assert "```text\nROMEO:\nIs the day so young?\n```" in page
    for word in ("Abacus 9000", "2 of 8 cores", "OMP_NUM_THREADS=2", "jax 0.10.2", "features 320"):
        assert word in page


def test_the_page_says_which_goals_were_missed():
    page = shakespeare_report.document(made_up())
    assert "1.58 nats per character**: **missed** by 1 of 3 seeds. Mean 1.5712" in page
    assert "the worst 0.0112 above" in page
    assert "at most 100.0 s** (the mean of the peer's runs): reached by all 3 seeds" in page
    assert "the slowest seed took 93.3 s, 6.7 s less" in page


def test_the_page_warns_of_other_settings_and_tells_why_there_is_no_peer():
    results = made_up()
    assert "Not the default settings" not in shakespeare_report.document(results)
    results["departures"] = ["char_lm ran with --steps 4"]
    results["peer"] = {
        "budget_seconds": 60.0,
        "runs": [],
        "why_not_run": "PyTorch is not installed",
    }
    page = shakespeare_report.document(results)
    assert "> **Not the default settings**: char_lm ran with --steps 4." in page
    assert "The peer was not run: PyTorch is not installed." in page
    assert "missed** by 3 of 3 seeds" in page
    assert "of the budget" in page
    assert "nanoGPT's CPU recipe, run" not in page


def test_results_without_a_part_are_refused(tmp_path):
    results = made_up()
    del results["peer"], results["sample"]
    with pytest.raises(ValueError, match="hold no peer, sample; expected what"):
        shakespeare_report.document(results)
    keep(results, tmp_path)
    with pytest.raises(SystemExit, match="hold no peer, sample"):
        shakespeare.main(["--report-only", "--into", str(tmp_path)])


@pytest.mark.parametrize("with_peer", [True, False])
def test_the_report_draws_and_writes_from_the_json_alone(tmp_path, with_peer):
    results = made_up()
    if not with_peer:
        results["peer"] = {"budget_seconds": 60.0, "runs": [], "why_not_run": "--budget was given"}
    file = keep(results, tmp_path)
    before = file.read_bytes()
    shakespeare.main(["--report-only", "--into", str(tmp_path)])
    page = tmp_path / "docs" / "shakespeare.md"
    assert page.read_text("utf-8") == shakespeare_report.document(results)
    linked = page.parent / "../benchmarks/results/shakespeare.png"
    assert linked.read_bytes().startswith(b"\x89PNG")
    assert file.read_bytes() == before
    files = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert files == {"shakespeare.json", "shakespeare.png", "shakespeare.md"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--report-only"], "shakespeare.json does not exist; expected it"),
        (["--", "--seed", "3"], "--seed cannot be passed on"),
        (["--", "--data=my.txt"], "--data=my.txt cannot be passed on"),
        (["--seeds", "1", "1"], "expected at least one, and none of them twice"),
        (["--repeats", "0"], "repeats is 0; expected at least 1"),
        (["--budget", "0"], "budget is 0.0; expected seconds"),
    ],
)
def test_what_cannot_be_measured_is_refused_at_once(tmp_path, monkeypatch, arguments, message):
    monkeypatch.setattr(shakespeare, "measure", lambda *_: pytest.fail("it measured"))
    with pytest.raises(SystemExit, match=message):
        shakespeare.main(["--into", str(tmp_path), *arguments])


def test_without_pytorch_a_budget_is_required(tmp_path, monkeypatch):
    find = importlib.util.find_spec
    absent = lambda name: None if name == "torch" else find(name)
    monkeypatch.setattr(importlib.util, "find_spec", absent)
    with pytest.raises(SystemExit, match=r"PyTorch is not installed.*--budget SECONDS"):
        shakespeare.main(["--into", str(tmp_path)])
    options = shakespeare.Options(budget=60.0)
    assert shakespeare.run_peer(options) == []
    assert shakespeare.describe_peer(options, [])["why_not_run"] == "PyTorch is not installed"


@pytest.mark.parametrize(
    "failure", [KeyboardInterrupt(), MeasurementError("no loss; expected one")]
)
def test_a_benchmark_that_does_not_end_leaves_the_old_results(tmp_path, monkeypatch, failure):
    file = keep(made_up(), tmp_path)
    before = file.read_bytes()

    def fails(*_: object) -> dict:
        raise failure

    monkeypatch.setattr(shakespeare, "measure", fails)
    with pytest.raises(SystemExit, match="nothing was written"):
        shakespeare.main(["--into", str(tmp_path), "--budget", "1"])
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [file]
    assert file.read_bytes() == before


def test_the_command_repeats_what_was_asked():
    arguments = ["--seeds", "4", "5", "--budget", "60", "--into", "x", "--", "--steps", "4"]
    options, extra = shakespeare.read_arguments(arguments)
    expected = "python -m benchmarks.shakespeare --seeds 4 5 --budget 60.0 -- --steps 4"
    assert shakespeare.command(options, extra) == expected
    assert shakespeare.command(shakespeare.Options(), []) == "python -m benchmarks.shakespeare"


def test_a_process_that_fails_is_named_with_its_last_lines():
    with pytest.raises(
        MeasurementError, match=r"status 3, expected 0(?s:.*)written(?s:.*)to errors"
    ):
        watch(
            ["-c", "import sys; print('written'); print('to errors', file=sys.stderr); sys.exit(3)"]
        )


ANSWERED = """
import pathlib, sys, time
print("first")
for _ in range(600):
    if pathlib.Path(sys.argv[1]).exists():
        break
    time.sleep(0.1)
else:
    sys.exit("nobody read the first line")
print("[1, 2]")
"""


def test_a_line_is_read_while_the_process_still_runs(tmp_path):
    heard = []

    def answer(line: str) -> None:
        heard.append(line)
        (tmp_path / "answer").touch()

    watched = watch(["-c", ANSWERED, str(tmp_path / "answer")], answer)
    assert heard == ["first", "[1, 2]"]
    assert watched.text == "first\n[1, 2]\n"
    assert watched.result == [1, 2]
    moments = [*(line.seconds for line in watched.lines), watched.seconds]
    assert moments == sorted(moments)


SCREEN = """\
step      1  nats 4.2 (perplexity 66.69)  clipped 0%
step      2    7.2 s  nats 4.1 (perplexity 60.34)
    step 2  1.0 s  nats are what I write

step      4   10.0 s  nats 4.0 (perplexity 54.60)
    and so on


  a line
step      9    1.0 s
curves: in vain


curves: run/curves.png   log: run/log.jsonl
write more: python"""


def test_a_run_is_read_from_its_screen_and_its_log(tmp_path):
    lines = [Line(float(second), text) for second, text in enumerate(SCREEN.split("\n"))]
    watched = Watched(99.0, lines)
    records = [
        {"step": 2, "seconds": 7.1, "train/nats": 4.2},
        {"step": 2, "seconds": 7.2, "valid/nats": 4.1},
        {"step": 4, "seconds": 10.0, "valid/nats": 4.0},
    ]
    assert shakespeare_run.first_loss(lines) == 0
    assert shakespeare_run.first_sample(lines) == 2
    assert shakespeare_run.validation_curve(watched, records) == [
        {"step": 2, "seconds": 1.0, "training_seconds": 7.2, "nats": 4.1},
        {"step": 4, "seconds": 4.0, "training_seconds": 10.0, "nats": 4.0},
    ]
    wrote = "  a line\nstep      9    1.0 s\ncurves: in vain\n"
    (tmp_path / "options.json").write_text(json.dumps({"sample": len(wrote), "seed": 0}))
    assert shakespeare_run.last_sample(watched, tmp_path) == wrote


def test_a_run_that_shows_nothing_or_diverges_is_refused():
    nothing = Watched(1.0, [Line(0.5, "hello")])
    with pytest.raises(MeasurementError, match="no evaluation; expected a line 'step N"):
        shakespeare_run.validation_curve(nothing, [{"step": 2, "seconds": 7.2, "valid/nats": 4.1}])
    with pytest.raises(MeasurementError, match="no loss; expected"):
        shakespeare_run.first_loss(nothing.lines)
    with pytest.raises(MeasurementError, match="no sample; expected"):
        shakespeare_run.first_sample(nothing.lines)
    diverged = Watched(1.0, [Line(0.5, "step 2  7.2 s  nats nan")])
    with pytest.raises(MeasurementError, match="not finite"):
        shakespeare_run.validation_curve(
            diverged, [{"step": 2, "seconds": 7.2, "valid/nats": None}]
        )


def test_json_in_lines_is_the_same_json():
    results = made_up()
    assert json.loads(in_lines(results)) == results
    assert in_lines({"a": [1, 2], "b": [{"é": 1.5}], "c": {}}) == (
        '{\n  "a": [1, 2],\n  "b": [\n    {"é": 1.5}\n  ],\n  "c": {}\n}'
    )


def test_a_tiny_benchmark_from_end_to_end(tmp_path, capsys):
    own = ["--seeds", "0", "--budget", "60", "--repeats", "1", "--characters", "20"]
    tiny = ["--steps", "4", "--features", "8", "--evaluations", "2", "--sample", "50"]
    shakespeare.main([*own, "--into", str(tmp_path), "--", *tiny])
    text = (tmp_path / "benchmarks" / "results" / "shakespeare.json").read_text("utf-8")
    results = json.loads(text)
    (run,) = results["seeds"]
    assert [point["step"] for point in run["curve"]] == [2, 4]
    # Four steps hardly move it from ln 65, the loss of knowing nothing.
    assert 3.5 < run["nats"] < 4.5
    moments = [run["first_loss_seconds"], run["first_sample_seconds"], run["wall_seconds"]]
    assert moments == sorted(moments)
    assert len(results["sample"]) == 50
    assert (results["options"]["steps"], results["options"]["features"]) == (4, 8)
    assert results["generation"]["parameters"] == 65 * 64 + (64 + 8) * 32 + 32 + 8 * 65 + 65
    assert results["generation"]["generate"]["characters_per_second"] > 0
    assert results["import"]["seqjax_seconds"] > 0
    page = (tmp_path / "docs" / "shakespeare.md").read_text("utf-8")
    assert page == shakespeare_report.document(results)
    assert f"{run['nats']:.4f}" in page
    assert "seed 0 | step" in capsys.readouterr().out
    for private in (str(tmp_path), str(shakespeare.ROOT)):
        assert private not in text + page
