"""The engine and the chunks of gated cells on this backend: python -m benchmarks tune  (two minutes)

python -m benchmarks tune --chunks 8 16 32 --rounds 11    more of it
python -m benchmarks tune --report-only                   draw and write again from the JSON

It measures every choice beside the plain scan and writes the best one into seqjax/engines/tuned.py.
"""

import dataclasses
import itertools
import re
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import frame, tune_report
from benchmarks.files import write_whole
from benchmarks.layers_run import in_turn, significant
from benchmarks.peers import ours
from benchmarks.peers.problem import Problem, Shape, drawn
from benchmarks.peers.timing import seconds_of
from benchmarks.processes import ROOT
from benchmarks.suites import read_options
from seqjax.engines.tuned import TUNED, UNMEASURED, Tuned

section = tune_report.section

LEAST = 1.05
"""How many times as fast as the scan a choice is to be, in the middle of all cases, to be taken."""

KINDS = ("forward", "forward+backward")


@dataclasses.dataclass(frozen=True)
class Options:
    """Time gated cells by every engine and chunk in turn, and write the best into the table.

    Results appear when all is measured; Ctrl-C leaves the old ones, and the table, as they are. Leave
    the machine alone meanwhile.
    """

    cells: tuple[Literal["LSTM", "GRU", "Elman"], ...] = ("LSTM", "GRU", "Elman")
    """Which cells."""
    shapes: tuple[tuple[int, int, int, int], ...] = (
        (16, 64, 64, 64),
        (32, 128, 128, 128),
        (32, 128, 256, 256),
        (1, 512, 128, 128),
    )
    """B, T, D, H: sequences, steps, inputs, units; of as many shapes as there are fours of numbers."""
    chunks: tuple[int, ...] = (16, 32)
    """Steps of a chunk."""
    together: tuple[int, ...] = (0, 262144)
    """Numbers up to which the projections of more steps are one chunk too; 0 is never."""
    rounds: int = 5
    """Rounds, after one that is not counted."""
    device: Literal["cpu", "gpu"] | None = None
    """Where; by default where JAX runs by itself."""
    into: Path = ROOT
    """The folder whose table, benchmarks/results/ and docs/ are written; the checkout unless given."""
    report_only: bool = False
    """Measure nothing: draw the picture and write docs/benchmarks.md again from the JSON."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, unless only the report is asked for; then draw, and write page and table."""
    options = read_options(Options, arguments, "python -m benchmarks tune")
    shapes = tuple(size for shape in options.shapes for size in shape)
    frame.refuse_below_one(shapes=shapes, chunks=options.chunks, rounds=options.rounds)
    if not options.together or min(options.together) < 0:
        sys.exit(f"together: expected numbers of at least 0, got {options.together!r}")
    frame.refuse_unknown("cells", options.cells, list(ours.CELLS), least=1)
    measured = lambda device, say: measure(device, options, say)
    frame.run("tune", options, measured, tune_report.text)


def measure(device: Any, options: Options, say: frame.Say) -> dict[str, Any]:
    """All numbers, and the choice that follows from them, which is written into the table."""
    results = frame.frame("tune", device, say)
    choices = {"scan": UNMEASURED}
    choices |= {
        named(choice): choice
        for choice in itertools.starmap(
            Tuned, itertools.product(["chunked"], options.chunks, options.together)
        )
    }
    cases = [
        (cell, Shape._make(shape), kind)
        for cell in options.cells
        for shape in options.shapes
        for kind in KINDS
    ]
    found = list(of_all(cases, choices, device.platform, options.rounds, say))
    speeds = {
        name: significant(statistics.geometric_mean(case["speeds"][name] for case in found))
        for name in choices
    }
    best = chosen(speeds)
    write_table(options.into, device.platform, choices[best])
    say(f"{best} is written into seqjax/engines/tuned.py")
    return results | {"rounds": options.rounds, "cases": found, "speeds": speeds, "chosen": best}


def named(choice: Tuned) -> str:
    """As tables have it."""
    longer = f" or {choice.together:,} numbers" if choice.together else ""
    return f"{choice.engine}, {choice.chunk}{longer}"


def of_all(
    cases: Sequence[tuple[str, Shape, str]],
    choices: dict[str, Tuned],
    platform: str,
    rounds: int,
    say: frame.Say,
) -> Iterator[dict[str, Any]]:
    """Each case by every choice: the median over rounds of the scan's time over that of the choice."""
    for number, (cell, shape, kind) in enumerate(cases, 1):
        problem, calls = drawn(cell, shape), {}
        for name, choice in choices.items():
            run = compiled(problem, kind, platform, choice)
            calls[name] = lambda at_least, run=run: seconds_of(run, at_least)
        seconds = in_turn(calls, rounds)
        speeds = {
            name: significant(
                statistics.median(a / b for a, b in zip(seconds["scan"], each, strict=True))
            )
            for name, each in seconds.items()
        }
        say(
            f"{number}/{len(cases)} {cell} {kind}, B, T, D, H = {shape}: "
            + ", ".join(f"{name} {speed:.2f}" for name, speed in speeds.items())
        )
        yield {
            "cell": cell,
            "shape": list(shape),
            "kind": kind,
            "seconds": {name: [significant(s) for s in each] for name, each in seconds.items()},
            "speeds": speeds,
        }


def compiled(
    problem: Problem, kind: str, platform: str, choice: Tuned
) -> Callable[[], list[np.ndarray]]:
    """A call of the layer, as it is traced while the table has the choice."""
    forward, params = ours.layer(problem)
    loss = lambda params, xs: jnp.mean(jnp.square(forward(params, xs)))
    xs, before = jnp.asarray(problem.xs), TUNED.get(platform)
    TUNED[platform] = choice
    try:
        jax.clear_caches()  # what was traced knows the choice before; what is compiled stays
        function = jax.jit(forward if kind == "forward" else jax.grad(loss))
        program = function.lower(params, xs).compile()
    finally:
        del TUNED[platform]
        if before is not None:
            TUNED[platform] = before
    return lambda: jax.block_until_ready(jax.tree.leaves(program(params, xs)))


def chosen(speeds: dict[str, float]) -> str:
    """The fastest choice, if it is clearly faster than the scan."""
    best = max(speeds, key=lambda name: speeds[name])
    return best if speeds[best] >= LEAST else "scan"


def write_table(into: Path, platform: str, choice: Tuned) -> None:
    """The line of a backend in the table, in place of the one before or as the last."""
    file = into / "seqjax" / "engines" / "tuned.py"
    if not file.is_file():
        raise frame.MeasurementError(
            f"{file} does not exist; expected the table there, to write it"
        )
    fields = ", ".join(f"{name}={value!r}" for name, value in choice._asdict().items())
    line = f'    "{platform}": Tuned({fields}),\n'.replace("'", '"')
    text = file.read_text("utf-8")
    known = re.compile(rf'    "{platform}": Tuned\(.*\),\n')
    end = text.index("}\n", text.index("TUNED: dict"))
    text = known.sub(line, text) if known.search(text) else text[:end] + line + text[end:]
    write_whole(file, text)


if __name__ == "__main__":
    main()
