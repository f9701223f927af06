"""Memory: what reverse mode keeps under each `remat`, by XLA's own account, and what it costs in time.

python -m benchmarks.memory                   measure, draw, write the page: ten minutes on two cores
python -m benchmarks.memory --report-only     draw and write again from the JSON
"""

import dataclasses
import datetime
import importlib.util
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import tyro

from benchmarks import memory_report
from benchmarks.files import in_lines, write_whole
from benchmarks.machine import describe_machine, versions
from benchmarks.memory_run import CELLS, LOSSES, REMATS, Case, Shape, bytes_of, times_of
from benchmarks.processes import ROOT


@dataclasses.dataclass(frozen=True)
class Options:
    """Measure memory and time of gradients through time, and report."""

    long: tuple[int, int, int, int] = (16384, 8, 64, 256)
    """T, B, D, H of the sequence whose bytes and time are measured."""
    longest: tuple[int, int, int, int] = (1_000_000, 1, 128, 128)
    """T, B, D, H of the sequence that only segments can hold."""
    rounds: int = 5
    """Rounds of each time, after one that is not counted."""
    into: Path = ROOT
    """The folder whose benchmarks/results/ and docs/ are written; the checkout unless given."""
    report_only: bool = False
    """Measure nothing: draw the picture and write docs/memory.md again from the JSON."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, unless only the report is asked for; then draw and write."""
    options = tyro.cli(Options, args=arguments, prog="python -m benchmarks.memory")
    file = options.into / "benchmarks" / "results" / "memory.json"
    check(options, file)
    if not options.report_only:
        write_whole(file, in_lines(measure(options, lambda line: print(line, flush=True))) + "\n")
    from benchmarks.memory_picture import picture  # matplotlib is there only now

    results = json.loads(file.read_text("utf-8"))
    write_whole(file.with_suffix(".png"), picture(results))
    page = options.into / "docs" / "memory.md"
    write_whole(page, memory_report.page(results))
    print(f"wrote {file}, {file.with_suffix('.png')} and {page}")


def check(options: Options, file: Path) -> None:
    """Refuse, before minutes have passed, what cannot be measured."""
    if importlib.util.find_spec("matplotlib") is None:
        sys.exit(
            "matplotlib is not installed; expected it, for the picture: pip install seqjax[plot]"
        )
    if options.report_only and not file.is_file():
        sys.exit(f"{file} does not exist; expected it, as a measurement writes it")
    shapes = (options.long, options.longest)
    if options.rounds < 1 or any(size < 1 for shape in shapes for size in shape):
        sys.exit("rounds and all sizes: expected at least 1")


def measure(options: Options, say: Callable[[str], None]) -> dict[str, Any]:
    """All numbers of the page."""
    long, longest = Shape(*options.long), Shape(*options.longest)
    account = [
        Case(cell, long, loss, remat) for cell in CELLS for loss in LOSSES for remat in REMATS
    ]
    account += [Case("LSTM", longest, loss, "sqrt") for loss in ("last state", "folded")]
    growth = [
        Case("LSTM", long._replace(time=max(1, long.time // 4**n)), "last state", remat)
        for n in range(4)
        for remat in REMATS
    ]
    results: dict[str, Any] = {
        "benchmark": "memory",
        "made": datetime.date.today().isoformat(),
        "machine": describe_machine(),
        "versions": versions(),
        "rounds": options.rounds,
        "long": list(long),
        "longest": list(longest),
        "bytes": bytes_of(account, say),
        "growth": bytes_of(growth, say),
        "times": [],
    }
    for loss in LOSSES:
        plain = Case("LSTM", long, "every output" if loss == "folded" else loss, None)
        cases = [plain, *(Case("LSTM", long, loss, remat) for remat in REMATS[1:])]
        results["times"] += times_of(cases, options.rounds, say)
    return results


if __name__ == "__main__":
    main()
