"""The picture of results/readout.json: how many times as long as ours the others take."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks.pictures import png
from benchmarks.readout_problem import Sizes
from benchmarks.readout_report import names


def picture(results: dict[str, Any]) -> bytes:
    """A PNG: a group of bars for each size."""
    cases, others = results["cases"], names(results)
    figure = Figure(figsize=(2 + 1.8 * len(cases), 3.4), layout="constrained")
    axes = figure.subplots()
    places, width = np.arange(len(cases)), 0.8 / max(1, len(others))
    for number, name in enumerate(others):
        ratios = [case["ratios"][name] for case in cases]
        axes.bar(places + (number + 0.5) * width - 0.4, ratios, width, label=name)
    axes.axhline(1, color="black", linewidth=0.8)
    axes.set_xticks(places, [f"T, B, H, V\n{Sizes._make(c['sizes'])}" for c in cases], fontsize=8)
    axes.set_ylabel("times as long as ours")
    axes.grid(axis="y", alpha=0.25)
    axes.legend(frameon=False, fontsize=8)
    return png(figure)
