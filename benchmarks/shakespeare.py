"""Characters of Shakespeare: what `examples/char_lm.py` reaches, in which time, beside a peer.

python -m benchmarks.shakespeare                          measure, draw, write docs/shakespeare.md
python -m benchmarks.shakespeare --report-only            draw and write again from the JSON
python -m benchmarks.shakespeare -- --steps 4             options of char_lm come after --
"""

import dataclasses
import datetime
import importlib.util
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import tyro

from benchmarks import shakespeare_report, shakespeare_run
from benchmarks.files import in_lines, write_whole
from benchmarks.import_time import import_time
from benchmarks.machine import describe_machine, versions
from benchmarks.processes import ROOT, MeasurementError, watch

GOAL = {"nats": 1.58, "published_peer_nats": 1.88}

# The benchmark sets the first three itself; another text or tokenizer is no longer this benchmark.
RESERVED = ("--seed", "--run", "--resume", "--data", "--tokenizer")


@dataclasses.dataclass(frozen=True)
class Options:
    """Train on Shakespeare with three seeds, with nanoGPT's CPU recipe before and after, and report.

    Everything runs in fresh processes, one after the other, for about ten minutes on two cores: leave
    the machine alone meanwhile. Results appear when all is measured; Ctrl-C leaves the old ones as
    they are. Options of examples/char_lm.py may follow after `--`.
    """

    seeds: tuple[int, ...] = (0, 1, 2)
    """The seeds to train with; generation is measured on the model of the first."""
    budget: float | None = None
    """Seconds to compare with, instead of running the peer. Required where PyTorch, which the peer is
    written in, is not installed."""
    peer_iterations: int = 2000
    """Updates of the peer; with another number it is not the published recipe."""
    characters: int = 2000
    """The length of the texts by which the rate of generation is measured."""
    repeats: int = 5
    """Calls of generation and processes of import that are timed; medians count."""
    into: Path = ROOT
    """The folder whose benchmarks/results/ and docs/ are written; the checkout unless given."""
    report_only: bool = False
    """Measure nothing: draw the picture and write docs/shakespeare.md again from the JSON."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, unless only the report is asked for; then draw and write."""
    options, extra = read_arguments(sys.argv[1:] if arguments is None else arguments)
    file = options.into / "benchmarks" / "results" / "shakespeare.json"
    check(options, extra, file)
    if not options.report_only:
        try:
            results = measure(options, extra)
        except MeasurementError as error:
            sys.exit(f"{error}\nnothing was written")
        except KeyboardInterrupt:
            sys.exit("\ninterrupted; nothing was written")
        write(file, in_lines(results) + "\n", options)
    report(file, options)


def read_arguments(arguments: Sequence[str]) -> tuple[Options, list[str]]:
    """The options of the benchmark, and those of char_lm after `--`."""
    own, extra = list(arguments), []
    if "--" in own:
        border = own.index("--")
        own, extra = own[:border], own[border + 1 :]
    return tyro.cli(Options, args=own, prog="python -m benchmarks.shakespeare"), extra


def check(options: Options, extra: Sequence[str], file: Path) -> None:
    """Refuse, before minutes have passed, what cannot be measured."""
    reserved = [name for name in extra if name.split("=")[0].replace("_", "-") in RESERVED]
    if reserved:
        sys.exit(f"{reserved[0]} cannot be passed on: the benchmark fixes {', '.join(RESERVED)}")
    if importlib.util.find_spec("matplotlib") is None:
        sys.exit(
            "matplotlib is not installed; expected it, for the picture: pip install seqjax[plot]"
        )
    if options.report_only:
        if not file.is_file():
            sys.exit(f"{file} does not exist; expected it, as a measurement writes it")
        return
    for name in ("peer_iterations", "characters", "repeats"):
        if getattr(options, name) < 1:
            sys.exit(f"{name} is {getattr(options, name)}; expected at least 1")
    if not options.seeds or len(set(options.seeds)) < len(options.seeds):
        sys.exit(f"seeds are {options.seeds}; expected at least one, and none of them twice")
    if options.budget is not None and not options.budget > 0:
        sys.exit(f"budget is {options.budget}; expected seconds, more than 0")
    if options.budget is None and importlib.util.find_spec("torch") is None:
        sys.exit(
            "PyTorch is not installed, so the peer cannot be run; expected torch "
            "(pip install seqjax[interop]), or --budget SECONDS to compare with"
        )


