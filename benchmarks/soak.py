"""Whether training on all cores ever stops: python -m benchmarks soak  (fifteen minutes)

python -m benchmarks soak --steps 300      a short one
python -m benchmarks soak --report-only    write the section again from the JSON
"""

import dataclasses
import datetime
import json
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

from benchmarks.files import in_lines, write_whole
from benchmarks.frame import ran_on, refuse_below_one
from benchmarks.machine import describe_machine, versions
from benchmarks.processes import ROOT, MeasurementError, environment, last_lines
from benchmarks.suites import read_options, results_of, write_page

EVALUATIONS = 10
"""How often the training is left for an evaluation and a sample, which are programs of one device."""

PIECE = 0.25
"""Seconds that are waited at a time."""

SECTION = """\
## All cores, for long

`python -m benchmarks soak`: programs that add over the host devices of a CPU can wait for each other for
ever where several are under way; `sj.training.fit` waits for all devices after every step. A character
model of one LSTM of {features} units, {batch} sequences of {time} characters a step, on {devices}
devices: **{steps:,} steps without a stop**, in {seconds:,.0f} seconds with compilation, {evaluations}
evaluations and as many samples. For {every} steps it took at most {longest:.1f} s, with the compilation
{longest_of_all:.1f} s; {patience:g} s would have been a failure. The loss fell from {first_nats:.3f} to
{last_nats:.3f} nats.
"""


@dataclasses.dataclass(frozen=True)
class Options:
    """Train on all cores for many steps under a watchdog.

    Where no steps are done for too long, or the process ends by itself, that is a failure: nothing is
    written, and the exit status is not 0.
    """

    steps: int = 5000
    """Updates."""
    cores: int | None = None
    """Host devices; all cores that share the batch unless given."""
    patience: float = 60.0
    """Seconds without a sign of life that are a hang; those do not count in which the machine sleeps."""
    every: int = 10
    """Steps from one sign of life to the next."""
    features: int = 320
    """Units of the LSTM; as the other sizes that of `make train`."""
    embedding: int = 64
    """The width of a character's embedding."""
    batch: int = 32
    """Sequences of an update."""
    time: int = 48
    """Steps of a window."""
    into: Path = ROOT
    """The folder whose benchmarks/results/ and docs/ are written; the checkout unless given."""
    report_only: bool = False
    """Train nothing: write docs/benchmarks.md again from the JSON."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, unless only the report is asked for; then write."""
    options = read_options(Options, arguments, "python -m benchmarks soak")
    file = options.into / "benchmarks" / "results" / "soak.json"
    if options.report_only:
        if not results_of("soak", options.into):
            sys.exit(f"{file} does not exist; expected it, as a soak writes it")
    else:
        names = ("steps", "every", "features", "embedding", "batch", "time")
        refuse_below_one(**{name: getattr(options, name) for name in names})
        try:
            results = soak(options, lambda line: print(line, flush=True))
        except MeasurementError as error:
            sys.exit(f"{error}\nnothing was written")
        except KeyboardInterrupt:
            sys.exit("\ninterrupted; nothing was written")
        write_whole(file, in_lines(results) + "\n")
        print(f"{results['steps']:,} steps without a stop\nwrote {file.relative_to(options.into)}")
    print(f"wrote {write_page(options.into).relative_to(options.into)}")


def soak(options: Options, say: Callable[[str], None]) -> dict[str, Any]:
    """The results of a training that came to its end."""
    machine = describe_machine()
    most = machine["cores_usable"] if options.cores is None else options.cores
    cores = next((n for n in range(most, 0, -1) if options.batch % n == 0), 1)
    if cores == 1:
        raise MeasurementError(
            f"cores: expected at least 2 that share {options.batch} sequences, got {most}"
        )
    arguments = (cores, options.steps, options.every, EVALUATIONS)
    sizes = (options.features, options.embedding, options.batch, options.time)
    command = ["-m", "benchmarks.soak_run", *map(str, (*arguments, *sizes))]
    result, gaps = guarded(command, options.patience, say)
    return {
        "benchmark": "soak",
        "name": "soak",
        "made": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "device": {"platform": "cpu", "kind": "cpu", "count": cores},
        "machine": machine,
        "threads": {"jax": machine["cores_usable"]},
        "versions": versions(),
        "patience": options.patience,
        "every": options.every,
        **{name: getattr(options, name) for name in ("features", "embedding", "batch", "time")},
        # The first two: importing, and compiling with the first steps.
        "longest": max(gaps[3:], default=0.0),
        "longest_of_all": max(gaps),
        **result,
    }


def guarded(
    command: Sequence[str], patience: float, say: Callable[[str], None]
) -> tuple[dict[str, Any], list[float]]:
    """The last line of a process, and the seconds before each of its lines.

    Raises a MeasurementError where it says nothing for longer than `patience`, or ends with another
    status than 0. The process does not outlive the call.
    """
    lines: queue.Queue[str | None] = queue.Queue()
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=ROOT,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            encoding="utf-8",
        )
        assert process.stdout is not None
        reader = threading.Thread(target=read, args=(process.stdout, lines), daemon=True)
        reader.start()
        newest: dict[str, Any] = {}
        gaps, told, start = [], time.monotonic(), time.monotonic()
        try:
            while True:
                line, waited = next_of(lines, patience)
                if waited >= patience:
                    raise MeasurementError(
                        f"it hangs: nothing was done for {patience:g} s after {newest or 'the start'}, "
                        f"{time.monotonic() - start:,.0f} s from the start; expected steps all the time"
                    )
                gaps.append(waited)
                if line is None:
                    break
                newest = json.loads(line)
                if "done" in newest and time.monotonic() - told > 10:
                    told = time.monotonic()
                    say(f"{newest['done']:>7,} steps, {told - start:,.0f} s")
            status = process.wait()
        finally:
            process.kill()
            process.wait()
            reader.join()
            process.stdout.close()
        if status or "steps" not in newest:
            said = "\n".join(f"    {text}" for text in last_lines(errors))
            raise MeasurementError(
                f"it ended with status {status} after {newest or 'nothing'}, expected 0; its last "
                f"lines:\n{said}"
            )
    return newest, gaps


def next_of(lines: "queue.Queue[str | None]", patience: float) -> tuple[str | None, float]:
    """The next line, and the seconds until it came; None and `patience` where it does not come.

    Waited for in short pieces, none of which counts more than was asked for: a whole machine may be put
    to sleep, which is no hang of what runs on it.
    """
    waited = 0.0
    while waited < patience:
        start = time.monotonic()
        try:
            return lines.get(timeout=PIECE), waited + min(time.monotonic() - start, PIECE)
        except queue.Empty:
            waited += PIECE
    return None, patience


def read(stream: IO[str], lines: "queue.Queue[str | None]") -> None:
    """Each line as it comes, and None at the end."""
    for line in stream:
        lines.put(line)
    lines.put(None)


def section(results: dict[str, Any]) -> str:
    """The section: what was done, and on what."""
    return "\n".join([SECTION.format(**results), ran_on(results), ""])


if __name__ == "__main__":
    main()
