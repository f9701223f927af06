"""A language model, trained beside other libraries: python -m benchmarks train  (five minutes)

python -m benchmarks train --models 65 256 32 64 --rounds 11    some of it
python -m benchmarks train --report-only                        draw and write again from the JSON
"""

import contextlib
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from benchmarks import frame, train_report, train_run
from benchmarks.peers.language import Sizes
from benchmarks.processes import ROOT
from benchmarks.suites import read_options

section = train_report.section


@dataclasses.dataclass(frozen=True)
class Options:
    """Train a language model of two LSTM layers by ours and by other libraries in turn, and report.

    Results appear when all is measured; Ctrl-C leaves the old ones as they are. Leave the machine
    alone meanwhile.
    """

    models: tuple[tuple[int, int, int, int], ...] = ((65, 256, 32, 64), (10_000, 256, 20, 35))
    """V, H, B, T: tokens, units, sequences, steps; of as many models as there are fours of numbers."""
    updates: int = 6
    """Updates of one turn."""
    rounds: int = 7
    """Rounds, after one that is not counted."""
    peers: tuple[str, ...] = train_run.LIBRARIES
    """Beside which libraries, where they are installed; none after --peers times ours alone."""
    device: Literal["cpu", "gpu"] | None = None
    """Where; by default where JAX runs by itself."""
    into: Path = ROOT
    """The folder whose benchmarks/results/ and docs/ are written; the checkout unless given."""
    report_only: bool = False
    """Measure nothing: draw the picture and write docs/benchmarks.md again from the JSON."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, unless only the report is asked for; then draw and write."""
    options = read_options(Options, arguments, "python -m benchmarks train")
    for model in options.models or ((),):
        frame.refuse_below_one(models=model)
    frame.refuse_below_one(updates=options.updates, rounds=options.rounds)
    frame.refuse_unknown("peers", options.peers, train_run.LIBRARIES)
    measured = lambda device, say: measure(options, device, say)
    frame.run("train", options, measured, train_report.text)


def measure(options: Options, device: Any, say: frame.Say) -> dict[str, Any]:
    """All numbers."""
    results = frame.frame("train", device, say)
    cores = results["threads"]["jax"]
    with contextlib.ExitStack() as stack:
        present = train_run.start(options.peers, device, cores, stack)
        for name, why in present.missing.items():
            say(f"{name} is left out: {why}")
        if not set(present.runs) & set(train_run.LIBRARIES):
            say("no other library is there: ours is timed alone (pip install seqjax[interop])")
        cases = [
            train_run.measure(Sizes._make(model), present, options.rounds, options.updates, say)
            for model in options.models
        ]
    return results | {
        "threads": results["threads"] | present.threads,
        "rounds": options.rounds,
        "updates": options.updates,
        "peers": list(options.peers),
        "missing": present.missing,
        "cases": cases,
    }


if __name__ == "__main__":
    main()
