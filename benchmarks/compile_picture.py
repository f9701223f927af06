"""The picture of results/compile.json: seconds of tracing and compilation by length, and by depth."""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.compile_report import SECONDS, cells, others
from benchmarks.layers_picture import COLOURS
from benchmarks.peers import PEERS
from benchmarks.pictures import png

OURS = "black"


def picture(results: dict[str, Any]) -> bytes:
    """A PNG: a row for each cell; on the left one layer by its length, on the right by depth."""
    rows = cells(results)
    figure = Figure(figsize=(9.5, 0.9 + 2.6 * len(rows)), layout="constrained")
    panels = figure.subplots(len(rows), 2, squeeze=False, sharey=True)
    for (left, right), cell in zip(panels, rows, strict=True):
        cases = [case for case in results["cases"] if case["cell"] == cell]
        deepest = max(cases, key=lambda case: case["depth"])
        draw(left, [case for case in cases if case["depth"] == 1], "time", results)
        draw(right, [c for c in cases if c["time"] == deepest["time"]], "depth", results)
        left.set_title(f"{cell}, one layer", fontsize=10)
        right.set_title(f"{cell}, T = {deepest['time']}", fontsize=10)
        left.set_ylabel("seconds")
    panels[0][0].set_ylim(bottom=0)  # of all panels
    panels[-1][0].set_xlabel("steps T")
    panels[-1][1].set_xlabel("layers")
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside upper center", ncols=len(labels), frameon=False, fontsize=9
    )
    return png(figure)


def draw(axes: Axes, cases: list[dict[str, Any]], along: str, results: dict[str, Any]) -> None:
    """Both together as lines, tracing alone as dots; dashed: another function. Grey is the goal."""
    cases = sorted(cases, key=lambda case: case[along])
    for name in ("ours", *others(results)):
        found = [(c[along], c["contestants"][name]) for c in cases if name in c["contestants"]]
        places = [place for place, _ in found]
        colour = OURS if name == "ours" else COLOURS[name]
        variant = name in PEERS and bool(cases) and PEERS[name].variant(cases[0]["cell"])
        line = "--" if variant else "-"
        axes.plot(places, [each["total"] for _, each in found], f"o{line}", color=colour, ms=3.5)
        axes.plot(places, [each["trace"] for _, each in found], ":", color=colour, linewidth=1)
        axes.plot([], [], "-", color=colour, label=name)  # for the legend, wherever it has lines
    axes.plot([], [], ":", color="grey", label="tracing alone")
    if along == "time":
        axes.axhline(SECONDS, color="#c0c0c0", linewidth=0.8, zorder=0)
    axes.set_xscale("log", base=2)
    axes.set_xticks([case[along] for case in cases], [str(case[along]) for case in cases])
    axes.minorticks_off()
    axes.grid(axis="y", alpha=0.25)
    axes.set_axisbelow(True)
