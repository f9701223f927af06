"""The table of benchmarks, and docs/benchmarks.md, which is made of what they wrote."""

import dataclasses
import importlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from benchmarks.files import write_whole
from benchmarks.processes import ROOT


class Suite(NamedTuple):
    """What it measures, and the page that it writes: its own, or a section of docs/benchmarks.md.

    Its module is named as it is, and has `main(arguments)`; one with a section has `section(results)`.
    """

    measures: str
    page: str


SECTIONS = "benchmarks.md"

SUITES = {
    "layers": Suite("one layer, forward and backward, beside other libraries", SECTIONS),
    "profile": Suite("where the time of a layer goes, operation by operation", SECTIONS),
    "compile": Suite("tracing and compilation, beside other libraries", SECTIONS),
    "generate": Suite("tokens a second, written by a language model", SECTIONS),
    "readout": Suite("a readout and its cross-entropy, beside logits written out", SECTIONS),
    "train": Suite("a language model, trained beside other libraries", SECTIONS),
    "sweep": Suite("many small models in one program, beside one after another", SECTIONS),
    "parallel": Suite("training on all cores, beside one", SECTIONS),
    "soak": Suite("whether training on all cores ever stops", SECTIONS),
    "tune": Suite(
        "the engine and the chunks of gated cells, which are written into a table", SECTIONS
    ),
    "precision": Suite("matmuls in bfloat16, beside float32: time and accuracy", SECTIONS),
    "memory": Suite("what gradients through time keep, and what keeping less costs", "memory.md"),
    "diagnose": Suite("what sj.diagnose costs beside a gradient", "diagnose_cost.md"),
    "online": Suite("what online gradient rules cost", "online.md"),
    "truncation": Suite("how far truncated gradients are from exact ones", "truncation.md"),
    "long_memory": Suite("what each cell learns to remember", "long_memory.md"),
    "long_memory_methods": Suite("the same by gradient method", "long_memory_methods.md"),
    "shakespeare": Suite("a character model, beside nanoGPT's CPU recipe", "shakespeare.md"),
    "quality": Suite("the examples on real sets, beside published results", "results.md"),
}

INTRODUCTION = """\
# Benchmarks

<!-- Written by `python -m benchmarks report`: change benchmarks/ instead. -->

How each number is made: [benchmarks/README.md](../benchmarks/README.md).
"""


@dataclasses.dataclass(frozen=True)
class Report:
    """Write docs/benchmarks.md from the newest results of all suites that have a section there."""

    into: Path = ROOT
    """The folder with benchmarks/results/ whose docs/ is written; the checkout unless given."""


def listing() -> str:
    """All suites, a line each."""
    width = max(map(len, SUITES))
    lines = [f"  {name:<{width}}  {suite.measures}" for name, suite in SUITES.items()]
    return "\n".join(
        [
            "python -m benchmarks SUITE [options]; --help after a suite says which options it has",
            "",
            *lines,
            f"  {'report':<{width}}  write docs/{SECTIONS} again from the newest results",
        ]
    )


def module(name: str) -> ModuleType:
    """That of a suite; it is imported only when it is asked for."""
    return importlib.import_module(f"benchmarks.{name}")


def run(arguments: Sequence[str]) -> None:
    """The suite that the first argument names, with the others."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(listing())
        return
    name, *others = arguments
    if name == "report":
        options = read_options(Report, others, "python -m benchmarks report")
        print(f"wrote {write_page(options.into)}")
    elif name in SUITES:
        module(name).main(others)
    else:
        sys.exit(f"no suite is called {name!r}; expected one of {', '.join(SUITES)}, or report")


def read_options(kind: type, arguments: Sequence[str] | None, prog: str):
    """The options by tyro; where it is not installed, the defaults, and no others."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        import tyro
    except ImportError:
        if arguments:
            sys.exit("tyro is not installed; expected it, for options: pip install seqjax[train]")
        return kind()
    return tyro.cli(kind, args=arguments, prog=prog)


def results_of(name: str, into: Path) -> list[Path]:
    """The JSON of a suite, and what it wrote on other devices beside it."""
    folder = into / "benchmarks" / "results"
    return [*folder.glob(f"{name}.json"), *sorted(folder.glob(f"{name}-*.json"))]


def write_page(into: Path) -> Path:
    """docs/benchmarks.md: a section for each JSON, and where the other pages are."""
    sections = [
        module(name).section(json.loads(file.read_text("utf-8")))
        for name, suite in SUITES.items()
        if suite.page == SECTIONS
        for file in results_of(name, into)
    ]
    if not sections:
        names = ", ".join(name for name, suite in SUITES.items() if suite.page == SECTIONS)
        sys.exit(
            f"{into / 'benchmarks' / 'results'} holds no results of {names}; expected them, as "
            f"`python -m benchmarks SUITE` writes them"
        )
    others = [
        f"- [{suite.measures}]({suite.page})" for suite in SUITES.values() if suite.page != SECTIONS
    ]
    page = into / "docs" / SECTIONS
    write_whole(
        page, "\n".join([INTRODUCTION, *sections, "## On pages of their own\n", *others, ""])
    )
    return page
