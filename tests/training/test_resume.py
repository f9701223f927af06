"""A run that is killed, or asked to stop, goes on to the numbers of a run that never was."""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from seqjax.training import read_log
from tests.training import small_run

ROOT = Path(small_run.__file__).parents[2]


def start(directory: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.training.small_run", str(directory)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(directory: Path) -> str:
    process = start(directory)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return output


def wait_for_checkpoint(process: subprocess.Popen, directory: Path, after: set[str]) -> None:
    """Until a checkpoint is there that was not, or the process is done."""
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        folder = directory / "checkpoints"
        if folder.exists() and {p.name for p in folder.iterdir() if p.name.isdigit()} - after:
            return
        time.sleep(0.005)


def numbers(directory: Path) -> list[dict]:
    """The log without what the clock says."""
    return [
        {k: v for k, v in r.items() if k != "seconds"} for r in read_log(directory / "log.jsonl")
    ]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("unbroken")
    finish(directory)
    return directory


def assert_same_run(directory: Path, unbroken: Path) -> None:
    result = json.loads((directory / "result.json").read_text())
    assert result == json.loads((unbroken / "result.json").read_text())
    assert numbers(directory) == numbers(unbroken)


def test_a_killed_run_goes_on_bit_for_bit(tmp_path, unbroken):
    moments = random.Random(0)
    kills, seen = 0, set()
    while kills < 3:
        process = start(tmp_path)
        wait_for_checkpoint(process, tmp_path, seen)
        time.sleep(moments.uniform(0.0, 0.15))
        if process.poll() is not None:
            break
        process.kill()
        process.communicate()
        kills += 1
        seen = {p.name for p in (tmp_path / "checkpoints").iterdir()}
    assert kills >= 2, "the run ended before it could be killed twice: make it longer"
    output = finish(tmp_path)
    assert "going on from step" in output
    assert_same_run(tmp_path, unbroken)


def test_ctrl_c_saves_and_a_second_run_goes_on_bit_for_bit(tmp_path, unbroken):
    process = start(tmp_path)
    wait_for_checkpoint(process, tmp_path, set())
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert "interrupted" in output
    assert "stopped after step" in output
    stopped = int(output.split("interrupted")[1].split()[0])
    assert 0 < stopped < small_run.STEPS
    assert (tmp_path / "checkpoints" / str(stopped)).is_dir()
    assert (tmp_path / "curves.png").stat().st_size > 1000
    assert f"going on from step {stopped}" in finish(tmp_path)
    assert_same_run(tmp_path, unbroken)


def test_the_log_and_the_curves_are_there(unbroken):
    records = read_log(unbroken / "log.jsonl")
    assert [r["step"] for r in records if "valid/nats" in r] == list(
        range(small_run.EVERY, small_run.STEPS + 1, small_run.EVERY)
    )
    last = [r for r in records if "train/nats" in r][-1]
    assert last["step"] == small_run.STEPS < last["steps"] < 2 * small_run.STEPS  # ragged passes
    assert last["tokens"] > 0
    assert (unbroken / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert records[-1]["valid/nats"] < records[2]["valid/nats"]
