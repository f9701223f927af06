"""The section of docs/benchmarks.md on several cores, and the table of a run: from the JSON."""

from typing import Any

from benchmarks.frame import aligned, ran_on
from benchmarks.shakespeare_report import table

INTRODUCTION = """\
## Training on all cores

`python -m benchmarks parallel`: the update of `sj.training.fit` on one device of JAX, which runs the
loop of a cell on one core, and after `sj.training.use_cores(n)`, which makes n host devices that share
each batch. A character model of one LSTM, {batch} sequences of {time} characters an update, clipped
AdamW, float32: loss, gradient, update and the sums over devices. Updates a second, and **how many times
as many as on one device**: the median over {rounds} rounds of the ratio in that round, of at least
{seconds:g} s each. The losses of the first updates differ by at most {difference:.0e} nats.

![How many times as many updates a second as on one device]({picture})
"""


def section(results: dict[str, Any]) -> str:
    """The section: a table, and what it ran on."""
    cases = results["cases"]
    introduction = INTRODUCTION.format(
        batch=cases[0]["batch"],
        time=cases[0]["time"],
        rounds=results["rounds"],
        seconds=results["at_least_seconds"],
        difference=max(d["difference"] for case in cases for d in case["devices"].values()),
        picture=f"../benchmarks/results/{results['name']}.png",
    )
    return "\n".join([introduction, *table(*rows(results), numbers=True), "", ran_on(results), ""])


def text(results: dict[str, Any]) -> str:
    """The same for a terminal."""
    head, body = rows(results)
    return "\n".join(aligned([head, *body], 1))


def counts(results: dict[str, Any]) -> list[str]:
    """The numbers of devices, as the JSON has them."""
    return list(results["cases"][0]["devices"])


def rows(results: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """The head and the rows: a model each."""
    names = counts(results)
    head = ["LSTM", *(f"on {n}, updates/s" for n in names), *(f"{n}: ×" for n in names[1:])]
    body = []
    for case in results["cases"]:
        found = [case["devices"][n] for n in names]
        rates = [f"{f['steps_per_second']:.1f}" for f in found]
        body.append([str(case["features"]), *rates, *(f"{f['speed_up']:.2f}" for f in found[1:])])
    return head, body
