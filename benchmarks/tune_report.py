"""The section of docs/benchmarks.md on the engines of gated cells, and the table of a run."""

from typing import Any

from benchmarks.frame import aligned, ran_on, where
from benchmarks.peers.problem import Shape
from benchmarks.shakespeare_report import table

INTRODUCTION = """\
## The engine of gated cells{where}

`python -m benchmarks tune`: one layer by the plain scan and by the chunked engine with chunks of so
many steps, or of more where the projections of all of them are no more numbers than so many, in turn.
**How many times as fast as the scan**, the median over {rounds} rounds of the ratio in that round.
What is fastest in the middle of all rows (a geometric mean), if it is 1.05 times as fast as the scan,
is what `engine="auto"` takes here, by `seqjax/engines/tuned.py`: **{chosen}**.

![How many times as fast as the scan](../benchmarks/results/{name}.png)
"""


def section(results: dict[str, Any]) -> str:
    """The section: a table, and what it ran on."""
    introduction = INTRODUCTION.format(
        where=where(results),
        rounds=results["rounds"],
        chosen=results["chosen"],
        name=results["name"],
    )
    return "\n".join([introduction, *table(*rows(results), numbers=True), "", ran_on(results), ""])


def text(results: dict[str, Any]) -> str:
    """The same for a terminal."""
    head, body = rows(results)
    return "\n".join([*aligned([head, *body], 3), f"chosen: {results['chosen']}"])


def rows(results: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """The head and the rows: a case each, and the middle of all."""
    names = [name for name in results["speeds"] if name != "scan"]
    head = ["cell", "B, T, D, H", "pass", "scan, ms", *names]
    body = []
    for case in results["cases"]:
        scan = sorted(case["seconds"]["scan"])[results["rounds"] // 2]
        of_choices = [f"{case['speeds'][name]:.2f}" for name in names]
        shape = str(Shape._make(case["shape"]))
        body.append([case["cell"], shape, case["kind"], f"{1e3 * scan:,.3g}", *of_choices])
    middle = [f"{results['speeds'][name]:.2f}" for name in names]
    return head, [*body, ["all", "", "", "", *middle]]
