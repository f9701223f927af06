"""docs/results.md from the JSON of `benchmarks.quality`."""

import statistics
from typing import Any

from benchmarks.quality_rows import ROWS, Row
from benchmarks.shakespeare_report import table

PAGE = """\
# Real sets, beside published results

<!-- Written by `python -m benchmarks.quality`: change benchmarks/quality_report.py instead. -->

Each row is an example of [examples/](../examples/README.md), trained with `--data` and the options
below. Ours is the mean over seeds on the test part, ± the standard deviation of one; the time is that
of one training, compilation and looks at the development part included. Options were chosen by the
development part; where a test value was seen before they were settled, it is said below. "Knows less"
is a baseline on the same test part. Published values are quoted from where they stand, and are of other
splits, versions and sizes where it says so: they say where one should be.

{table}

{missed}{remarks}
## The options

{commands}

## Where it ran

{machines}{busy}
"""


def page(results: list[dict[str, Any]]) -> str:
    """The whole page."""
    by_row = {name: [r for r in results if r["row"] == name] for name in ROWS}
    head = ["task", "shape", "parameters", "time", "ours", "asked", "published", "knows less"]
    rows = [line(row, by_row[name]) for name, row in ROWS.items()]
    missed = [m for name, row in ROWS.items() if (m := shortfall(row, by_row[name]))]
    return PAGE.format(
        table="\n".join(table(head, rows)),
        remarks="".join(f"- {row.task}: {row.remark}\n" for row in ROWS.values() if row.remark),
        missed="".join(f"- {sentence}\n" for sentence in missed),
        commands="\n".join(commands(name, row) for name, row in ROWS.items()),
        machines="\n".join(dict.fromkeys(machine(result) for result in results)) or "Nowhere yet.",
        busy=busy(results),
    )


def value_of(row: Row, result: dict[str, Any], name: str) -> float:
    """A number of a result in the unit of the row."""
    return result["numbers"][name] * (100 if row.unit == "%" else 1)


def line(row: Row, results: list[dict[str, Any]]) -> list[str]:
    """One line of the table."""
    asked = f"{'<' if row.lower else '≥'} {row.goal:g}"
    asked += "" if row.stretch is None else f", better {row.stretch:g}"
    where = [row.task, row.shape]
    if not results:
        why = "not run: wants a GPU" if row.big else "not run yet"
        return [*where, "", "", why, asked, row.published, ""]
    values = [value_of(row, result, row.value) for result in results]
    ours = f"**{shown(statistics.fmean(values))}** {row.unit}"
    if len(values) > 1:
        ours += f" ± {statistics.stdev(values):.2g}, {len(values)} runs"
    for name in row.also:
        ours += f"; {name} {shown(statistics.fmean(value_of(row, r, name) for r in results))}"
    baseline = ""
    if row.baseline is not None:
        baseline = shown(statistics.fmean(value_of(row, r, row.baseline) for r in results))
    size = f"{results[0]['numbers']['parameters']:,.0f}"
    seconds = statistics.fmean(result["seconds"] for result in results)
    spent = f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.0f} s"
    return [*where, size, spent, ours, asked, row.published, baseline]


def shown(value: float) -> str:
    """Four digits."""
    return f"{value:.4g}"


def reached(row: Row, values: list[float]) -> bool:
    """Whether the mean is what was asked for."""
    mean = statistics.fmean(values)
    return mean < row.goal if row.lower else mean >= row.goal


def shortfall(row: Row, results: list[dict[str, Any]]) -> str | None:
    """A sentence on a goal that is not reached."""
    values = [value_of(row, result, row.value) for result in results]
    if not values or reached(row, values):
        return None
    ours = shown(statistics.fmean(values))
    return f"Not reached: {row.task}, {ours} where {row.goal:g} was asked for. {row.tried}".strip()


def commands(name: str, row: Row) -> str:
    """How to make it by hand."""
    runs = "fold and seed" if row.trials > 3 else "seed"
    note = f"; {runs} 0 to {row.trials - 1}" if row.trials > 1 else ""
    return f"- `{name}`: `python examples/{row.example}.py --data … {row.options}`{note}"


def machine(result: dict[str, Any]) -> str:
    """What a result ran on."""
    of = result["machine"]
    packages = ", ".join(
        f"{name} {result['versions'][name]}"
        for name in ("jax", "jaxlib", "optax")
        if name in result["versions"]
    )
    device = "" if result["device"] == "cpu" else f"{result['device']}, "
    return f"- {result['made']}: {device}{of['processor']}, {of['cores_usable']} cores; {packages}"


def busy(results: list[dict[str, Any]]) -> str:
    """What to say of times that were taken while the machine did other work too."""
    loads = [r["machine"]["load_average"] for r in results if r["machine"]["load_average"]]
    if not loads or max(loads) < 2 * results[0]["machine"]["cores_usable"]:
        return ""
    return f"\n\nOther work ran beside it (load up to {max(loads):.0f}), so the times are too long."
