"""A run that is killed, or asked to stop, goes on to the numbers of a run that never was."""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

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


def finish(process: subprocess.Popen) -> str:
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return output


def checkpoints(directory: Path) -> set[str]:
    folder = directory / "checkpoints"
    return {p.name for p in folder.iterdir() if p.name.isdigit()} if folder.exists() else set()


def wait_for_checkpoint(process: subprocess.Popen, directory: Path) -> None:
    """Until a checkpoint is there that was not."""
    before, deadline = checkpoints(directory), time.monotonic() + 120
    while checkpoints(directory) <= before and time.monotonic() < deadline:
        assert process.poll() is None, "the run ended before it could be stopped: make it longer"
        time.sleep(0.005)


def numbers(directory: Path) -> list[dict]:
    """The log without what the clock says."""
    return [
        {k: v for k, v in r.items() if k != "seconds"} for r in read_log(directory / "log.jsonl")
    ]


def test_a_run_that_is_killed_and_interrupted_goes_on_bit_for_bit(tmp_path):
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    beside, moments = start(unbroken), random.Random(0)
    for _ in range(2):
        process = start(broken)
        wait_for_checkpoint(process, broken)
        time.sleep(moments.uniform(0.0, 0.1))
        process.kill()
        process.communicate()
    process = start(broken)
    wait_for_checkpoint(process, broken)
    process.send_signal(signal.SIGINT)
    output = finish(process)
    stopped = int(output.split("interrupted")[1].split()[0])
    assert f"stopped after step {stopped}, saved in {broken}" in output
    assert 0 < stopped < small_run.STEPS
    assert str(stopped) in checkpoints(broken)
    assert (broken / "curves.png").stat().st_size > 1000
    assert f"going on from step {stopped}" in finish(start(broken))
    finish(beside)
    result = json.loads((broken / "result.json").read_text())
    assert result == json.loads((unbroken / "result.json").read_text())
    assert numbers(broken) == numbers(unbroken)

    records = read_log(unbroken / "log.jsonl")
    valid = {r["step"]: r["valid/nats"] for r in records if "valid/nats" in r}
    assert list(valid) == list(range(small_run.EVERY, small_run.STEPS + 1, small_run.EVERY))
    assert valid[small_run.STEPS] < valid[small_run.EVERY]
    last = [r for r in records if "train/nats" in r][-1]
    assert last["step"] == small_run.STEPS < last["steps"] < 2 * small_run.STEPS  # ragged passes
    assert last["tokens"] > 0
    assert (unbroken / "curves.png").read_bytes().startswith(b"\x89PNG")
