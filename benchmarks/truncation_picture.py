"""The picture of results/truncation.json: bias, cosine, time and memory against k2."""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.pictures import png
from benchmarks.truncation_report import bias, lengths, networks

COLOURS = ("#1f6fb4", "#2a9d63", "#d1442f", "#8a4fbf", "#b8860b")
STYLES = {"k1 = 1": "-", "k1 = k2": "--"}
LABELS = {"k1 = 1": "k1 = 1, k2", "k1 = k2": "k1 = k2", "k2 = T": "k1, k2 = T (exact)"}
ROUNDING = 1e-12


def picture(results: dict[str, Any]) -> bytes:
    """A PNG of four panels."""
    figure = Figure(figsize=(10, 7.4), layout="constrained")
    (biases, cosines), (seconds, memory) = figure.subplots(2, 2)
    draw_biases(biases, results, "bias")
    draw_biases(cosines, results, "cosine")
    draw_costs(seconds, results, "seconds", 1000.0)
    draw_costs(memory, results, "temporary_bytes", 1 / 1024)
    for axes, title, y in (
        (biases, "Bias of the truncated gradient", "‖g - g*‖ / ‖g*‖"),
        (cosines, "Its direction", "cosine between g and g*"),
        (seconds, "Time of one gradient (LSTM)", "milliseconds"),
        (memory, "Memory of its program (LSTM)", "KiB"),
    ):
        axes.set_title(title, fontsize=10)
        axes.set_ylabel(y)
        axes.set_xscale("log", base=2)
        axes.set_xticks(lengths(results), [str(k) for k in lengths(results)])
        axes.grid(alpha=0.25)
    for axes in (biases, seconds, memory):
        axes.set_yscale("log")
    for axes in (biases, cosines):
        axes.set_xlabel("k2 (solid: k1 = 1; dashed: k1 = k2)")
    for axes in (seconds, memory):
        axes.set_xlabel("k2, or k1 where k2 = T")
        axes.legend(frameon=False, fontsize=8)
    biases.legend(frameon=False, fontsize=8)
    return png(figure)


def draw_biases(axes: Axes, results: dict[str, Any], what: str) -> None:
    """A colour for each network, a style for each form; a bias of mere rounding is left out."""
    for network, colour in zip(networks(results), COLOURS, strict=False):
        for form, style in STYLES.items():
            values = [bias(results, network, form, k2, what) for k2 in lengths(results)]
            points = [
                (k2, value)
                for k2, value in zip(lengths(results), values, strict=True)
                if what == "cosine" or value > ROUNDING
            ]
            label = network if form == "k1 = 1" else None
            axes.plot(
                *zip(*points, strict=True),
                style,
                marker="o",
                markersize=3,
                color=colour,
                label=label,
            )


def draw_costs(axes: Axes, results: dict[str, Any], what: str, unit: float) -> None:
    """A line for each form, and BPTT as a level."""
    for (form, label), colour in zip(LABELS.items(), COLOURS, strict=False):
        of = "k1" if form == "k2 = T" else "k2"
        rows = [row for row in results["costs"] if row["form"] == form]
        points = [(row[of], unit * row[what]) for row in rows]
        axes.plot(*zip(*points, strict=True), "o-", markersize=3, color=colour, label=label)
    (exact,) = (row for row in results["costs"] if row["form"] == "bptt")
    axes.axhline(unit * exact[what], color="#444444", linestyle=":", label="BPTT")
