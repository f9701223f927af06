"""The picture of results/memory.json: bytes against the number of steps, a line for each remat."""

from typing import Any

from matplotlib.figure import Figure

from benchmarks.memory_run import REMATS, Shape
from benchmarks.pictures import png


def picture(results: dict[str, Any]) -> bytes:
    """A PNG, both axes logarithmic."""
    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axes = figure.subplots()
    for remat in REMATS:
        entries = sorted(
            (entry for entry in results["growth"] if entry["remat"] == remat),
            key=lambda entry: entry["shape"][0],
        )
        times = [entry["shape"][0] for entry in entries]
        axes.plot(
            times,
            [entry["temporary_bytes"] / 1e6 for entry in entries],
            marker="o",
            label=f"remat={remat!r}",
        )
        planned = [entry["planned_bytes"] / 1e6 for entry in entries]
        axes.plot(times, planned, color="grey", linewidth=0.8, linestyle=":")
    axes.set(xscale="log", yscale="log", xlabel="steps", ylabel="MB")
    shape = Shape._make(results["long"])
    axes.set_title(
        f"Gradient of a loss of the last state: LSTM, B = {shape.batch}, D = {shape.inputs}, "
        f"H = {shape.features}",
        fontsize=9,
    )
    axes.plot([], [], color="grey", linewidth=0.8, linestyle=":", label="sj.plan_memory")
    axes.legend()
    axes.grid(visible=True, which="major", linewidth=0.4)
    return png(figure)
