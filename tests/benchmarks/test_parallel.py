"""Training on several cores: its measurement, and the soak under its watchdog."""

import json

import pytest

from benchmarks import parallel, parallel_report, parallel_run, soak, soak_run, suites
from benchmarks.peers.worker import Worker
from benchmarks.processes import MeasurementError
from tests.benchmarks.made_up import frame

SMALL = ["--embedding", "3", "--batch", "4", "--time", "5"]


def results() -> dict:
    """Results that no machine has measured."""
    device = lambda second, ratio: {
        "seconds": [second, second],
        "steps_per_second": 1 / second,
        "speed_up": ratio,
        "first_call_seconds": 1.0,
        "difference": 2e-7,
    }
    return {
        **frame("parallel"),
        "rounds": 7,
        "at_least_seconds": 1.0,
        "cases": [
            {
                "features": 128,
                "embedding": 64,
                "batch": 32,
                "time": 48,
                "devices": {"1": device(0.02, 1.0), "2": device(0.0125, 1.61)},
            }
        ],
    }


def test_the_section_says_how_many_times_as_many_updates():
    section = parallel_report.section(results())
    assert "| 128 | 50.0 | 80.0 | 1.61 |" in section
    assert "at most 2e-07 nats" in section
    assert "Abacus 9000" in section
    assert "80.0" in parallel_report.text(results())


def test_a_picture_is_drawn_from_results():
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    from benchmarks.parallel_picture import picture

    assert picture(results())[1:4] == b"PNG"


def test_cores_are_powers_of_two_and_all_as_far_as_they_share_the_batch():
    assert parallel.up_to(2, 32) == [1, 2]
    assert parallel.up_to(12, 32) == [1, 2, 4, 8]
    assert parallel.up_to(12, 24) == [1, 2, 4, 8, 12]
    assert parallel.up_to(12, 31) == [1]


@pytest.mark.usefixtures("standard_promotion")
def test_the_updates_of_the_process_are_those_of_fit():
    trainer = parallel_run.Trainer("1")
    found = trainer.prepare(4, 3, 4, 5)
    assert len(found["losses"]) == parallel_run.COMPARED
    assert found["losses"][-1] < found["losses"][0] + 0.1
    assert trainer.time(1e-4) > 0


@pytest.mark.full
def test_two_devices_begin_with_the_losses_of_one(monkeypatch):
    monkeypatch.setattr(parallel, "AT_LEAST", 1e-4)
    sizes = parallel_run.Sizes(4, 3, 4, 5)
    found = parallel.case(sizes, [1, 2], 2, lambda line: None)
    assert set(found["devices"]) == {"1", "2"}
    assert found["devices"]["2"]["difference"] < 1e-5
    assert found["devices"]["1"]["speed_up"] == 1.0
    assert len(found["devices"]["2"]["seconds"]) == 2


def test_other_losses_on_two_devices_are_no_result(monkeypatch):
    def ask(self, question, *arguments):
        return {"first_call_seconds": 1.0, "losses": [3.0, 2.0 + int(self.name)]}

    monkeypatch.setattr(Worker, "ask", ask)
    with pytest.raises(MeasurementError, match=r"2 devices give losses \[3\.0, 4\.0\] and one"):
        parallel.case(parallel_run.Sizes(4, 3, 4, 5), [1, 2], 1, lambda line: None)


@pytest.mark.parametrize(
    ("suite", "arguments", "message"),
    [
        ("parallel", ["--rounds", "0"], "rounds: expected at least 1"),
        ("parallel", ["--cores", "3"], "cores: expected numbers that share 32 sequences, got 3"),
        ("parallel", ["--report-only"], "parallel.json does not exist"),
        ("parallel", ["--cores", "1"], "there is one core, or no two share 32 sequences"),
        ("soak", ["--steps", "0"], "steps: expected at least 1"),
        ("soak", ["--batch", "1"], "expected at least 2 that share 1 sequences"),
        ("soak", ["--report-only"], "soak.json does not exist"),
    ],
)
def test_what_cannot_be_measured_is_refused(suite, arguments, message, tmp_path):
    with pytest.raises(SystemExit, match=message):
        suites.run([suite, *arguments, "--into", str(tmp_path)])
    assert not any(tmp_path.iterdir())


def test_a_small_soak_comes_to_its_end_and_is_written(tmp_path):
    arguments = ["--steps", "12", "--every", "3", "--features", "4", "--cores", "2", *SMALL]
    suites.run(["soak", *arguments, "--into", str(tmp_path)])
    file = tmp_path / "benchmarks" / "results" / "soak.json"
    found = json.loads(file.read_text("utf-8"))
    assert (found["steps"], found["devices"], found["evaluations"]) == (12, 2, 12)
    assert found["longest_of_all"] < found["patience"]
    page = (tmp_path / "docs" / "benchmarks.md").read_text("utf-8")
    assert "**12 steps without a stop**" in page


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (
            "import time; print('{\"done\": 7}', flush=True); time.sleep(600)",
            r"it hangs: nothing was done for 2 s after \{'done': 7\}",
        ),
        ("raise SystemExit(3)", "it ended with status 3 after nothing"),
        ("print('{\"done\": 7}')", r"it ended with status 0 after \{'done': 7\}"),
        ("import sys; sys.exit('no such thing')", "    no such thing"),
    ],
)
def test_a_training_that_stops_is_one_sentence(program, message):
    with pytest.raises(MeasurementError, match=message):
        soak.guarded(["-c", program], 2.0, lambda line: None)


def test_the_windows_tell_how_many_are_done(capsys):
    assert list(soak_run.told(iter("abcde"), 2)) == list("abcde")  # pyright: ignore[reportArgumentType] - anything
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["done"] for line in lines] == [0, 2, 4]


def test_a_soak_that_fails_is_a_failure_of_the_command(monkeypatch, tmp_path):
    def hangs(*arguments):
        raise MeasurementError("it hangs: nothing was done for 60 s")

    monkeypatch.setattr(soak, "guarded", hangs)
    with pytest.raises(
        SystemExit, match="it hangs: nothing was done for 60 s\nnothing was written"
    ):
        suites.run(["soak", "--cores", "2", "--into", str(tmp_path)])
    assert not any(tmp_path.iterdir())
