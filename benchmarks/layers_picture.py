"""The picture of results/layers.json: for each cell and kind, how many times as long as ours."""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from benchmarks.layers_report import cells, others
from benchmarks.layers_run import OURS_ON_CORES
from benchmarks.peers import PEERS
from benchmarks.peers.problem import Shape
from benchmarks.pictures import png

COLOURS = {
    "torch": "#d1442f",
    "ours, cores": "#1a1a1a",
    "ours, state": "#9a9a9a",
    "ours, scan": "#c4c4c4",
    "linen": "#1f6fb4",
    "nnx": "#7fb2dd",
    "haiku": "#2a9d63",
    "equinox": "#8a4fbf",
    "keras": "#b8860b",
}


def picture(results: dict[str, Any]) -> bytes:
    """A PNG: a panel for each cell and kind, a group of bars for each shape."""
    kinds = list(dict.fromkeys(case["kind"] for case in results["cases"]))
    rows, names = cells(results), others(results)
    if any(OURS_ON_CORES in case["ratios"] for case in results["cases"]):
        names = [OURS_ON_CORES, *names]
    figure = Figure(figsize=(1 + 6.2 * len(kinds), 0.9 + 2.7 * len(rows)), layout="constrained")
    panels = figure.subplots(len(rows), len(kinds), squeeze=False, sharey=True)
    for line, cell in zip(panels, rows, strict=True):
        for axes, kind in zip(line, kinds, strict=True):
            cases = [c for c in results["cases"] if (c["cell"], c["kind"]) == (cell, kind)]
            draw(axes, cases, names)
            axes.set_title(f"{cell}, {kind}", fontsize=10)
        line[0].set_ylabel("times as long as ours")
    ratios = [ratio for case in results["cases"] for ratio in case["ratios"].values()]
    panels[0][0].set_ylim(0.9 * min([0.5, *ratios]), 1.1 * max([2.0, *ratios]))  # of all panels
    for axes in panels[-1]:
        axes.set_xlabel("B, T, D, H")
    handles, labels = panels[0][0].get_legend_handles_labels()
    if handles:
        figure.legend(
            handles,
            labels,
            loc="outside upper center",
            ncols=len(labels),
            frameon=False,
            fontsize=9,
        )
    return png(figure)


def draw(axes: Axes, cases: list[dict[str, Any]], names: list[str]) -> None:
    """Bars from 1, where both are as fast: up where ours is faster. Hatched: another function."""
    width = 0.84 / max(1, len(names))
    for place, name in enumerate(names):
        for group, case in enumerate(cases):
            if name not in case["ratios"]:
                continue
            peer = PEERS.get(name)
            axes.bar(
                group + (place - (len(names) - 1) / 2) * width,
                case["ratios"][name] - 1,
                0.9 * width,
                bottom=1,
                color=COLOURS[name],
                hatch="////" if peer is not None and peer.variant(case["cell"]) else None,
                edgecolor="white",
                linewidth=0,
            )
        axes.bar(0, 0, color=COLOURS[name], label=name)  # for the legend, wherever it has bars
    axes.axhline(1, color="black", linewidth=0.8)
    axes.set_yscale("log", base=2)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xticks(
        range(len(cases)), [str(Shape._make(case["shape"])) for case in cases], fontsize=8
    )
    axes.grid(axis="y", alpha=0.25)
    axes.set_axisbelow(True)
