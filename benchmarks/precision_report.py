"""The section of docs/benchmarks.md on bfloat16, and the table of a run: from the JSON."""

from typing import Any

from benchmarks.frame import aligned, ran_on, where
from benchmarks.peers.problem import Shape
from benchmarks.shakespeare_report import table

PAYS = 1.05
"""How many times as fast as float32 it is to be, that it may be said to pay."""

INTRODUCTION = """\
## Matmuls in bfloat16{where}

`python -m benchmarks precision`: one layer with `dtype=bfloat16` beside the same with `float32`, from
the same float32 weights; states, sums over time and the gradients of the weights are float32 in both.
**How many times as fast as float32**: the median over {rounds} rounds of the ratio in that round. The
error is ‖a - b‖ / ‖b‖ of outputs, or of the gradient by W, U or b that is furthest from float32's.
{verdict}

![How many times as fast as float32]({picture})
"""


def section(results: dict[str, Any]) -> str:
    """The section: a table, the training, and what it ran on."""
    introduction = INTRODUCTION.format(
        where=where(results),
        rounds=results["rounds"],
        verdict=verdict(results),
        picture=f"../benchmarks/results/{results['name']}.png",
    )
    lines = [*table(*rows(results), numbers=True), "", trained(results), "", ran_on(results), ""]
    return "\n".join([introduction, *lines])


def text(results: dict[str, Any]) -> str:
    """The same for a terminal."""
    head, body = rows(results)
    return "\n".join([*aligned([head, *body], 3), verdict(results), trained(results)])


def verdict(results: dict[str, Any]) -> str:
    """Where it pays."""
    cases = results["cases"]
    paying = [case for case in cases if case["speed"] >= PAYS]
    if not paying:
        return f"**It pays in none of {len(cases)} cases here.**"
    if len(paying) == len(cases):
        return f"**It pays in all {len(cases)} cases here.**"
    names = (f"{c['cell']} {Shape._make(c['shape'])} {c['kind']}" for c in paying)
    return f"**It pays in {len(paying)} of {len(cases)} cases here**: {'; '.join(names)}."


def trained(results: dict[str, Any]) -> str:
    """What the training came to in both, in a sentence."""
    training = results["training"]
    each = (
        f"{run['loss']:.3f} nats in {name}, {1e3 * run['seconds']:.1f} ms an update"
        for name, run in training["runs"].items()
    )
    return (
        f"A character model of one LSTM of {training['features']} units on Shakespeare, after "
        f"{training['updates']} updates from the same weights: {'; '.join(each)}."
    )


def rows(results: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """The head and the rows: a case each."""
    head = ["cell", "B, T, D, H", "pass", "float32, ms", "bfloat16: ×", "error"]
    body = []
    for case in results["cases"]:
        wide = sorted(case["seconds"]["float32"])[results["rounds"] // 2]
        numbers = f"{1e3 * wide:,.3g}", f"{case['speed']:.2f}", f"{case['error']:.1e}"
        body.append([case["cell"], str(Shape._make(case["shape"])), case["kind"], *numbers])
    return head, body
