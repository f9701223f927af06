"""The examples on real sets, beside published results: python -m benchmarks.quality ROWS --data FOLDER

python -m benchmarks.quality --data FOLDER               all rows that two cores can do, what is missing
python -m benchmarks.quality tagging --data FOLDER       one of them
python -m benchmarks.quality --report-only               write docs/results.md again from the JSON

A trial is not made again where the JSON has it with the same options. Ctrl-C keeps what is under way in
its run folder, and the same command goes on there.
"""

import dataclasses
import datetime
import importlib
import json
import shlex
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import jax
import tyro

from benchmarks.files import in_lines, write_whole
from benchmarks.machine import describe_machine, versions
from benchmarks.processes import ROOT
from benchmarks.quality_report import page
from benchmarks.quality_rows import ROWS, Row


@dataclasses.dataclass(frozen=True)
class Options:
    """Train the examples on real sets, and report."""

    rows: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """Which; all that need no GPU, or all where there is one."""
    data: Path | None = None
    """The folder of all sets."""
    trials: int | None = None
    """At most so many of each row."""
    runs: Path = Path("runs/quality")
    """Where the run folders are, and what is made of the sets."""
    into: Path = ROOT
    """The folder whose benchmarks/results/ and docs/ are written; the checkout unless given."""
    report_only: bool = False
    """Train nothing: write docs/results.md again from the JSON."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Train what is missing, one after another; write after each."""
    options = tyro.cli(Options, args=arguments, prog="python -m benchmarks.quality")
    unknown = [name for name in options.rows if name not in ROWS]
    if unknown:
        sys.exit(f"rows: expected some of {', '.join(ROWS)}, got {', '.join(unknown)}")
    if options.trials is not None and options.trials < 1:
        sys.exit(f"trials: expected at least 1, got {options.trials}")
    file = options.into / "benchmarks" / "results" / "quality.json"
    if not options.report_only:
        if options.data is None or not options.data.is_dir():
            sys.exit(f"--data: expected the folder of the sets, got {options.data}")
        for name in options.rows or tuple(n for n, row in ROWS.items() if fits(row)):
            for trial in range(min(ROWS[name].trials, options.trials or ROWS[name].trials)):
                if not any(same(result, name, trial) for result in read(file)):
                    keep(file, train(name, trial, options))
    write_whole(options.into / "docs" / "results.md", page(read(file)))
    print(f"wrote {options.into / 'docs' / 'results.md'}")


def read(file: Path) -> list[dict[str, Any]]:
    """All results so far."""
    return json.loads(file.read_text("utf-8")) if file.is_file() else []


def keep(file: Path, result: dict[str, Any]) -> None:
    """In place of an older one, beside what another process may have written meanwhile."""
    of = lambda r: (list(ROWS).index(r["row"]), r["trial"])
    others = [r for r in read(file) if r["row"] in ROWS and of(r) != of(result)]
    write_whole(file, in_lines(sorted([*others, result], key=of)) + "\n")


def fits(row: Row) -> bool:
    """Whether this machine does it without being told to."""
    return not row.big or jax.default_backend() != "cpu"


def same(result: dict[str, Any], name: str, trial: int) -> bool:
    """Whether this is the result of that trial, with the options that the row has now."""
    return (result["row"], result["trial"]) == (name, trial) and (
        result["options"] == ROWS[name].options
    )


def train(name: str, trial: int, options: Options) -> dict[str, Any]:
    """One trial, in this process: what the example's main gives, and what it ran on."""
    row = ROWS[name]
    assert options.data is not None
    # Of its own for other options, as a run that is there is gone on with.
    run = options.runs / f"{name}-{trial}-{zlib.crc32(row.options.encode()):08x}"
    where = row.data(options.data, options.runs / "data", trial)
    command = [*shlex.split(row.options), "--seed", str(trial)]
    example = importlib.import_module(f"examples.{row.example}")
    print(f"\n{name}, trial {trial}: examples/{row.example}.py {shlex.join(command)}", flush=True)
    result = {
        "row": name,
        "trial": trial,
        "options": row.options,
        "made": datetime.date.today().isoformat(),
        "device": jax.devices()[0].device_kind,
        "machine": describe_machine(),
        "versions": versions(),
    }
    paths = ["--data", str(where), "--run", str(run)]
    numbers = example.main(tyro.cli(example.Options, args=[*command, *paths]))
    log = [json.loads(line) for line in (run / "log.jsonl").read_text("utf-8").splitlines()]
    seconds = round(max(line["seconds"] for line in log if "seconds" in line), 1)
    return result | {"seconds": seconds, "numbers": numbers}


if __name__ == "__main__":
    main()
