"""Long memory: which cells learn the adding problem, the copy task and parity, by one small recipe.

python -m benchmarks.long_memory --processes 2            measure what is missing, draw, write the page
python -m benchmarks.long_memory --report-only            draw and write again from the JSON
python -m benchmarks.long_memory --cells LSTM --tasks adding --lengths 100 200      only these
"""

import concurrent.futures
import dataclasses
import datetime
import importlib.util
import json
import os
import queue
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import tyro

from benchmarks import long_memory_report
from benchmarks.files import in_lines, write_whole
from benchmarks.long_memory_recipe import CELLS, TASKS, Recipe, Run
from benchmarks.long_memory_run import command as run_command
from benchmarks.machine import describe_machine, versions
from benchmarks.processes import ROOT, MeasurementError, watch


@dataclasses.dataclass(frozen=True)
class Options(Recipe):
    """Train each cell on each task and length, and report.

    Each training runs in a fresh process on one core. Its result is written when it has ended: Ctrl-C
    loses only the trainings that are under way, and the next call goes on from there.
    """

    cells: tuple[str, ...] = ()
    """The cells, by their names in the table; all unless given."""
    tasks: tuple[str, ...] = ()
    """adding, copy, parity; all unless given."""
    lengths: tuple[int, ...] = ()
    """T, for each task; those of benchmarks/long_memory_recipe.py unless given."""
    learning_rates: tuple[float, ...] = ()
    """Tried in this order until one solves the task; those of long_memory_recipe.py unless given."""
    seeds: tuple[int, ...] = (0,)
    """Each is a training of its own."""
    processes: int = 1
    """Trainings at the same time, each on a core of its own."""
    again: bool = False
    """Measure what is asked for even if it is there; with another recipe, discard what is there."""
    into: Path = ROOT
    """The folder whose benchmarks/results/ and docs/ are written; the checkout unless given."""
    report_only: bool = False
    """Measure nothing: draw the picture and write docs/long_memory.md again from the JSON."""

    @property
    def recipe(self) -> Recipe:
        """What is the same for all trainings."""
        return Recipe(**{f.name: getattr(self, f.name) for f in dataclasses.fields(Recipe)})


