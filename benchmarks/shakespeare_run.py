"""One training of examples/char_lm.py, as a user starts it, watched from the start of its process."""

import itertools
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.processes import Line, MeasurementError, Watched, watch
from seqjax.training import read_log

# What the screen of a run shows: a line with a loss, and the line after an evaluation.
LOSS = re.compile(r"step +\d+ .*\bnats ")
EVALUATION = re.compile(r"step +(\d+) +[\d.]+ s .*\bnats ")
END = "\n\ncurves: "


def train(
    seed: int, run: Path, extra: Sequence[str], echo: Callable[[str], None]
) -> dict[str, Any]:
    """Train into the folder `run`, and say what was seen; `extra` are options of char_lm.

    Raises a MeasurementError where the run fails, diverges, or shows something else than expected.
    """
    arguments = ["examples/char_lm.py", "--seed", str(seed), "--run", str(run), *extra]
    watched = watch(arguments, echo)
    records = read_log(run / "log.jsonl")
    curve = validation_curve(watched, records)
    return {
        "seed": seed,
        "nats": curve[-1]["nats"],
        "wall_seconds": round(watched.seconds, 3),
        "first_loss_seconds": round(first_loss(watched.lines), 3),
        "first_sample_seconds": round(first_sample(watched.lines), 3),
        "curve": curve,
        "train_curve": [
            {"step": r["step"], "training_seconds": r["seconds"], "nats": r["train/nats"]}
            for r in records
            if "train/nats" in r
        ],
        "options": read_options(run),
        "sample": last_sample(watched, run),
    }


def validation_curve(watched: Watched, records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The validation losses of the log, each at the moment when it came onto the screen.

    seconds: since the start of the process; training_seconds: by the run's own clock.
    """
    shown = {}
    for line in watched.lines:
        if match := EVALUATION.match(line.text):
            shown[int(match[1])] = line.seconds
    curve = [
        {
            "step": record["step"],
            "seconds": round(shown[record["step"]], 3),
            "training_seconds": record["seconds"],
            "nats": record["valid/nats"],
        }
        for record in records
        if "valid/nats" in record and record["step"] in shown
    ]
    if not curve:
        raise MeasurementError(
            "examples/char_lm.py showed no evaluation; expected a line 'step N  SECONDS s  nats LOSS' "
            "on the screen, and a record with 'valid/nats' for that step in log.jsonl"
        )
    if curve[-1]["nats"] is None:
        raise MeasurementError(
            "examples/char_lm.py ended with a validation loss that is not finite; expected a number"
        )
    return curve


def first_loss(lines: Sequence[Line]) -> float:
    """When the first loss came onto the screen."""
    for line in lines:
        if LOSS.match(line.text):
            return line.seconds
    raise MeasurementError(
        "examples/char_lm.py showed no loss; expected a line 'step N  nats LOSS' on the screen"
    )


def first_sample(lines: Sequence[Line]) -> float:
    """When the first text of the model came onto the screen: the line after the first evaluation."""
    for line, after in itertools.pairwise(lines):
        if EVALUATION.match(line.text):
            return after.seconds
    raise MeasurementError(
        "examples/char_lm.py showed no sample; expected one after a line 'step N  SECONDS s  nats LOSS'"
    )


def last_sample(watched: Watched, run: Path) -> str:
    """The text that the model wrote in the end: characters before the line that names the curves."""
    end = watched.text.rfind(END)
    length = read_options(run)["sample"]
    if end < length:
        raise MeasurementError(
            f"examples/char_lm.py showed no text of {length} characters before a line 'curves: FILE', "
            "as expected at its end"
        )
    return watched.text[end - length : end]


def read_options(run: Path) -> dict[str, Any]:
    """The options of a run, without those that say where things are."""
    options = json.loads((run / "options.json").read_text("utf-8"))
    return {k: v for k, v in options.items() if k not in ("data", "run", "resume", "seed")}
