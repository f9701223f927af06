"""The picture of results/long_memory.json: one panel a task, one row a cell, one column a length."""

from typing import Any

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from benchmarks.long_memory_recipe import TASKS
from benchmarks.long_memory_report import TITLES, Outcome, cells, lengths_of, outcome, tasks
from benchmarks.pictures import png

COLOURS = colormaps["viridis_r"]
NOT_FINITE = "#444444"


def picture(results: dict[str, Any]) -> bytes:
    """A PNG: the colour is the value as a share of that without memory, the text says it in numbers."""
    panels = tasks(results)
    rows = list(dict.fromkeys(cell for task in panels for cell in cells(results, task)))
    widths = [len(lengths_of(results, task)) for task in panels]
    figure = Figure(
        figsize=(2.6 + 0.85 * sum(widths) + 1.2, 1.5 + 0.3 * len(rows)), layout="constrained"
    )
    axes = figure.subplots(1, len(panels), squeeze=False, width_ratios=widths)[0]
    for number, (panel, task) in enumerate(zip(axes, panels, strict=True)):
        draw_task(panel, results, task, rows)
        panel.set_yticks(range(len(rows)), rows if number == 0 else [""] * len(rows))
    scale = ScalarMappable(Normalize(0, 1), COLOURS)
    figure.colorbar(scale, ax=axes, label="value, as a share of that without memory", pad=0.02)
    figure.supxlabel(
        "a number: solved after so many updates; a percentage: not solved, that share of the value "
        "without memory",
        fontsize=8,
    )
    return png(figure)


def draw_task(axes: Axes, results: dict[str, Any], task: str, rows: list[str]) -> None:
    """A field for each cell and length that was measured."""
    lengths = lengths_of(results, task)
    for x, length in enumerate(lengths):
        for y, cell in enumerate(rows):
            found = outcome(results, cell, task, length)
            if found is None:
                continue
            draw_outcome(axes, x, y, found, task, length)
    axes.set_xlim(-0.5, len(lengths) - 0.5)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xticks(range(len(lengths)), [f"T = {length}" for length in lengths])
    axes.tick_params(length=0, labelsize=8)
    axes.set_title(TITLES[task], fontsize=10)


def draw_outcome(axes: Axes, x: float, y: float, found: Outcome, task: str, length: int) -> None:
    """The field of one outcome."""
    if found.updates is not None and 2 * found.solved > found.seeds:
        text, weight = f"{found.updates:,.0f}", "bold"
    elif found.value is None:
        text, weight = "not finite", "normal"
    else:
        text, weight = f"{100 * found.value / TASKS[task].baseline(length):.0f} %", "normal"
    draw_field(axes, x, y, share(found.value, task, length), text, weight)


def share(value: float | None, task: str, length: int) -> float | None:
    """The value as a share of the baseline, at most 1."""
    return None if value is None else min(value / TASKS[task].baseline(length), 1.0)


def draw_field(
    axes: Axes, x: float, y: float, colour: float | None, text: str, weight: str
) -> None:
    """One coloured field with its text."""
    face = NOT_FINITE if colour is None else COLOURS(colour)
    axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=face, edgecolor="white"))
    # Light on the dark end of the scale, dark on the light one.
    ink = "white" if colour is None or colour > 0.45 else "black"
    axes.text(x, y, text, ha="center", va="center", fontsize=7.5, color=ink, weight=weight)
