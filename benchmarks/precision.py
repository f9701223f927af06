"""bfloat16 beside float32, in time and in accuracy: python -m benchmarks precision  (four minutes)

python -m benchmarks precision --cells GRU --rounds 11    some of it
python -m benchmarks precision --report-only              draw and write again from the JSON
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from benchmarks import frame, precision_report, precision_run
from benchmarks.peers import ours
from benchmarks.peers.problem import KINDS, Shape
from benchmarks.processes import ROOT
from benchmarks.suites import read_options

section = precision_report.section


@dataclasses.dataclass(frozen=True)
class Options:
    """Run layers and a training with matmuls in bfloat16 and in float32 in turn, and report.

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
    rounds: int = 5
    """Rounds, after one that is not counted."""
    features: int = 128
    """Units of the LSTM that learns Shakespeare's characters in both."""
    updates: int = 400
    """Its updates."""
    device: Literal["cpu", "gpu"] | None = None
    """Where; by default where JAX runs by itself."""
    into: Path = ROOT
    """The folder whose benchmarks/results/ and docs/ are written; the checkout unless given."""
    report_only: bool = False
    """Measure nothing: draw the picture and write docs/benchmarks.md again from the JSON."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, unless only the report is asked for; then draw and write."""
    options = read_options(Options, arguments, "python -m benchmarks precision")
    sizes = {name: getattr(options, name) for name in ("rounds", "features", "updates")}
    shapes = tuple(size for shape in options.shapes for size in shape)
    frame.refuse_below_one(shapes=shapes, **sizes)
    frame.refuse_unknown("cells", options.cells, list(ours.CELLS), least=1)
    measured = lambda device, say: measure(device, options, say)
    frame.run("precision", options, measured, precision_report.text)


def measure(device: Any, options: Options, say: frame.Say) -> dict[str, Any]:
    """All numbers."""
    results = frame.frame("precision", device, say)
    cases = []
    for cell in options.cells:
        for shape in map(Shape._make, options.shapes):
            for kind in KINDS:
                case = precision_run.layer(cell, shape, kind, options.rounds)
                say(
                    f"{cell} {kind}, B, T, D, H = {shape}: bfloat16 {case['speed']:.2f} times as fast, "
                    f"{case['error']:.1e} from float32"
                )
                cases.append(case)
    training = precision_run.training(options.features, options.updates, say)
    return results | {"rounds": options.rounds, "cases": cases, "training": training}


if __name__ == "__main__":
    main()
