"""Training on one core and on several: python -m benchmarks parallel  (two minutes)

python -m benchmarks parallel --features 128 --rounds 5    some of it
python -m benchmarks parallel --report-only                draw and write again from the JSON
"""

import contextlib
import dataclasses
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from benchmarks import frame, parallel_report
from benchmarks.layers_run import in_turn
from benchmarks.parallel_run import Sizes
from benchmarks.peers.worker import Worker
from benchmarks.processes import ROOT, MeasurementError
from benchmarks.suites import read_options

section = parallel_report.section

AT_LEAST = 1.0
"""Seconds that the updates of one measurement last together."""

LARGEST_DIFFERENCE = 1e-3
"""In nats: above it the first updates are others, as rounding in another order is far below."""


@dataclasses.dataclass(frozen=True)
class Options:
    """Train language models on one device and on several host devices in turn, and report.

    Results appear when all is measured; Ctrl-C leaves the old ones as they are. Leave the machine
    alone meanwhile.
    """

    features: tuple[int, ...] = (128, 320, 512)
    """Units of the LSTM; 320 is the model of `make train`."""
    embedding: int = 64
    """The width of a character's embedding."""
    batch: int = 32
    """Sequences of an update."""
    time: int = 48
    """Steps of a window."""
    cores: tuple[int, ...] = ()
    """How many, beside one; by default two, four and so on up to all, as far as they share the batch."""
    rounds: int = 7
    """Rounds, after one that is not counted."""
    device: Literal["cpu"] = "cpu"
    """Where: host devices are those of a CPU."""
    into: Path = ROOT
    """The folder whose benchmarks/results/ and docs/ are written; the checkout unless given."""
    report_only: bool = False
    """Measure nothing: draw the picture and write docs/benchmarks.md again from the JSON."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, unless only the report is asked for; then draw and write."""
    options = read_options(Options, arguments, "python -m benchmarks parallel")
    sizes = {name: getattr(options, name) for name in ("embedding", "batch", "time", "rounds")}
    frame.refuse_below_one(features=options.features, **sizes)
    for cores in options.cores:
        if cores < 1 or options.batch % cores:
            sys.exit(f"cores: expected numbers that share {options.batch} sequences, got {cores}")
    measured = lambda device, say: measure(device, options, say)
    frame.run("parallel", options, measured, parallel_report.text)


def measure(device: Any, options: Options, say: frame.Say) -> dict[str, Any]:
    """All numbers."""
    results = frame.frame("parallel", device, say)
    usable = results["machine"]["cores_usable"]
    counts = sorted({1, *(options.cores or up_to(usable, options.batch))})
    if counts == [1]:
        raise MeasurementError(
            f"there is one core, or no two share {options.batch} sequences; expected several"
        )
    cases = [
        case(
            Sizes(features, options.embedding, options.batch, options.time),
            counts,
            options.rounds,
            say,
        )
        for features in options.features
    ]
    return results | {"rounds": options.rounds, "at_least_seconds": AT_LEAST, "cases": cases}


def up_to(usable: int, batch: int) -> list[int]:
    """Powers of two up to all cores, and all, of those that share a batch evenly."""
    powers = [2**n for n in range(usable.bit_length())]
    return sorted({n for n in [*powers, usable] if n <= usable and batch % n == 0})


def case(sizes: Sizes, counts: Sequence[int], rounds: int, say: frame.Say) -> dict[str, Any]:
    """One model on each number of devices in turn; a process for each, as devices are made once."""
    with contextlib.ExitStack() as stack:
        workers = {
            count: stack.enter_context(Worker(str(count), "benchmarks.parallel_run"))
            for count in counts
        }
        found: dict[int, dict[str, Any]] = {}
        for count, worker in workers.items():
            found[count] = worker.ask("prepare", *sizes)
            apart = difference(found[count]["losses"], found[1]["losses"])
            say(
                f"LSTM {sizes.features} on {count}: losses {apart:.1e} nats from those of one device, "
                f"first update {found[count]['first_call_seconds']:.1f} s"
            )
            if not apart <= LARGEST_DIFFERENCE:
                raise MeasurementError(
                    f"LSTM {sizes.features}: {count} devices give losses {found[count]['losses']} and "
                    f"one {found[1]['losses']}; expected the same"
                )
        calls = {
            str(count): lambda _, worker=worker: worker.time(AT_LEAST)
            for count, worker in workers.items()
        }
        seconds = in_turn(calls, rounds)
    devices = {
        str(count): {
            "seconds": seconds[str(count)],
            "steps_per_second": 1 / statistics.median(seconds[str(count)]),
            "speed_up": statistics.median(
                one / many for one, many in zip(seconds["1"], seconds[str(count)], strict=True)
            ),
            "first_call_seconds": found[count]["first_call_seconds"],
            "difference": difference(found[count]["losses"], found[1]["losses"]),
        }
        for count in counts
    }
    return {**sizes._asdict(), "devices": devices}


def difference(losses: Sequence[float], others: Sequence[float]) -> float:
    """The largest, in nats."""
    return max(abs(a - b) for a, b in zip(losses, others, strict=True))


if __name__ == "__main__":
    main()
