"""A readout and its cross-entropy in one, beside logits: python -m benchmarks readout  (two minutes)

python -m benchmarks readout --sizes 48 32 320 65 --rounds 21    some of it
python -m benchmarks readout --report-only          draw and write again from the JSON
"""

import contextlib
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from benchmarks import frame, readout_report, readout_run
from benchmarks.processes import ROOT
from benchmarks.readout_problem import Sizes
from benchmarks.suites import read_options

section = readout_report.section


@dataclasses.dataclass(frozen=True)
class Options:
    """Time the gradient of a readout's loss by all contestants in turn, and report.

    Results appear when all is measured; Ctrl-C leaves the old ones as they are. Leave the machine
    alone meanwhile.
    """

    sizes: tuple[tuple[int, int, int, int], ...] = (
        (48, 32, 320, 65),
        (35, 20, 256, 10_000),
        (35, 32, 200, 33_278),
        (64, 16, 512, 50_257),
    )
    """T, B, H, V: steps, sequences, units, classes; of as many sizes as there are fours of numbers."""
    rounds: int = 7
    """Rounds, after one that is not counted."""
    peers: tuple[Literal["optax", "torch"], ...] = ("optax", "torch")
    """Beside whom; one that is not installed is named and left out."""
    device: Literal["cpu", "gpu"] | None = None
    """Where; by default where JAX runs by itself."""
    into: Path = ROOT
    """The folder whose benchmarks/results/ and docs/ are written; the checkout unless given."""
    report_only: bool = False
    """Measure nothing: draw the picture and write docs/benchmarks.md again from the JSON."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, unless only the report is asked for; then draw and write."""
    options = read_options(Options, arguments, "python -m benchmarks readout")
    sizes = tuple(size for four in options.sizes for size in four)
    frame.refuse_below_one(sizes=sizes, rounds=options.rounds)
    measured = lambda device, say: measure(device, options, say)
    frame.run("readout", options, measured, readout_report.text)


def measure(device: Any, options: Options, say: frame.Say) -> dict[str, Any]:
    """All sizes."""
    results = frame.frame("readout", device, say)
    with contextlib.ExitStack() as stack:
        threads = results["threads"]["jax"]
        present = readout_run.start(options.peers, device, threads, stack)
        for name, why in present.missing.items():
            say(f"{name} is left out: {why}")
        cases = [
            readout_run.measure(Sizes._make(sizes), present, options.rounds, say)
            for sizes in options.sizes
        ]
    return results | {
        "rounds": options.rounds,
        "threads": results["threads"] | present.threads,
        "missing": present.missing,
        "cases": cases,
    }


if __name__ == "__main__":
    main()
