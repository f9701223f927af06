"""The picture of results/shakespeare.json: validation loss against wall time."""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.pictures import png

SEEDS = ("#1f6fb4", "#2a9d63", "#8a4fbf", "#b8860b", "#4a4a4a")
PEER = "#d1442f"
GOAL = "#444444"


def picture(results: dict[str, Any]) -> bytes:
    """A PNG: a line for each seed, the end of the peer as a point, the goals as dashed lines."""
    figure = Figure(figsize=(8, 5.8), layout="constrained")
    axes = figure.subplots()
    for run, colour in zip(results["seeds"], SEEDS * len(results["seeds"]), strict=False):
        draw_seed(axes, run, colour)
    draw_goals(axes, results)
    draw_peer(axes, results["peer"])
    axes.set_xlim(left=0)
    axes.margins(y=0.08)
    axes.set_xlabel(
        "wall time, seconds (seqjax: from the start of its process, compilation included)"
    )
    axes.set_ylabel("validation loss, nats per character")
    axes.set_title("Characters of Shakespeare, " + results["machine"]["processor"])
    axes.grid(alpha=0.25)
    figure.legend(frameon=False, loc="outside lower center", ncols=2)
    return png(figure)


def draw_seed(axes: Axes, run: dict[str, Any], colour: str) -> None:
    """The evaluations of one seed."""
    points = [(p["seconds"], p["nats"]) for p in run["curve"] if p["nats"] is not None]
    label = f"seqjax, seed {run['seed']}: {run['nats']:.3f} in {run['wall_seconds']:.0f} s"
    axes.plot(*zip(*points, strict=True), "o-", color=colour, markersize=4.5, label=label)


def draw_goals(axes: Axes, results: dict[str, Any]) -> None:
    """The loss to reach, and the time to reach it in."""
    goal, budget = results["goal"]["nats"], results["peer"]["budget_seconds"]
    axes.axhline(goal, color=GOAL, linestyle="--", linewidth=1.2, label=f"goal: {goal:.2f}")
    who = "the peer's mean time" if results["peer"]["runs"] else "time budget"
    label = f"{who}: {budget:.0f} s"
    axes.axvline(budget, color=PEER, linestyle=":", linewidth=1.2, label=label)


def draw_peer(axes: Axes, peer: dict[str, Any]) -> None:
    """Where each run of the peer ended."""
    for number, run in enumerate(peer["runs"], 1):
        label = f"nanoGPT's CPU recipe, run {number}: {run['nats']:.3f} in {run['seconds']:.0f} s"
        marker = "*" if number == 1 else "X"
        size = 14 if number == 1 else 9
        axes.plot(
            run["seconds"], run["nats"], marker, color=PEER, markersize=size, zorder=3, label=label
        )
