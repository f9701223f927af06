"""A run that is killed, or asked to stop, goes on to the numbers of a run that never was."""

import functools
import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import pytest

import seqjax as sj
from seqjax.training import read_log

STEPS, EVERY = 60, 5


def main(directory: Path) -> None:
    """A small training, as a process of its own that can be killed."""
    text = "the quick brown fox jumps over the lazy dog. " * 40
    tokenizer = sj.data.CharTokenizer.train(text)
    train, valid = sj.data.split(tokenizer.encode(text))
    model = sj.models.LanguageModel(tokenizer.size, sj.Dropout(sj.GRU(8), 0.2), 4, dropout=0.1)
    params = model.init(jax.random.key(1))
    optimizer = sj.optim.clipped_adamw(1e-2, clip_norm=0.5)
    carry = model.initial_state(params, (4,), key=jax.random.key(3))
    state = sj.training.TrainState.create(params, optimizer, jax.random.key(2), carry)
    lanes = sj.data.lanes(valid, 4)
    result = sj.training.fit(
        model.loss,
        optimizer,
        state,
        sj.data.Windows(sj.data.lanes(train, 4), 8, windows_per_batch=2),
        steps=STEPS,
        method=sj.tbptt(8),
        evaluate=lambda p: sj.training.evaluate(
            model.loss, p, model.initial_state(p, (4,)), [lanes]
        ),
        evaluate_every=EVERY,
        log_every=2,
        directory=directory,
    )
    if result.interrupted:
        print("interrupted", int(result.state.step), flush=True)
        return
    total = functools.reduce(
        lambda sum_, leaf: sum_ + float(abs(leaf).sum()),
        jax.tree.leaves((result.state.params, result.state.carry.cell)),
        0.0,
    )
    (directory / "result.json").write_text(json.dumps({"total": total.hex()}))
    print("done", flush=True)


def start(directory: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.training.test_resume", str(directory)],
        cwd=Path(__file__).parents[2],
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


@pytest.mark.parametrize("kills", [1, pytest.param(4, marks=pytest.mark.full)])
def test_a_run_that_is_killed_and_interrupted_goes_on_bit_for_bit(tmp_path, kills):
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    beside, moments = start(unbroken), random.Random(0)
    for _ in range(kills):
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
    assert 0 < stopped < STEPS
    assert str(stopped) in checkpoints(broken)
    assert (broken / "curves.png").stat().st_size > 1000
    assert f"going on from step {stopped}" in finish(start(broken))
    finish(beside)
    result = json.loads((broken / "result.json").read_text())
    assert result == json.loads((unbroken / "result.json").read_text())
    assert numbers(broken) == numbers(unbroken)

    records = read_log(unbroken / "log.jsonl")
    valid = {r["step"]: r["valid/nats"] for r in records if "valid/nats" in r}
    assert list(valid) == list(range(EVERY, STEPS + 1, EVERY))
    assert valid[STEPS] < valid[EVERY]
    last = [r for r in records if "train/nats" in r][-1]
    assert last["step"] == STEPS < last["steps"] < 2 * STEPS  # ragged passes
    assert last["tokens"] > 0
    assert (unbroken / "curves.png").read_bytes().startswith(b"\x89PNG")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
