"""The picture of results/train.json: for each model, the tokens a second of each contestant."""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.pictures import png
from benchmarks.train_report import contestants, titled

OURS, OTHERS = "#1f6fb4", "#9a9a9a"


def picture(results: dict[str, Any]) -> bytes:
    """A PNG: a panel for each model, a bar for each contestant, a dot for each round."""
    cases = results["cases"]
    figure = Figure(figsize=(1 + 5.2 * len(cases), 3.6), layout="constrained")
    for axes, case in zip(figure.subplots(1, len(cases), squeeze=False)[0], cases, strict=True):
        draw(axes, case)
    return png(figure)


def draw(axes: Axes, case: dict[str, Any]) -> None:
    """One model; above the bar the median, as the table has it."""
    names = contestants(case)
    for place, name in enumerate(names):
        one = case["contestants"][name]
        rates = [case["tokens_per_update"] / seconds for seconds in one["seconds"]]
        colour = OURS if name.startswith("ours") else OTHERS
        bars = axes.barh(place, one["tokens_per_second"], 0.7, color=colour)
        axes.bar_label(bars, [f"{one['tokens_per_second']:,.0f}"], padding=10, fontsize=8)
        axes.plot(rates, [place] * len(rates), ".", color="black", markersize=3)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.margins(x=0.16)
    axes.set_xlim(left=0)
    axes.set_title(titled(case), fontsize=10)
    axes.set_xlabel("tokens a second")
