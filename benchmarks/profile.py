"""Where the time of a layer goes, operation by operation: python -m benchmarks profile  (one minute)

python -m benchmarks profile --cells GRU --calls 20    some of it
python -m benchmarks profile --report-only             draw and write again from the JSON
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from benchmarks import frame, profile_report, profile_run
from benchmarks.peers import ours
from benchmarks.peers.problem import KINDS, Shape
from benchmarks.processes import ROOT
from benchmarks.suites import read_options

section = profile_report.section


@dataclasses.dataclass(frozen=True)
class Options:
    """Trace layers by JAX's own profiler, and report what their threads did.

    Results appear when all is measured; Ctrl-C leaves the old ones as they are. Leave the machine
    alone meanwhile.
    """

    cells: tuple[Literal["LSTM", "GRU", "Elman"], ...] = ("LSTM", "GRU", "Elman")
    """Which cells."""
    shapes: tuple[tuple[int, int, int, int], ...] = (
        (16, 64, 64, 64),
        (32, 128, 128, 128),
        (32, 128, 256, 256),
        (64, 128, 512, 512),
        (1, 512, 128, 128),
    )
    """B, T, D, H: sequences, steps, inputs, units; of as many shapes as there are fours of numbers."""
    calls: int = 10
    """Calls that are timed, and again so many that are traced."""
    device: Literal["cpu"] = "cpu"
    """Where: the names of threads and operations are those of XLA's CPU."""
    into: Path = ROOT
    """The folder whose benchmarks/results/ and docs/ are written; the checkout unless given."""
    report_only: bool = False
    """Measure nothing: draw the picture and write docs/benchmarks.md again from the JSON."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, unless only the report is asked for; then draw and write."""
    options = read_options(Options, arguments, "python -m benchmarks profile")
    shapes = tuple(size for shape in options.shapes for size in shape)
    frame.refuse_below_one(shapes=shapes, calls=options.calls)
    frame.refuse_unknown("cells", options.cells, list(ours.CELLS), least=1)
    measured = lambda device, say: measure(device, options, say)
    frame.run("profile", options, measured, profile_report.text)


def measure(device: Any, options: Options, say: frame.Say) -> dict[str, Any]:
    """All numbers."""
    results = frame.frame("profile", device, say)
    cores, cases = results["threads"]["jax"], []
    for cell in options.cells:
        for shape in map(Shape._make, options.shapes):
            for kind in KINDS:
                cases.append(profile_run.case(cell, shape, kind, options.calls, cores))
                of = ", ".join(f"{k} {share:.0%}" for k, share in cases[-1]["shares"].items())
                say(f"{cell} {kind}, B, T, D, H = {shape}: {of}")
    return results | {"calls": options.calls, "cases": cases}


if __name__ == "__main__":
    main()