class Unit(NamedTuple):
    """What is to be solved: tried with each learning rate in turn until one does."""

    cell: str
    task: str
    length: int
    seed: int


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is missing, unless only the report is asked for; then draw and write."""
    options = tyro.cli(Options, args=arguments, prog="python -m benchmarks.long_memory")
    file = options.into / "benchmarks" / "results" / "long_memory.json"
    check(options, file)
    if not options.report_only:
        results = begin(options, read(file))
        try:
            measure(options, results, lambda: write_whole(file, in_lines(results) + "\n"))
        except MeasurementError as error:
            sys.exit(f"{error}\nwhat had ended before is kept")
        except KeyboardInterrupt:
            sys.exit(
                f"\ninterrupted; {len(results['runs'])} trainings are kept: call again to go on"
            )
    report(file, options)


def check(options: Options, file: Path) -> None:
    """Refuse, before hours have passed, what cannot be measured."""
    if importlib.util.find_spec("matplotlib") is None:
        sys.exit(
            "matplotlib is not installed; expected it, for the picture: pip install seqjax[plot]"
        )
    if options.report_only:
        if not file.is_file():
            sys.exit(f"{file} does not exist; expected it, as a measurement writes it")
        return
    for name, known in (("cells", CELLS), ("tasks", TASKS)):
        for value in getattr(options, name):
            if value not in known:
                sys.exit(f"{name}: {value!r} is unknown; expected some of {', '.join(known)}")
    for name in ("cells", "tasks", "lengths", "learning_rates", "seeds"):
        values = getattr(options, name)
        if len(set(values)) < len(values):
            sys.exit(f"{name} are {values}; expected none of them twice")
    if not options.seeds or min(options.seeds) < 0:
        sys.exit(f"seeds are {options.seeds}; expected at least one, from 0 on")
    for name in ("features", "batch", "updates", "evaluate_every", "tested", "processes"):
        if getattr(options, name) < 1:
            sys.exit(f"{name} is {getattr(options, name)}; expected at least 1")
    if options.lengths and min(options.lengths) < 2:
        sys.exit(f"lengths are {options.lengths}; expected at least 2 steps")
    for rate in (*options.learning_rates, options.clip_norm):
        if not 0 < rate < float("inf"):
            sys.exit(
                f"learning_rates and clip_norm: {rate} is among them; expected positive numbers"
            )
    if options.processes > len(cores()):
        sys.exit(
            f"processes is {options.processes}, but {len(cores())} cores are usable; "
            "expected a core for each"
        )


def read(file: Path) -> dict[str, Any] | None:
    """The results that are there."""
    if not file.is_file():
        return None
    try:
        return json.loads(file.read_text("utf-8"))
    except ValueError as error:
        sys.exit(f"{file}: {error}")


def begin(options: Options, old: dict[str, Any] | None) -> dict[str, Any]:
    """The results that a measurement adds to: all trainings in a file have one recipe."""
    recipe = dataclasses.asdict(options.recipe)
    runs = [] if old is None else old["runs"]
    if runs and old is not None and old["recipe"] != recipe:
        if not options.again:
            changes = ", ".join(
                f"{name} {recipe[name]} instead of {old['recipe'].get(name)}"
                for name in recipe
                if recipe[name] != old["recipe"].get(name)
            )
            sys.exit(
                f"the results that are there have another recipe ({changes}); expected the same: "
                "--again discards them, --into FOLDER leaves them"
            )
        runs = []
    return {
        "benchmark": "long_memory",
        "made": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": describe_machine(),
        "versions": versions(),
        "recipe": recipe,
        "runs": list(runs),
    }


def measure(options: Options, results: dict[str, Any], save: Callable[[], None]) -> None:
    """Train what is missing, as many side by side as asked; `save` after each training."""
    free: queue.SimpleQueue[int] = queue.SimpleQueue()
    for core in cores()[: options.processes]:
        free.put(core)
    lock, stop = threading.Lock(), threading.Event()
    all_units = list(units(options))
    # What is measured again is measured once, not again after the first learning rate.
    kept = {} if options.again else {identity(run): run for run in results["runs"]}

    def solve(number: int, unit: Unit) -> None:
        core = free.get()
        try:
            for rate in rates(unit, options):
                if stop.is_set():
                    return
                run = Run(*unit, rate)
                found = kept.get(run)
                if found is None:
                    name = f"{number}/{len(all_units)} {unit.cell}, {unit.task} {unit.length}"
                    found = train(run, options, core, f"{name}, rate {rate:g}", stop)
                    with lock:
                        record(found, results)
                        save()
                if found["solved"]:
                    return
        except BaseException:
            stop.set()  # here, before this thread takes up the next unit
            raise
        finally:
            free.put(core)

    with concurrent.futures.ThreadPoolExecutor(options.processes) as pool:
        futures = [pool.submit(solve, n, unit) for n, unit in enumerate(all_units, 1)]
        try:
            for future in concurrent.futures.as_completed(futures):
                future.result()
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def units(options: Options) -> Iterator[Unit]:
    """All that is asked for, short sequences first."""
    found = [
        Unit(cell, task, length, seed)
        for task in options.tasks or TASKS
        for length in options.lengths or TASKS[task].lengths
        for cell in options.cells or CELLS
        for seed in options.seeds
    ]
    return iter(sorted(found, key=lambda unit: unit.length))


def rates(unit: Unit, options: Options) -> tuple[float, ...]:
    """The learning rates, in the order in which they are tried."""
    return options.learning_rates or TASKS[unit.task].learning_rates


def train(
    run: Run, options: Options, core: int, name: str, stop: threading.Event
) -> dict[str, Any]:
    """The result of one training, in a process of its own."""

    def hear(line: str) -> None:
        # A line comes every second or so: a way to end the process from this thread.
        if stop.is_set():
            raise MeasurementError("stopped")

    watched = watch(run_command(run, options.recipe, core), hear)
    found = {**watched.result, "processes": options.processes}
    outcome = f"{found['updates_needed']} updates" if found["solved"] else "not solved"
    value = "not finite" if found["value"] is None else f"{found['value']:.4g}"
    print(f"{name}: {outcome}, value {value}, {watched.seconds:.0f} s", flush=True)
    return found


def record(found: dict[str, Any], results: dict[str, Any]) -> None:
    """Put a training in the place of the same one, or behind all others."""
    runs = [run for run in results["runs"] if identity(run) != identity(found)]
    results["runs"][:] = [*runs, found]


def identity(run: dict[str, Any]) -> Run:
    """What was trained."""
    return Run(*(run[name] for name in Run._fields))


def cores() -> list[int]:
    """The cores that may be used."""
    usable = getattr(os, "sched_getaffinity", None)
    return sorted(usable(0)) if usable is not None else list(range(os.cpu_count() or 1))


def report(file: Path, options: Options) -> None:
    """The picture and the page, from the JSON; both are made before the first is written."""
    from benchmarks.long_memory_picture import picture  # matplotlib: not for --help

    results = read(file)
    try:
        page = long_memory_report.document(results or {})
    except ValueError as error:
        sys.exit(f"{file}: {error}")
    assert results is not None
    for path, content in (
        (file.with_suffix(".png"), picture(results)),
        (options.into / "docs" / "long_memory.md", page),
    ):
        write_whole(path, content)
        print(f"wrote {path.relative_to(options.into)}")


if __name__ == "__main__":
    main()
