"""The picture of results/long_memory_methods.json: one panel a task, one column a method."""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from benchmarks.long_memory_methods_report import methods, problems, reached
from benchmarks.long_memory_picture import COLOURS, draw_outcome
from benchmarks.long_memory_report import TITLES, tasks
from benchmarks.pictures import png


def picture(results: dict[str, Any]) -> bytes:
    """A PNG: the colour is the value as a share of that without memory, the text says it in numbers."""
    panels, columns = tasks(results), methods(results)
    heights = [len(problems(results, task)) for task in panels]
    figure = Figure(
        figsize=(4.2 + 0.85 * len(columns), 1.6 + 0.3 * sum(heights) + 0.5 * len(panels)),
        layout="constrained",
    )
    axes = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0]
    for panel, task in zip(axes, panels, strict=True):
        draw_task(panel, results, task, columns)
    scale = ScalarMappable(Normalize(0, 1), COLOURS)
    figure.colorbar(scale, ax=axes, label="value, as a share of that without memory", pad=0.02)
    figure.supxlabel(
        "a number: solved after so many updates; a percentage: not solved, that share of the value "
        "without memory",
        fontsize=8,
    )
    return png(figure)


def draw_task(axes: Axes, results: dict[str, Any], task: str, columns: list[str]) -> None:
    """A field for each problem and method that was measured."""
    rows = problems(results, task)
    for y, problem in enumerate(rows):
        for x, method in enumerate(columns):
            found = reached(results, problem, method)
            if found is not None:
                draw_outcome(axes, x, y, found, task, problem.length)
    axes.set_xlim(-0.5, len(columns) - 0.5)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(rows)), [f"{p.cell}, T = {p.length}" for p in rows])
    axes.tick_params(length=0, labelsize=8)
    axes.set_title(TITLES[task], fontsize=10)
