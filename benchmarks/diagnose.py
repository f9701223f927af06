"""What `sj.diagnose` costs beside one backward pass: python -m benchmarks.diagnose  (three minutes)

python -m benchmarks.diagnose --report-only      write the page again from the JSON
"""

import dataclasses
import datetime
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import tyro

import seqjax as sj
from benchmarks.files import in_lines, write_whole
from benchmarks.machine import describe_machine, versions
from benchmarks.processes import ROOT
from benchmarks.shakespeare_report import table

GOAL = 10
"""Backward passes that a diagnosis may cost."""

CELLS: dict[str, Callable[[int], sj.Cell]] = {
    "Elman": lambda features: sj.Elman(features),
    "GRU": lambda features: sj.GRU(features),
    "LSTM": lambda features: sj.LSTM(features),
    "LSTM, two layers": lambda features: sj.Stack((sj.LSTM(features), sj.LSTM(features))),
}

PAGE = """\
# What a diagnosis costs

<!-- Written by `python -m benchmarks.diagnose`: change benchmarks/diagnose.py instead. -->

`sj.diagnose(cell, params, xs, loss)` with its defaults, beside the compiled gradient of the same loss
with respect to params. Both are called in turn, {rounds} rounds after two that are not counted, so that
nothing is compiled any more; medians, and the median of the ratios of all rounds. At most {goal} is
asked for. Counted in operations (decompositions aside) it is fewer than ten gradients of the plain scan
at a batch of 1, 4 and 32
(tests/diagnostics/test_report.py). A single sequence is the hard case: loops take as long as their
kernels are many, and the weights are as large as for a batch. So one loop back pulls the gradients and
the rows of the Jacobian together, the exponents and gates are computed while the loss is differentiated,
and the host decomposes the recurrent matrices while the device is busy.

{table}

Measured on {made}: {processor}, {cores} cores, load {load} at the start; {packages}.
"""


@dataclasses.dataclass(frozen=True)
class Options:
    """Measure diagnoses beside gradients, and report."""

    shapes: tuple[tuple[int, int, int], ...] = (
        (100, 32, 64),
        (200, 32, 128),
        (500, 32, 64),
        (200, 8, 128),
        (200, 1, 128),
    )
    """T, B, H: steps, sequences, units; inputs are 16."""
    rounds: int = 9
    """Rounds of each time."""
    into: Path = ROOT
    """The folder whose benchmarks/results/ and docs/ are written; the checkout unless given."""
    report_only: bool = False
    """Measure nothing: write docs/diagnose_cost.md again from the JSON."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, unless only the report is asked for; then write."""
    options = tyro.cli(Options, args=arguments, prog="python -m benchmarks.diagnose")
    file = options.into / "benchmarks" / "results" / "diagnose.json"
    if options.rounds < 1 or any(size < 1 for shape in options.shapes for size in shape):
        sys.exit("rounds and all sizes: expected at least 1")
    if not options.report_only:
        write_whole(file, in_lines(measure(options, lambda line: print(line, flush=True))) + "\n")
    elif not file.is_file():
        sys.exit(f"{file} does not exist; expected it, as a measurement writes it")
    page_file = options.into / "docs" / "diagnose_cost.md"
    write_whole(page_file, page(json.loads(file.read_text("utf-8"))))
    print(f"wrote {file} and {page_file}")


def measure(options: Options, say: Callable[[str], None]) -> dict[str, Any]:
    """Every cell at every shape."""
    found: dict[str, Any] = {
        "benchmark": "diagnose",
        "made": datetime.date.today().isoformat(),
        "machine": describe_machine(),
        "versions": versions(),
        "rounds": options.rounds,
        "runs": [],
    }
    for shape in options.shapes:
        for name in CELLS:
            found["runs"].append(compare(name, shape, options.rounds))
            run = found["runs"][-1]
            say(f"{name}, T, B, H = {shape}: {run['ratio']:.1f} backward passes")
    return found


def compare(name: str, shape: tuple[int, int, int], rounds: int) -> dict[str, Any]:
    """One cell at one shape."""
    time_steps, batch, features = shape
    cell = CELLS[name](features)
    params = cell.init(jax.random.key(0), 16)
    xs = jax.random.normal(jax.random.key(1), (time_steps, batch, 16))
    loss = lambda ys: jnp.mean(jnp.square(ys))
    backward = jax.jit(jax.grad(lambda params, xs: loss(sj.unroll(cell, params, xs)[1])))
    of = {
        "gradient": lambda: jax.block_until_ready(backward(params, xs)),
        "diagnosis": lambda: sj.diagnose(cell, params, xs, loss),
    }
    seconds: dict[str, list[float]] = {kind: [] for kind in of}
    for number in range(rounds + 2):
        for kind, call in of.items():
            start = time.perf_counter()
            call()
            if number >= 2:
                seconds[kind].append(time.perf_counter() - start)
    ratios = [a / b for a, b in zip(seconds["diagnosis"], seconds["gradient"], strict=True)]
    return {
        "cell": name,
        "shape": list(shape),
        "gradient_ms": round(1e3 * statistics.median(seconds["gradient"]), 2),
        "diagnosis_ms": round(1e3 * statistics.median(seconds["diagnosis"]), 2),
        "ratio": round(statistics.median(ratios), 2),
    }


def page(results: dict[str, Any]) -> str:
    """The whole page."""
    rows = [
        [
            run["cell"],
            "T = {}, B = {}, H = {}".format(*run["shape"]),
            f"{run['gradient_ms']:,.1f} ms",
            f"{run['diagnosis_ms']:,.1f} ms",
            f"**{run['ratio']:.1f}**"
            if run["ratio"] <= GOAL
            else f"{run['ratio']:.1f} (not reached)",
        ]
        for run in results["runs"]
    ]
    machine = results["machine"]
    return PAGE.format(
        rounds=results["rounds"],
        goal=GOAL,
        table="\n".join(table(["cell", "shape", "gradient", "diagnosis", "ratio"], rows)),
        made=results["made"],
        processor=machine["processor"],
        cores=machine["cores_usable"],
        load=machine["load_average"],
        packages=", ".join(f"{name} {version}" for name, version in results["versions"].items()),
    )


if __name__ == "__main__":
    main()
