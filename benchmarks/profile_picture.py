"""The picture of results/profile.json: a bar for each case, of what the cores do."""

from typing import Any

from matplotlib.figure import Figure

from benchmarks.peers.problem import Shape
from benchmarks.pictures import png
from benchmarks.profile_run import KINDS

COLOURS = ("tab:blue", "tab:cyan", "tab:green", "tab:orange", "tab:purple", "0.85")


def picture(results: dict[str, Any]) -> bytes:
    """A PNG."""
    cases = results["cases"]
    figure = Figure(figsize=(8.5, 1.4 + 0.32 * len(cases)), layout="constrained")
    axes = figure.subplots()
    left = [0.0] * len(cases)
    for kind, colour in zip(KINDS, COLOURS, strict=True):
        widths = [100 * case["shares"][kind] for case in cases]
        axes.barh(range(len(cases)), widths, left=left, color=colour, label=kind)
        left = [a + b for a, b in zip(left, widths, strict=True)]
    labels = [f"{c['cell']}  {Shape._make(c['shape'])}  {c['kind']}" for c in cases]
    axes.set_yticks(range(len(cases)), labels, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel("% of the time of all cores")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncol=6, fontsize=8)
    return png(figure)
