"""The section of docs/benchmarks.md on generation, and the table of a run: all from the JSON."""

from typing import Any

from benchmarks.frame import aligned, ran_on, where
from benchmarks.shakespeare_report import table

DASH = "–"

INTRODUCTION = """\
## Generation{where}

`python -m benchmarks generate`: texts of {tokens} tokens after one given token, by a language model of
{layers} layers of {features} units, with an embedding as wide, in float32; all have the same weights.
Each entry is **tokens a second**, of all texts of a batch together: the median of {rounds} rounds,
without compilation. In brackets: how many times as long as ours a library takes, the median of the
ratios of each round; above 1 ours is faster. "Sampled" is temperature 1 among the {top_k} likeliest
tokens; "beam" is beam search with {beams} beams, of which only the best text counts. Ours is
`sj.generate`, which gives log p of each token too, and `sj.continuations`. torch is its layer token by
token in a Python loop under inference mode, as its examples do, not compiled; linen is a `lax.scan` over
the cells, compiled as a whole; both draw among the likeliest tokens alone. "First call" has compilation
in it, in the order of the columns before it.

![Tokens a second]({picture})
"""


def section(results: dict[str, Any]) -> str:
    """The section: how it compares, a table for each cell, notes, and what it ran on."""
    parts = [
        INTRODUCTION.format(
            where=where(results),
            rounds=results["rounds"],
            picture=f"../benchmarks/results/{results['name']}.png",
            **results["sizes"],
        ),
        *(f"- {line}" for line in compared(results)),
        "",
    ]
    for cell in cells(results):
        parts += [f"### Writing with {cell}{where(results)}\n"]
        parts += [*table(*rows(results, cell), numbers=True), ""]
    parts += [*(f"- {note}" for note in notes(results)), "", ran_on(results), ""]
    return "\n".join(parts)


def text(results: dict[str, Any]) -> str:
    """The same for a terminal."""
    parts = []
    for cell in cells(results):
        head, body = rows(results, cell)
        parts += [*aligned([[cell, *head], *(["", *row] for row in body)], 1), ""]
    return "\n".join([*parts, *compared(results), *notes(results)])


def cells(results: dict[str, Any]) -> list[str]:
    """Those that were measured."""
    return list(dict.fromkeys(case["cell"] for case in results["cases"]))


def others(results: dict[str, Any]) -> list[str]:
    """The libraries beside ours that were measured."""
    ran = {name for case in results["cases"] for name in case["ratios"]}
    return [name for name in ("torch", "linen") if name in ran]


def rows(results: dict[str, Any], cell: str) -> tuple[list[str], list[list[str]]]:
    """The head and the rows of a cell."""
    names = others(results)
    body = []
    for case in results["cases"]:
        if case["cell"] != cell:
            continue
        found = case["contestants"]
        first = [
            f"{found[name]['first_call_seconds']:.2f}" if name in found else DASH
            for name in ("ours", *names)
        ]
        body.append(
            [
                str(case["vocabulary"]),
                str(case["batch"]),
                case["way"],
                rate(found["ours"]),
                *(entry(case, name) for name in names),
                " / ".join(first),
            ]
        )
    return ["vocabulary", "batch", "way", "ours", *names, "first call, s"], body


def rate(contestant: dict[str, Any]) -> str:
    """Tokens a second, in three digits."""
    return f"{float(format(contestant['tokens_per_second'], '.3g')):,.0f}"


def entry(case: dict[str, Any], name: str) -> str:
    """That of a peer, and the ratio."""
    if name not in case["contestants"]:
        return DASH
    return f"{rate(case['contestants'][name])} ({case['ratios'][name]:.2f})"


def place(case: dict[str, Any]) -> str:
    """A row in words."""
    return f"{case['cell']}, vocabulary {case['vocabulary']}, batch {case['batch']}, {case['way']}"


def compared(results: dict[str, Any]) -> list[str]:
    """In how many rows ours is faster, and where it stands best and worst."""
    found = []
    for name in others(results):
        cases = [case for case in results["cases"] if name in case["ratios"]]
        by_ratio = lambda case, name=name: case["ratios"][name]
        worst, best = min(cases, key=by_ratio), max(cases, key=by_ratio)
        faster = sum(by_ratio(case) > 1 for case in cases)
        found.append(
            f"Ours is faster than {name} in {faster} of {len(cases)} rows. {name} takes from "
            f"{by_ratio(worst):.2f} times as long ({place(worst)}) to {by_ratio(best):.2f} times "
            f"({place(best)})."
        )
    return found


def notes(results: dict[str, Any]) -> list[str]:
    """Whether all write the same texts, who is missing, and who was left out where."""
    found = []
    for name in others(results):
        shares = [
            (case["contestants"][name]["same_texts"], place(case))
            for case in results["cases"]
            if name in case["contestants"]
        ]
        known = [(share, at) for share, at in shares if share is not None]
        if not known:
            continue
        apart = [f"{100 * share:.0f} % of {at}" for share, at in known if share < 1]
        whole = (
            f"{name} writes the same texts as ours to the last token, greedily and by beam search"
        )
        if apart:
            kept = len(known) - len(apart)
            whole += (
                f", in {kept} of {len(known)} rows; near ties part the others: {'; '.join(apart)}"
            )
        found.append(whole + ".")
    found += [f"{name} is missing: {why}." for name, why in results["missing"].items()]
    if not others(results):
        found.append("No other library was there: ours wrote alone.")
    for case in results["cases"]:
        for name, why in case["left_out"].items():
            found.append(f"{name} is left out of {place(case)}: {why}.")
    return found
