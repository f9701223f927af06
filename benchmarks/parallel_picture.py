"""The picture of results/parallel.json: how many times as many updates as on one device."""

from typing import Any

from matplotlib.figure import Figure

from benchmarks.parallel_report import counts
from benchmarks.pictures import png


def picture(results: dict[str, Any]) -> bytes:
    """A PNG: a line for each model, a dot for each round, and what so many cores could give at most."""
    figure = Figure(figsize=(5.4, 3.6), layout="constrained")
    axes = figure.subplots()
    devices = [int(n) for n in counts(results)]
    axes.plot(devices, devices, "--", color="black", linewidth=0.8, label="as many as cores")
    for case in results["cases"]:
        found = case["devices"]
        ratios = [found[str(n)]["speed_up"] for n in devices]
        (line,) = axes.plot(devices, ratios, "o-", markersize=4, label=f"LSTM {case['features']}")
        for n in devices[1:]:
            pairs = zip(found["1"]["seconds"], found[str(n)]["seconds"], strict=True)
            each = [one / many for one, many in pairs]
            axes.plot([n] * len(each), each, ".", color=line.get_color(), alpha=0.3)
    axes.set_xticks(devices)
    axes.set_xlabel("host devices")
    axes.set_ylabel("times the updates of one device")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, fontsize=9)
    return png(figure)
