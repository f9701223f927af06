"""The picture of results/precision.json: what bfloat16 brings, and the two trainings."""

from typing import Any

from matplotlib.figure import Figure

from benchmarks.peers.problem import Shape
from benchmarks.pictures import png


def picture(results: dict[str, Any]) -> bytes:
    """A PNG: a row for each cell and shape with a dot for each pass; the loss of both trainings."""
    cases, training = results["cases"], results["training"]
    kinds = list(dict.fromkeys(case["kind"] for case in cases))
    count = len(cases) // len(kinds)
    figure = Figure(figsize=(10, max(3.2, 1.2 + 0.26 * count)), layout="constrained")
    speeds, losses = figure.subplots(1, 2)
    for kind in kinds:
        of_kind = [case for case in cases if case["kind"] == kind]
        speeds.plot([case["speed"] for case in of_kind], range(count), "o", label=kind)
    labels = [f"{case['cell']}  {Shape._make(case['shape'])}" for case in cases[:: len(kinds)]]
    speeds.set_yticks(range(count), labels, fontsize=8)
    speeds.invert_yaxis()
    speeds.axvline(1, color="black", linewidth=0.8)
    speeds.set_xlim(left=0)
    speeds.set_xlabel("bfloat16: times as fast as float32")
    for name, run in training["runs"].items():
        losses.plot(range(1, training["updates"] + 1), run["losses"], label=name, alpha=0.7)
    losses.set_xlabel("update")
    losses.set_ylabel("training loss, nats a character")
    for axes in (speeds, losses):
        axes.grid(alpha=0.25)
        axes.legend(frameon=False, fontsize=8)
    return png(figure)
