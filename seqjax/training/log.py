"""The log of a run: one JSON object a line, and its curves."""

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from seqjax.training.totals import Record


class Log:
    """A JSON-lines file that goes on where a checkpoint says."""

    def __init__(self, path: Path | None, step: int = 0) -> None:
        """Read what is there; forget what a killed process wrote after step `step`."""
        self.path = path
        self.records: list[Record] = []
        if path is not None and path.exists():
            self.records = [r for r in read_log(path) if r["step"] <= step]
            beside = path.with_name(path.name + ".new")
            beside.write_text("".join(json.dumps(r) + "\n" for r in self.records), "utf-8")
            os.replace(beside, path)

    def write(self, record: Record) -> None:
        """Add one record and put it on disk."""
        # JSON has no NaN; a loss that diverged is null.
        record = {k: finite_or_none(v) for k, v in record.items()}
        self.records.append(record)
        if self.path is not None:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")


def finite_or_none(value: Any) -> Any:
    """`value`, or None for a number that JSON cannot hold; of a list each by itself."""
    if isinstance(value, list):
        return [finite_or_none(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_log(path: str | os.PathLike[str]) -> list[Record]:
    """The records of a log; a last line that a killed process left unfinished is not one.

    Raises a ValueError for a file that is not UTF-8: a log is ASCII, so no process that is killed leaves
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


def plot_curves(records: Sequence[Record], path: Path, *, metric: str = "nats") -> bool:
    """Draw the metric of training and evaluation against steps into a PNG.

    False, and no picture, where matplotlib is not installed or there is nothing to draw.
    """
    curves = {
        name: [(r["step"], r[name]) for r in records if r.get(name) is not None]
        for name in (f"train/{metric}", f"valid/{metric}")
    }
    if not any(curves.values()):
        return False
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return False
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for (name, points), style in zip(curves.items(), ("-", "o-"), strict=True):
        if points:
            steps, values = zip(*points, strict=True)
            # A curve for each entry where a record is a list; None, which diverged, is a gap.
            ys = np.array(values, np.float64)
            first, *_ = axes.plot(steps, ys, style, markersize=4, linewidth=1.2)
            first.set_label(name)
    axes.set_xlabel("step")
    axes.set_ylabel(metric)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=130)
    return True
