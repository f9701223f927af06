"""The log of a run, one JSON object a line, and the picture of its curves."""

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from seqjax.training.loop import Callback, Run
from seqjax.training.state import Record, Totals


class Log(Callback):
    """Records of a run in memory, and in `log.jsonl` where the run has a directory.

    A line holds step, seconds, tokens, the mean of each metric since the last line as "train/…" and
    the statistics of the optimizer; another one the values of an evaluation as "valid/…".
    """

    def __init__(self, every: int) -> None:
        """every: steps from one line to the next; an evaluation has one too."""
        self.records: list[Record] = []
        self._every, self._totals, self._path = every, Totals(), None

    def on_start(self, run: Run) -> None:
        """Read the log that is there, without what a killed process wrote after `run.step`."""
        if run.directory is None:
            return
        self._path = run.directory / "log.jsonl"
        if self._path.exists():
            self.records[:] = [r for r in read_log(self._path) if r["step"] <= run.step]
            beside = self._path.with_name("log.jsonl.new")
            beside.write_text("".join(json.dumps(r) + "\n" for r in self.records), "utf-8")
            os.replace(beside, self._path)

    def on_step(self, run: Run) -> None:
        """Write the means since the last line, if one is due."""
        self._totals.merge(run.metrics)
        if run.evaluating or run.step % self._every == 0:
            means = {f"train/{name}": mean for name, mean in self._totals.means().items()}
            self._totals = Totals()
            self._write(run, means | run.statistics())

    def on_evaluation(self, run: Run, values: Record) -> None:
        """Write the values of an evaluation."""
        if values:
            self._write(run, {f"valid/{name}": value for name, value in values.items()})

    def get_state(self) -> Any:
        """The sums since the last line."""
        return {name: pair.tolist() for name, pair in self._totals.totals.items()}

    def set_state(self, state: Any) -> None:
        """Go on with these sums."""
        self._totals = Totals(state)

    def _write(self, run: Run, values: Record) -> None:
        start = {"step": run.step, "seconds": round(run.seconds, 3), "tokens": run.tokens}
        record = {name: finite_or_none(value) for name, value in (start | values).items()}
        self.records.append(record)
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")


def finite_or_none(value: Any) -> Any:
    """`value`, with None for each number that JSON cannot hold: a loss that diverged."""
    if isinstance(value, list):
        return [finite_or_none(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_log(path: str | os.PathLike[str]) -> list[Record]:
    """Read the records of a log, but for a last line that a killed process left unfinished.

    Raises a ValueError for a file that is not UTF-8: a log is ASCII, so a killed process cannot leave
    half a character.
    """
    raw, records = Path(path).read_bytes(), []
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{os.fspath(path)} is not UTF-8: byte 0x{raw[error.start]:02x} at offset {error.start}; "
            "expected a log that training wrote"
        ) from None
    for line in text.splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return records


class Curves(Callback):
    """`curves.png` in the directory of a run, drawn from its log when it ends."""

    def __init__(self, log: Log) -> None:
        """log: what is drawn."""
        self._log = log

    def on_end(self, run: Run) -> None:
        """Draw all metrics."""
        if run.directory is not None:
            plot_curves(self._log.records, run.directory / "curves.png")


def plot_curves(
    records: Sequence[Record], path: Path, *, metrics: Sequence[str] | None = None
) -> bool:
    """Draw metrics against steps into a PNG, training and evaluation in one panel for each.

    metrics: names without "train/" and "valid/"; None draws all that are logged.

    Returns False, and draws nothing, where matplotlib is not installed or there is nothing to draw.
    """
    curves: dict[str, dict[str, list[tuple[int, Any]]]] = {}
    for record in records:
        for name, value in record.items():
            part, _, metric = name.partition("/")
            wanted = metric if metrics is None else metric in metrics
            if wanted and part in ("train", "valid") and value is not None:
                curves.setdefault(metric, {}).setdefault(part, []).append((record["step"], value))
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    if not curves:
        return False
    columns = min(3, len(curves))
    rows = -(-len(curves) // columns)
    figure = Figure(figsize=(7 if columns == 1 else 5 * columns, 4.2 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).flat
    for panel in list(panels)[len(curves) :]:
        panel.remove()
    for panel, (metric, parts) in zip(figure.axes, curves.items(), strict=True):
        for part, points in sorted(parts.items()):
            steps, values = zip(*points, strict=True)
            # A curve for each entry where a record is a list; None, which diverged, is a gap.
            ys = np.array(values, np.float64)
            style = "-" if part == "train" else "o-"
            first, *_ = panel.plot(steps, ys, style, markersize=4, linewidth=1.2)
            first.set_label(f"{part}/{metric}")
        panel.set(xlabel="step", ylabel=metric)
        panel.grid(alpha=0.3)
        panel.legend(frameon=False)
    figure.savefig(path, dpi=130)
    return True
