"""The section of docs/benchmarks.md on compilation, and the table of a run: all from the JSON."""

import statistics
from typing import Any

from benchmarks.frame import aligned, ran_on, where
from benchmarks.peers import PEERS
from benchmarks.shakespeare_report import table

GROWTH = 1.25
"""The goal: no length takes more than so many times as long as the shortest. Two compilations of one
program differ by a tenth and more."""

SECONDS = 1.0
"""The goal: tracing and compilation of one layer."""

DASH = "–"

INTRODUCTION = """\
## Tracing and compilation{where}

`python -m benchmarks compile`: the gradient of mean(y²), over all outputs y, with respect to the
weights, in float32, B = {batch}, D = {inputs}, H = {features}; one layer of T steps, and several layers.
Each entry is **tracing + compilation, in seconds**: from the function to StableHLO, and from there to a
program; medians of {rounds} rounds. In each a new function is traced by a JAX that has forgotten all
others (`jax.clear_caches()`), in one process, without the persistent cache. In brackets: how many
times as long as ours both take together, the median of the ratios of each round; above 1 ours is ready
sooner. Ours is `sj.unroll` with its defaults, of a `sj.Stack` where there are several layers; linen is
`nn.RNN` in `nn.Sequential`, haiku `hk.dynamic_unroll` of a `hk.DeepRNN`, one scan for all layers,
equinox a scan for each layer. `torch.compile` is not among them: another compiler, for other programs.

![Seconds of tracing and compilation]({picture})
"""


def section(results: dict[str, Any]) -> str:
    """The section: the goals, a table for each cell, notes, and what it ran on."""
    parts = [
        INTRODUCTION.format(
            where=where(results),
            rounds=results["rounds"],
            picture=f"../benchmarks/results/{results['name']}.png",
            **results["sizes"],
        ),
        *(f"- {goal}" for goal in goals(results)),
        "",
    ]
    for cell in cells(results):
        parts += [f"### Compiling {cell}{where(results)}\n"]
        parts += [*table(*rows(results, cell), numbers=True), ""]
    parts += [*(f"- {note}" for note in notes(results)), "", ran_on(results), ""]
    return "\n".join(parts)


def text(results: dict[str, Any]) -> str:
    """The same for a terminal."""
    parts = []
    for cell in cells(results):
        head, body = rows(results, cell)
        parts += [*aligned([[cell, *head], *(["", *row] for row in body)], 1), ""]
    return "\n".join(
        [*parts, *(goal.replace("**", "") for goal in goals(results)), *notes(results)]
    )


def cells(results: dict[str, Any]) -> list[str]:
    """Those that were measured."""
    return list(dict.fromkeys(case["cell"] for case in results["cases"]))


def others(results: dict[str, Any]) -> list[str]:
    """The libraries beside ours that were measured."""
    ran = {name for case in results["cases"] for name in case["contestants"]}
    return [name for name in PEERS if name in ran]


def rows(results: dict[str, Any], cell: str) -> tuple[list[str], list[list[str]]]:
    """The head and the rows of a cell."""
    names = others(results)
    body = [
        [
            str(case["time"]),
            str(case["depth"]),
            parts(case["contestants"]["ours"]),
            *(entry(case, name) for name in names),
        ]
        for case in results["cases"]
        if case["cell"] == cell
    ]
    return ["T", "layers", "ours", *names], body


def parts(contestant: dict[str, Any]) -> str:
    """Tracing and compilation."""
    return f"{contestant['trace']:.2f} + {contestant['compile']:.2f}"


def entry(case: dict[str, Any], name: str) -> str:
    """Those of a peer, and the ratio; a dagger where it is another function."""
    if name not in case["contestants"]:
        return DASH
    found = case["contestants"][name]
    mark = " †" if PEERS[name].variant(case["cell"]) else ""
    return f"{parts(found)} ({found['ratio']:.2f}){mark}"


def goals(results: dict[str, Any]) -> list[str]:
    """Whether each goal is reached, in words."""
    return [independent_of_length(results), ready_soon(results), never_again(results)]


def verdict(reached: bool) -> str:
    """In bold."""
    return "**reached**" if reached else "**not reached**"


def one_layer(results: dict[str, Any], cell: str) -> list[dict[str, Any]]:
    """Its cases with one layer, the shortest first."""
    found = [case for case in results["cases"] if (case["cell"], case["depth"]) == (cell, 1)]
    return sorted(found, key=lambda case: case["time"])


def totals(case: dict[str, Any]) -> list[float]:
    """Tracing and compilation of ours together, round by round."""
    mine = case["contestants"]["ours"]
    return [a + b for a, b in zip(mine["trace_seconds"], mine["compile_seconds"], strict=True)]


def growth(short: dict[str, Any], long: dict[str, Any]) -> float:
    """How many times as long the second takes: the median of the ratios of each round."""
    return statistics.median(b / a for a, b in zip(totals(short), totals(long), strict=True))


