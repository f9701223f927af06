"""The section of docs/benchmarks.md on readouts, and the table of a run: from the JSON."""

import statistics
from typing import Any

from benchmarks.frame import aligned, ran_on, where
from benchmarks.readout_problem import Sizes
from benchmarks.shakespeare_report import table

INTRODUCTION = """\
## A readout and its cross-entropy{where}

`python -m benchmarks readout`: the gradient of mean(-log softmax(y V + b)[target]) with respect to y, V
and b, in float32, V as an embedding has it, [classes, units]. Ours is `sj.losses.linear_cross_entropy`,
which counts right choices too; "ours, logits" is `sj.losses.cross_entropy` of all logits at once, optax
`softmax_cross_entropy_with_integer_labels` of them, torch `F.linear` and `F.cross_entropy`. **Times as
long as ours** is the median over {rounds} rounds of the ratio in that round, so above 1 ours is faster.
In brackets: the bytes that the compiled program holds beside inputs and results.

![Times as long as ours]({picture})
"""


def section(results: dict[str, Any]) -> str:
    """The section: a table, and what it ran on."""
    introduction = INTRODUCTION.format(
        where=where(results),
        rounds=results["rounds"],
        picture=f"../benchmarks/results/{results['name']}.png",
    )
    lines = [*table(*rows(results), numbers=True), "", *missing(results), ran_on(results), ""]
    return "\n".join([introduction, *lines])


def text(results: dict[str, Any]) -> str:
    """The same for a terminal."""
    head, body = rows(results)
    return "\n".join([*aligned([head, *body], 1), *missing(results)])


def missing(results: dict[str, Any]) -> list[str]:
    """Who was left out, and why."""
    return [f"{name} is left out: {why}.\n" for name, why in results["missing"].items()]


def names(results: dict[str, Any]) -> list[str]:
    """The others, in the order of the first size."""
    return list(results["cases"][0]["ratios"])


def rows(results: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """The head and the rows: a size each."""
    head = ["T, B, H, V", "ours, ms", *names(results)]
    body = []
    for case in results["cases"]:
        held = case["temporary_bytes"]
        bytes_of = lambda name, held=held: f" ({held[name] / 1e6:,.0f} MB)" if name in held else ""
        ours = f"{1e3 * statistics.median(case['seconds']['ours']):,.3g}{bytes_of('ours')}"
        others = [f"{case['ratios'][n]:.2f}{bytes_of(n)}" for n in names(results)]
        body.append([str(Sizes._make(case["sizes"])), ours, *others])
    return head, body
