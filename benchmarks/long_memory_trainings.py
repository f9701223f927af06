"""Trainings side by side, each in a process of its own, and their results in one file that can grow."""

import concurrent.futures
import dataclasses
import datetime
import importlib.util
import json
import os
import queue
import sys
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from benchmarks.files import in_lines, write_whole
from benchmarks.long_memory_recipe import Recipe
from benchmarks.machine import describe_machine, versions
from benchmarks.processes import ROOT, MeasurementError, watch


@dataclasses.dataclass(frozen=True)
class Asked:
    """What is to be trained, and how: the options that all suites of trainings share."""

    cells: tuple[str, ...] = ()
    """The cells, by their names in the table; all unless given."""
    tasks: tuple[str, ...] = ()
    """adding, copy, parity; all unless given."""
    lengths: tuple[int, ...] = ()
    """T, for each task; those of the plan unless given."""
    learning_rates: tuple[float, ...] = ()
    """Tried in this order until one solves the task; those of the plan unless given."""
    seeds: tuple[int, ...] = (0,)
    """Each is a training of its own."""
    processes: int = 1
    """Trainings at the same time, each on a core of its own."""
    again: bool = False
    """Measure what is asked for even if it is there; with another recipe, discard what is there."""
    into: Path = ROOT
    """The folder whose benchmarks/results/ and docs/ are written; the checkout unless given."""
    report_only: bool = False
    """Measure nothing: draw the picture and write the page again from the JSON."""

    def results(self, benchmark: str) -> Path:
        """The file of all results."""
        return self.into / "benchmarks" / "results" / f"{benchmark}.json"


class Training(Protocol):
    """What is trained: a NamedTuple, whose fields are in its result too."""

    _fields: Any
    title: Any

    def _asdict(self) -> dict[str, Any]: ...


Train = Callable[[Any, str, int, threading.Event], dict[str, Any]]
"""`train(run, number, core, stop)`: the result of one training; `number` says which of how many."""


def check(options: Any, recipe: Recipe, file: Path, known: Mapping[str, Collection[str]]) -> None:
    """Refuse, before hours have passed, what cannot be measured.

    options: an `Asked`. known: option -> the names that it may hold.
    """
    if importlib.util.find_spec("matplotlib") is None:
        sys.exit(
            "matplotlib is not installed; expected it, for the picture: pip install seqjax[plot]"
        )
    if options.report_only:
        if not file.is_file():
            sys.exit(f"{file} does not exist; expected it, as a measurement writes it")
        return
    for name, names in known.items():
        for value in getattr(options, name):
            if value not in names:
                sys.exit(f"{name}: {value!r} is unknown; expected some of {', '.join(names)}")
    for name in (*known, "lengths", "learning_rates", "seeds"):
        values = getattr(options, name)
        if len(set(values)) < len(values):
            sys.exit(f"{name} are {values}; expected none of them twice")
    if not options.seeds or min(options.seeds) < 0:
        sys.exit(f"seeds are {options.seeds}; expected at least one, from 0 on")
    whole = [name for name, value in dataclasses.asdict(recipe).items() if isinstance(value, int)]
    for name in (*whole, "processes"):
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


def begin(
    benchmark: str, wanted: Recipe, again: bool, old: dict[str, Any] | None
) -> dict[str, Any]:
    """The results that a measurement adds to: all trainings in a file have one recipe."""
    recipe = dataclasses.asdict(wanted)
    runs = [] if old is None else old["runs"]
    if runs and old is not None and old["recipe"] != recipe:
        if not again:
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
        "benchmark": benchmark,
        "made": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": describe_machine(),
        "versions": versions(),
        "recipe": recipe,
        "runs": list(runs),
    }


def measure_into(
    file: Path,
    results: dict[str, Any],
    units: Sequence[Sequence[Training]],
    train: Train,
    options: Asked,
) -> None:
    """Train what is missing, and write the file after each training."""
    save = lambda: write_whole(file, in_lines(results) + "\n")
    try:
        measure(units, train, options, results, save)
    except MeasurementError as error:
        sys.exit(f"{error}\nwhat had ended before is kept")
    except KeyboardInterrupt:
        sys.exit(f"\ninterrupted; {len(results['runs'])} trainings are kept: call again to go on")


def measure(
    units: Sequence[Sequence[Training]],
    train: Train,
    options: Asked,
    results: dict[str, Any],
    save: Callable[[], None],
) -> None:
    """Train what is missing, as many side by side as asked; `save` after each training.

    units: in each the trainings of one problem, made in this order until one solves it.
    """
    free: queue.SimpleQueue[int] = queue.SimpleQueue()
    for core in cores()[: options.processes]:
        free.put(core)
    lock, stop = threading.Lock(), threading.Event()
    # What is measured again is measured once, not again after the first learning rate.
    kept = [] if options.again else list(results["runs"])

    def solve(number: int, unit: Sequence[Training]) -> None:
        core = free.get()
        try:
            for run in unit:
                if stop.is_set():
                    return
                found = next((old for old in kept if same(old, run)), None)
                if found is None:
                    found = train(run, f"{number}/{len(units)}", core, stop)
                    with lock:
                        record(found, run, results)
                        save()
                if found["solved"]:
                    return
        except BaseException:
            stop.set()  # here, before this thread takes up the next unit
            raise
        finally:
            free.put(core)

    with concurrent.futures.ThreadPoolExecutor(options.processes) as pool:
        futures = [pool.submit(solve, n, unit) for n, unit in enumerate(units, 1)]
        try:
            for future in concurrent.futures.as_completed(futures):
                future.result()
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def in_a_process(
    run: Training, command: list[str], number: str, options: Asked, stop: threading.Event
) -> dict[str, Any]:
    """The result of one training, by `python` with these arguments."""

    def hear(line: str) -> None:
        # A line comes every second or so: a way to end the process from this thread.
        if stop.is_set():
            raise MeasurementError("stopped")

    watched = watch(command, hear)
    found = {**watched.result, "processes": options.processes}
    outcome = f"{found['updates_needed']} updates" if found["solved"] else "not solved"
    value = "not finite" if found["value"] is None else f"{found['value']:.4g}"
    print(f"{number} {run.title}: {outcome}, value {value}, {watched.seconds:.0f} s", flush=True)
    return found


def record(found: dict[str, Any], run: Training, results: dict[str, Any]) -> None:
    """Put a training in the place of the same one, or behind all others."""
    others = [old for old in results["runs"] if not same(old, run)]
    results["runs"][:] = [*others, found]


def same(found: dict[str, Any], run: Training) -> bool:
    """Whether this is the result of that training."""
    return all(found[name] == value for name, value in run._asdict().items())


def cores() -> list[int]:
    """The cores that may be used."""
    usable = getattr(os, "sched_getaffinity", None)
    return sorted(usable(0)) if usable is not None else list(range(os.cpu_count() or 1))


def write_report(
    name: str,
    options: Asked,
    document: Callable[[dict[str, Any]], str],
    picture: Callable[[dict[str, Any]], bytes],
) -> None:
    """The picture and the page, from the JSON; both are made before the first is written."""
    file = options.results(name)
    results = read(file) or {}
    try:
        page = document(results)
    except ValueError as error:
        sys.exit(f"{file}: {error}")
    for path, content in (
        (file.with_suffix(".png"), picture(results)),
        (options.into / "docs" / f"{name}.md", page),
    ):
        write_whole(path, content)
        print(f"wrote {path.relative_to(options.into)}")
