"""Tokens a second of a language model, beside other libraries: python -m benchmarks generate

python -m benchmarks generate --cells GRU --rounds 7    some of it
python -m benchmarks generate --report-only             draw and write again from the JSON
"""

import contextlib
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from benchmarks import generate_report, generate_run
from benchmarks.frame import Say, frame, refuse_below_one, refuse_unknown, run
from benchmarks.generate_problem import BEAM, WAYS, Case, Sizes
from benchmarks.peers import ours
from benchmarks.processes import ROOT
from benchmarks.suites import read_options

section = generate_report.section

PEERS = ("torch", "linen")


@dataclasses.dataclass(frozen=True)
class Options:
    """Let a language model of ours and of other libraries write in turn, and report.

    Results appear when all is measured; Ctrl-C leaves the old ones as they are. Leave the machine
    alone meanwhile.
    """

    cells: tuple[str, ...] = ("LSTM", "GRU")
    """Which of LSTM, GRU, Elman."""
    vocabularies: tuple[int, ...] = (256, 8192)
    """Numbers of tokens to choose from."""
    batches: tuple[int, ...] = (1, 32)
    """Texts that are written side by side, greedily or sampled."""
    ways: tuple[str, ...] = WAYS
    """Which of greedy, sampled, beam."""
    beam_batch: int = 8
    """Texts that are written side by side by beam search."""
    beams: int = 4
    """Beams of a text."""
    top_k: int = 40
    """Sampled, at temperature 1: of how many likeliest tokens."""
    tokens: int = 512
    """Tokens of a text."""
    layers: int = 2
    """Layers of the model."""
    features: int = 256
    """Units H of each, and the width of the embedding."""
    rounds: int = 3
    """Rounds, after the first call, which is not counted."""
    peers: tuple[str, ...] = PEERS
    """Beside which of torch, linen, if installed; none after --peers: ours alone."""
    device: Literal["cpu", "gpu"] | None = None
    """Where; by default where JAX runs by itself."""
    into: Path = ROOT
    """The folder whose benchmarks/results/ and docs/ are written; the checkout unless given."""
    report_only: bool = False
    """Measure nothing: draw the picture and write docs/benchmarks.md again from the JSON."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, unless only the report is asked for; then draw and write."""
    options = read_options(Options, arguments, "python -m benchmarks generate")
    check(options)
    run(
        "generate",
        options,
        lambda device, say: measure(options, device, say),
        generate_report.text,
    )


def check(options: Options) -> None:
    """Refuse, before minutes have passed, what cannot be measured."""
    refuse_unknown("cells", options.cells, tuple(ours.CELLS), least=1)
    refuse_unknown("ways", options.ways, WAYS, least=1)
    refuse_unknown("peers", options.peers, PEERS)
    numbers = ("vocabularies", "batches", "beam_batch", "beams", "top_k", "tokens", "layers")
    values = {name: getattr(options, name) for name in numbers}
    refuse_below_one(**values, features=options.features, rounds=options.rounds)
    if BEAM in options.ways and options.beams > min(options.vocabularies):
        sys.exit(
            f"beams: expected at most the {min(options.vocabularies)} tokens of the vocabulary, "
            f"got {options.beams}"
        )


def cases_of(options: Options) -> list[Case]:
    """All batches greedily and sampled, then beam search, of each model."""
    found = []
    for cell in options.cells:
        for vocabulary in options.vocabularies:
            for way in options.ways:
                batches = (options.beam_batch,) if way == BEAM else options.batches
                found += [Case(cell, vocabulary, batch, way) for batch in batches]
    return found


def measure(options: Options, device: Any, say: Say) -> dict[str, Any]:
    """All numbers."""
    begins = frame("generate", device, say)
    sizes = Sizes(options.layers, options.features, options.tokens, options.top_k, options.beams)
    cases = cases_of(options)
    with contextlib.ExitStack() as stack:
        present = generate_run.start(options.peers, device, begins["threads"]["jax"], stack)
        for name, why in present.missing.items():
            say(f"{name} is left out: {why}")
        if not present.runs:
            say("no other library is there: ours writes alone (pip install seqjax[interop])")
        found = [
            generate_run.measure(case, sizes, present, options.rounds, say, f"{n}/{len(cases)}")
            for n, case in enumerate(cases, 1)
        ]
    begins["threads"] |= present.threads
    return {
        **begins,
        "rounds": options.rounds,
        "sizes": sizes._asdict(),
        "peers": list(options.peers),
        "missing": present.missing,
        "cases": found,
    }


if __name__ == "__main__":
    main()
