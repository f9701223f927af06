"""Tracing and compilation, beside other libraries: python -m benchmarks compile  (five minutes)

python -m benchmarks compile --cells GRU --rounds 7    some of it
python -m benchmarks compile --report-only             draw and write again from the JSON
"""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from benchmarks import compile_report, compile_run
from benchmarks.compile_programs import BUILDERS
from benchmarks.compile_run import Case, Sizes
from benchmarks.frame import Say, frame, refuse_below_one, refuse_unknown, run
from benchmarks.layers import free_bytes
from benchmarks.peers import ours
from benchmarks.peers.problem import Shape, bytes_needed
from benchmarks.processes import ROOT
from benchmarks.suites import read_options

section = compile_report.section

PEERS = tuple(name for name in BUILDERS if name != "ours")


@dataclasses.dataclass(frozen=True)
class Options:
    """Trace and compile the gradient through layers of ours and of other libraries in turn, and report.

    Results appear when all is measured; Ctrl-C leaves the old ones as they are. Leave the machine
    alone meanwhile.
    """

    cells: tuple[str, ...] = tuple(ours.CELLS)
    """Which of LSTM, GRU, Elman."""
    times: tuple[int, ...] = (16, 128, 1024, 8192)
    """Steps T, of one layer."""
    depths: tuple[int, ...] = (1, 2, 4, 8)
    """Numbers of layers, of as many steps as --depth-time says."""
    depth_time: int = 128
    """Steps T of several layers."""
    batch: int = 16
    """Sequences B."""
    features: int = 64
    """Units H, and as many inputs."""
    rounds: int = 3
    """Rounds, after one that is not counted."""
    peers: tuple[str, ...] = PEERS
    """Beside which of linen, haiku, equinox, if installed; none after --peers: ours alone."""
    device: Literal["cpu", "gpu"] | None = None
    """Where; by default where JAX runs by itself."""
    into: Path = ROOT
    """The folder whose benchmarks/results/ and docs/ are written; the checkout unless given."""
    report_only: bool = False
    """Measure nothing: draw the picture and write docs/benchmarks.md again from the JSON."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, unless only the report is asked for; then draw and write."""
    options = read_options(Options, arguments, "python -m benchmarks compile")
    check(options)
    run(
        "compile",
        options,
        lambda device, say: measure(options, device, say),
        compile_report.text,
    )


def check(options: Options) -> None:
    """Refuse, before minutes have passed, what cannot be measured."""
    refuse_unknown("cells", options.cells, tuple(ours.CELLS), least=1)
    refuse_unknown("peers", options.peers, PEERS)
    refuse_below_one(
        times=options.times,
        depths=options.depths,
        depth_time=options.depth_time,
        batch=options.batch,
        features=options.features,
        rounds=options.rounds,
    )


def cases_of(options: Options) -> list[Case]:
    """One layer of all lengths, then all depths of one length; what is both, once."""
    found = [
        Case(cell, time, depth)
        for cell in options.cells
        for time, depth in [
            *((time, 1) for time in options.times),
            *((options.depth_time, depth) for depth in options.depths),
        ]
    ]
    return list(dict.fromkeys(found))


def measure(options: Options, device: Any, say: Say) -> dict[str, Any]:
    """All numbers."""
    cases = cases_of(options)
    sizes = Sizes(options.batch, options.features, options.features)
    free = free_bytes(device)
    for case in cases:
        needed = case.depth * bytes_needed(Shape(sizes.batch, case.time, *sizes[1:]))
        if free is not None and needed > free:
            sys.exit(
                f"{case}: about {needed / 1e9:,.1f} GB of memory needed, {free / 1e9:,.1f} GB free; "
                "expected smaller --times, --depths or --features"
            )
    begins = frame("compile", device, say)
    present, missing = compile_run.installed(options.peers)
    for name, why in missing.items():
        say(f"{name} is left out: {why}")
    if not present:
        say("no other library is there: ours is compiled alone (pip install seqjax[interop])")
    with compile_run.without_cache():
        found = compile_run.measure(cases, sizes, present, options.rounds, say)
        shape = Shape(sizes.batch, options.depth_time, *sizes[1:])
        again = [each for cell in options.cells for each in compile_run.traced_again(cell, shape)]
    return {
        **begins,
        "rounds": options.rounds,
        "sizes": sizes._asdict(),
        "peers": list(options.peers),
        "missing": missing,
        "cases": found,
        "again": again,
    }


if __name__ == "__main__":
    main()
