"""The picture of results/generate.json: tokens a second, by model and by way to write."""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.generate_report import cells, others
from benchmarks.layers_picture import COLOURS
from benchmarks.pictures import png

OURS = "black"


def picture(results: dict[str, Any]) -> bytes:
    """A PNG: a panel for each cell, a group of bars for each row of its table."""
    rows = cells(results)
    figure = Figure(figsize=(10, 0.9 + 3.1 * len(rows)), layout="constrained")
    panels = figure.subplots(len(rows), 1, squeeze=False, sharey=True)
    for (axes,), cell in zip(panels, rows, strict=True):
        draw(axes, [case for case in results["cases"] if case["cell"] == cell], others(results))
        axes.set_title(cell, fontsize=10)
        axes.set_ylabel("tokens a second")
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside upper center", ncols=len(labels), frameon=False, fontsize=9
    )
    return png(figure)


def draw(axes: Axes, cases: list[dict[str, Any]], peers: list[str]) -> None:
    """Bars on a logarithmic scale, ours first."""
    names = ["ours", *peers]
    width = 0.84 / len(names)
    for number, name in enumerate(names):
        places = [
            (group, case["contestants"][name]["tokens_per_second"])
            for group, case in enumerate(cases)
            if name in case["contestants"]
        ]
        axes.bar(
            [group + (number - (len(names) - 1) / 2) * width for group, _ in places],
            [rate for _, rate in places],
            0.9 * width,
            color=OURS if name == "ours" else COLOURS[name],
            label=name,
        )
    axes.set_yscale("log")
    labels = [f"{case['way']}\n{case['batch']} of {case['vocabulary']}" for case in cases]
    axes.set_xticks(range(len(cases)), labels, fontsize=8)
    axes.grid(axis="y", alpha=0.25)
    axes.set_axisbelow(True)