def independent_of_length(results: dict[str, Any]) -> str:
    """The goal that T does not count."""
    name = "Tracing and compilation do not grow with T: "
    found = grown(results, 0)
    if not found:
        return name + "not measured; expected one layer of at least two lengths."
    ratio, cell, short, long = max(found)
    text = (
        f"{name}{verdict(ratio <= GROWTH)}. The most is {ratio:.2f} times the time of the shortest, of "
        f"{cell} from T = {short} to {long}; the goal is at most {GROWTH:g} times."
    )
    longer = grown(results, 1)
    if longer:
        ratio, cell, short, long = max(longer)
        text += (
            f" Few steps are one loop, many are a loop over chunks of them, which is a larger program, "
            f"once: from T = {short} on the most is {ratio:.2f} times, of {cell} at {long}."
        )
    return text


def grown(results: dict[str, Any], first: int) -> list[tuple[float, str, int, int]]:
    """Growth from the shortest length but `first` to each longer one: how much, of what, from, to."""
    return [
        (growth(shortest, case), cell, shortest["time"], case["time"])
        for cell in cells(results)
        for shortest, *longer in [one_layer(results, cell)[first:] or [{}]]
        for case in longer
    ]


def ready_soon(results: dict[str, Any]) -> str:
    """The goal for one layer."""
    name = f"One layer in under {SECONDS:g} s: "
    found = [
        (case["contestants"]["ours"]["total"], cell, case["time"])
        for cell in cells(results)
        for case in one_layer(results, cell)
    ]
    seconds, cell, time = max(found)
    soon = sum(each < SECONDS for each, _, _ in found)
    return (
        f"{name}{verdict(seconds < SECONDS)}, on this machine. Tracing and compilation together take "
        f"{min(found)[0]:.2f} to {seconds:.2f} s, the longest of {cell} at T = {time}; "
        f"{soon} of {len(found)} lie below {SECONDS:g} s."
    )


def never_again(results: dict[str, Any]) -> str:
    """The goal that an equal configuration is known."""
    counts = results["again"]
    again = [each["again"] for each in counts]
    traces, compilations = (sum(e[what] for e in again) for what in ("traces", "compilations"))
    first = [each["first"]["traces"] for each in counts]
    other = [each["other"]["traces"] for each in counts]
    ways = ", ".join(f"`{way}`" if " " not in way else way for way in ways_of(results))
    told = (
        "A second call with an equal configuration never traces again: "
        f"{verdict(traces == compilations == 0)}. In the second calls, with cells made anew, ours was "
        f"traced {traces} times and {compilations} programs were compiled "
        f"({', '.join(cells(results))}; {ways}). A first call traced it {span(first)} times, one with "
        f"another configuration {span(other)} times."
    )
    guilty = [
        f"{each['cell']}, {each['way']}"
        for each in counts
        if each["again"]["traces"] or each["again"]["compilations"]
    ]
    return told + (f" It did again in: {'; '.join(guilty)}." if guilty else "")


def ways_of(results: dict[str, Any]) -> list[str]:
    """How ours was called."""
    return list(dict.fromkeys(each["way"] for each in results["again"]))


def span(numbers: list[int]) -> str:
    """The least and the most."""
    least, most = min(numbers), max(numbers)
    return f"{least}" if least == most else f"{least} to {most}"


def notes(results: dict[str, Any]) -> list[str]:
    """How the peers compare, who is missing where, who computes something else, and what depth costs."""
    found = []
    for cell in cells(results):
        layered = [case for case in results["cases"] if case["cell"] == cell]
        most = max(layered, key=lambda case: case["depth"])
        one = [c for c in layered if (c["time"], c["depth"]) == (most["time"], 1)]
        if one and most["depth"] > 1:
            found.append(
                f"{most['depth']} layers of {cell} take {growth(one[0], most):.2f} times as long as "
                f"one, at T = {most['time']}."
            )
    for name in others(results):
        ratios = [
            case["contestants"][name]["ratio"]
            for case in results["cases"]
            if name in case["contestants"]
        ]
        found.append(
            f"{name} takes {min(ratios):.2f} to {max(ratios):.2f} times as long as ours; "
            f"ours is ready sooner in {sum(ratio > 1 for ratio in ratios)} of {len(ratios)}."
        )
    found += [f"{name} is missing: {why}." for name, why in results["missing"].items()]
    if not others(results):
        found.append("No other library was there: ours was compiled alone.")
    for name in others(results):
        for cell in cells(results):
            variant = PEERS[name].variant(cell)
            if variant:
                found.append(f"† {name}: its {cell} {variant}.")
    left_out: dict[str, None] = {}
    for case in results["cases"]:
        for name, why in case["left_out"].items():
            at = f"{case['cell']}, T = {case['time']}, layers {case['depth']}"
            known = case["cell"] in PEERS[name].without
            left_out[f"{name} {why}." if known else f"{name} is left out of {at}: {why}."] = None
    return [*found, *left_out]