def measure(options: Options, extra: Sequence[str]) -> dict[str, Any]:
    """All measurements: the peer, the seeds, the peer again, generation, import."""
    machine = describe_machine()
    with tempfile.TemporaryDirectory(prefix="seqjax-shakespeare-") as folder:
        peer_runs = run_peer(options)
        seeds = [
            shakespeare_run.train(seed, Path(folder, f"seed-{seed}"), extra, say(f"seed {seed}"))
            for seed in options.seeds
        ]
        peer_runs += run_peer(options)
        say("generation")("measuring")
        generation = generation_rate(Path(folder, f"seed-{options.seeds[0]}"), options)
    say("import")("measuring")
    around = ["peer"] if peer_runs else []
    return {
        "benchmark": "shakespeare",
        "made": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "command": command(options, extra),
        "goal": GOAL,
        "machine": machine,
        "versions": versions(),
        "options": seeds[0]["options"],
        "departures": departures(options, extra),
        "order": [*around, *(f"seed {seed}" for seed in options.seeds), *around],
        "peer": describe_peer(options, peer_runs),
        "seeds": [{k: v for k, v in s.items() if k not in ("options", "sample")} for s in seeds],
        "sample": seeds[0]["sample"],
        "generation": generation,
        "import": import_time(options.repeats),
    }


def run_peer(options: Options) -> list[dict[str, Any]]:
    """One run of the peer, or none where there is a budget instead."""
    if options.budget is not None:
        return []
    arguments = ["-m", "benchmarks.nanogpt_recipe", "--iterations", str(options.peer_iterations)]
    return [watch(arguments, say("peer")).result]


def describe_peer(options: Options, runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The runs of the peer, and the time that follows from them."""
    if runs:
        budget = statistics.mean(run["seconds"] for run in runs)
        return {"budget_seconds": round(budget, 3), "runs": runs}
    installed = importlib.util.find_spec("torch") is not None
    why = "--budget was given" if installed else "PyTorch is not installed"
    return {"budget_seconds": options.budget, "runs": [], "why_not_run": why}


def generation_rate(run: Path, options: Options) -> dict[str, Any]:
    """The rates of a trained model, from a process of their own."""
    numbers = ["--characters", str(options.characters), "--calls", str(options.repeats)]
    return watch(["-m", "benchmarks.generation_rate", str(run), *numbers]).result


def departures(options: Options, extra: Sequence[str]) -> list[str]:
    """What makes these results others than those that the goals speak of."""
    found = [f"char_lm ran with {' '.join(extra)}"] if extra else []
    usual = {field.name: field.default for field in dataclasses.fields(Options)}
    if options.budget is None and options.peer_iterations != usual["peer_iterations"]:
        found.append(f"the peer made {options.peer_iterations} updates")
    return found


def command(options: Options, extra: Sequence[str]) -> str:
    """The command that gives these results, without the folder that they go to."""
    words = ["python -m benchmarks.shakespeare"]
    for field in dataclasses.fields(Options):
        value = getattr(options, field.name)
        if field.name not in ("into", "report_only") and value != field.default:
            values = value if isinstance(value, tuple) else (value,)
            words += [f"--{field.name.replace('_', '-')}", *map(str, values)]
    return " ".join([*words, *(["--", *extra] if extra else [])])


def say(who: str) -> Callable[[str], None]:
    """A function that shows the lines of a process that tell of its progress."""

    def show(line: str) -> None:
        if line.startswith(("step", "measuring")):
            print(f"{who:>10} | {line}", flush=True)

    return show


def report(file: Path, options: Options) -> None:
    """The picture and the page, from the JSON; both are made before the first is written."""
    from benchmarks.shakespeare_picture import picture  # matplotlib: not for --help

    try:
        results = json.loads(file.read_text("utf-8"))
        page = shakespeare_report.document(results)
    except ValueError as error:
        sys.exit(f"{file}: {error}")
    write(file.with_suffix(".png"), picture(results), options)
    write(options.into / "docs" / "shakespeare.md", page, options)


def write(path: Path, content: str | bytes, options: Options) -> None:
    """Write a file whole, and say so."""
    write_whole(path, content)
    print(f"wrote {path.relative_to(options.into)}")


if __name__ == "__main__":
    main()
