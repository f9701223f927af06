"""Truncation: how far truncated gradients are from exact ones, and what they cost.

python -m benchmarks.truncation                  measure, draw, write the page: about two minutes
python -m benchmarks.truncation --report-only    draw and write again from the JSON
"""

import dataclasses
import datetime
import importlib.util
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tyro

from benchmarks import truncation_report
from benchmarks.files import in_lines, write_whole
from benchmarks.machine import describe_machine, versions
from benchmarks.processes import ROOT
from benchmarks.truncation_run import Problem, biases, costs


@dataclasses.dataclass(frozen=True)
class Options(Problem):
    """Measure the bias of truncated gradients on random data, and the time and memory they take."""

    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """Each draws weights and data of its own."""
    repeats: int = 20
    """Timed calls of each gradient; the quickest counts."""
    into: Path = ROOT
    """The folder whose benchmarks/results/ and docs/ are written; the checkout unless given."""
    report_only: bool = False
    """Measure nothing: draw the picture and write docs/truncation.md again from the JSON."""

    @property
    def problem(self) -> Problem:
        """Sizes alone."""
        return Problem(**{f.name: getattr(self, f.name) for f in dataclasses.fields(Problem)})


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, unless only the report is asked for; then draw and write."""
    options = tyro.cli(Options, args=arguments, prog="python -m benchmarks.truncation")
    file = options.into / "benchmarks" / "results" / "truncation.json"
    check(options, file)
    if not options.report_only:
        try:
            results = measure(options)
        except KeyboardInterrupt:
            sys.exit("\ninterrupted; nothing was written")
        write_whole(file, in_lines(results) + "\n")
    report(file, options)


def check(options: Options, file: Path) -> None:
    """Refuse at once what cannot be measured."""
    if importlib.util.find_spec("matplotlib") is None:
        sys.exit(
            "matplotlib is not installed; expected it, for the picture: pip install seqjax[plot]"
        )
    if options.report_only and not file.is_file():
        sys.exit(f"{file} does not exist; expected it, as a measurement writes it")
    if not options.seeds or min(options.seeds) < 0 or len(set(options.seeds)) < len(options.seeds):
        sys.exit(f"seeds are {options.seeds}; expected at least one, from 0 on, and none twice")
    for name in ("features", "lanes", "repeats"):
        if getattr(options, name) < 1:
            sys.exit(f"{name} is {getattr(options, name)}; expected at least 1")
    if options.time < 2 or options.time & (options.time - 1):
        sys.exit(f"time is {options.time}; expected a power of two, at least 2")


def measure(options: Options) -> dict[str, Any]:
    """All numbers, in this process."""
    say = lambda line: print(line, flush=True)
    return {
        "benchmark": "truncation",
        "made": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": describe_machine(),
        "versions": versions(),
        "options": dataclasses.asdict(options.problem) | {"repeats": options.repeats},
        "biases": biases(options.problem, options.seeds, say),
        "costs": costs(options.problem, options.repeats, say),
    }


def report(file: Path, options: Options) -> None:
    """The picture and the page, from the JSON; both are made before the first is written."""
    from benchmarks.truncation_picture import picture  # matplotlib: not for --help

    results = json.loads(file.read_text("utf-8"))
    try:
        page = truncation_report.document(results)
    except ValueError as error:
        sys.exit(f"{file}: {error}")
    for path, content in (
        (file.with_suffix(".png"), picture(results)),
        (options.into / "docs" / "truncation.md", page),
    ):
        write_whole(path, content)
        print(f"wrote {path.relative_to(options.into)}")


if __name__ == "__main__":
    main()
