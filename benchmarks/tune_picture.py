"""The picture of results/tune.json: how many times as fast as the scan each choice is."""

from typing import Any

from matplotlib.figure import Figure

from benchmarks.peers.problem import Shape
from benchmarks.pictures import png


def picture(results: dict[str, Any]) -> bytes:
    """A PNG: a panel for each pass, a row of dots for each cell and shape."""
    kinds = list(dict.fromkeys(case["kind"] for case in results["cases"]))
    names = [name for name in results["speeds"] if name != "scan"]
    count = len(results["cases"]) // len(kinds)
    figure = Figure(figsize=(2 + 4.5 * len(kinds), 1.6 + 0.3 * count), layout="constrained")
    panels = figure.subplots(1, len(kinds), squeeze=False, sharey=True)[0]
    for axes, kind in zip(panels, kinds, strict=True):
        cases = [case for case in results["cases"] if case["kind"] == kind]
        for name in names:
            axes.plot([case["speeds"][name] for case in cases], range(count), "o", label=name)
        axes.axvline(1, color="black", linewidth=0.8)
        labels = [f"{case['cell']}  {Shape._make(case['shape'])}" for case in cases]
        axes.set_yticks(range(count), labels, fontsize=8)
        axes.set_title(kind, fontsize=10)
        axes.set_xlabel("times as fast as the scan")
        axes.grid(axis="x", alpha=0.25)
    panels[0].invert_yaxis()
    panels[-1].legend(frameon=False, fontsize=8)
    return png(figure)
