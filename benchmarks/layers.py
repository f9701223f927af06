"""One layer, forward and backward, beside other libraries: python -m benchmarks layers  (ten minutes)

python -m benchmarks layers --cells GRU --rounds 11    some of it
python -m benchmarks layers --report-only              draw and write again from the JSON
"""

import contextlib
import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from benchmarks import frame, layers_report, layers_run
from benchmarks.peers import matmul
from benchmarks.peers.problem import Shape, bytes_needed
from benchmarks.processes import ROOT
from benchmarks.suites import read_options

section = layers_report.section


@dataclasses.dataclass(frozen=True)
class Options:
    """Time one layer of ours and of other libraries in turn, and report.

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
    kinds: tuple[Literal["forward", "forward+backward"], ...] = ("forward", "forward+backward")
    """Outputs; or the gradients of their mean square with respect to the weights."""
    rounds: int = 7
    """Rounds, after one that is not counted."""
    peers: tuple[Literal["linen", "nnx", "haiku", "equinox", "keras", "torch"], ...] = (
        "linen",
        "nnx",
        "haiku",
        "equinox",
        "keras",
        "torch",
    )
    """Beside which libraries, where they are installed; none after --peers times ours alone."""
    device: Literal["cpu", "gpu"] | None = None
    """Where; by default where JAX runs by itself."""
    into: Path = ROOT
    """The folder whose benchmarks/results/ and docs/ are written; the checkout unless given."""
    report_only: bool = False
    """Measure nothing: draw the pictures and write docs/benchmarks.md again from the JSON."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, unless only the report is asked for; then draw and write."""
    options = read_options(Options, arguments, "python -m benchmarks layers")
    measured = lambda device, say: measure(options, device, say)
    frame.run("layers", options, measured, layers_report.text)


def check(options: Options, device: Any) -> None:
    """Refuse, before minutes have passed, what cannot be measured."""
    if options.rounds < 1 or any(size < 1 for shape in options.shapes for size in shape):
        sys.exit("rounds and all sizes: expected at least 1")
    for name in ("cells", "shapes", "kinds"):
        if not getattr(options, name):
            sys.exit(f"{name}: expected at least one")
    free = free_bytes(device)
    for shape in map(Shape._make, options.shapes):
        if free is not None and bytes_needed(shape) > free:
            sys.exit(
                f"B, T, D, H = {shape} needs about {bytes_needed(shape) / 1e9:,.1f} GB of memory, and "
                f"{free / 1e9:,.1f} GB are free; expected smaller --shapes"
            )


def free_bytes(device: Any, meminfo: Path = Path("/proc/meminfo")) -> int | None:
    """What a process may still take: of the device, or as Linux says; None where nothing says it."""
    if device.platform != "cpu":
        stats = device.memory_stats() or {}
        limit = stats.get("bytes_limit")
        return None if limit is None else limit - stats.get("bytes_in_use", 0)
    if meminfo.exists():
        for line in meminfo.read_text("utf-8").splitlines():
            name, _, value = line.partition(":")
            if name == "MemAvailable":
                return 1024 * int(value.split()[0])
    return None


def measure(options: Options, device: Any, say: Callable[[str], None]) -> dict[str, Any]:
    """All numbers."""
    check(options, device)
    results = frame.frame("layers", device, say)
    threads = results["machine"]["cores_usable"]
    shapes = [Shape._make(shape) for shape in options.shapes]
    with contextlib.ExitStack() as stack:
        present = layers_run.start(options.peers, device, threads, stack)
        for name, why in present.missing.items():
            say(f"{name} is left out: {why}")
        if not present.runs:
            say("no other library is there: ours is timed alone (pip install seqjax[interop])")
        runs = layers_run.start_on_cores(options.peers, shapes, device, threads, stack)
        present = present._replace(runs=present.runs | runs)
        one_core = matmul.one_core() if device.platform == "cpu" else None
        cases = [
            layers_run.Case(cell, shape, kind)
            for cell in options.cells
            for shape in shapes
            for kind in options.kinds
        ]
        found = [
            layers_run.measure(case, present, device, options.rounds, say, f"{n}/{len(cases)}")
            for n, case in enumerate(cases, 1)
        ]
    return results | {
        "threads": results["threads"] | present.threads,
        "rounds": options.rounds,
        "at_least_seconds": layers_run.AT_LEAST,
        "peers": list(options.peers),
        "missing": present.missing,
        "matmul": {
            "size": matmul.SIZES["cpu" if device.platform == "cpu" else "gpu"],
            "gflops": layers_run.rate_of(found),
            "one_core_gflops": None if one_core is None else round(one_core / 1e9, 1),
        },
        "cases": found,
    }


if __name__ == "__main__":
    main()
