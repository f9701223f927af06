"""The picture of results/sweep.json: how many times as long N single trainings take as one program."""

from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from benchmarks.pictures import png
from benchmarks.sweep_report import GOALS, cases, counts, named
from benchmarks.sweep_run import FORMS, SINGLES

COLOURS = {"map": "#1f6fb4", "vmap": "#d1442f"}


def picture(results: dict[str, Any]) -> bytes:
    """A PNG: a panel for each number of devices, a line for each form, a dot for each round."""
    devices = counts(results)
    figure = Figure(figsize=(1 + 4.2 * len(devices), 3.6), layout="constrained")
    panels = figure.subplots(1, len(devices), squeeze=False, sharey=True)[0]
    least = GOALS["cpu" if results["device"]["platform"] == "cpu" else "gpu"]
    for axes, count in zip(panels, devices, strict=True):
        found = cases(results, count)
        members = [case["members"] for case in found]
        for form in FORMS:
            axes.plot(
                members,
                [case["ratios"][form] for case in found],
                "o-",
                color=COLOURS[form],
                markersize=4,
                label=form,
            )
            for case in found:
                singles, together = (case["contestants"][n]["seconds"] for n in (SINGLES, form))
                each = [a / b for a, b in zip(singles, together, strict=True)]
                axes.plot([case["members"]] * len(each), each, ".", color=COLOURS[form], alpha=0.3)
        axes.axhline(least, color="black", linewidth=0.8, linestyle="--", label="goal")
        axes.set_xscale("log", base=2)
        axes.set_yscale("log", base=2)
        axes.set_xticks(members, [str(n) for n in members])
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_title(named(results, count), fontsize=10)
        axes.set_xlabel("models, N")
        axes.grid(axis="y", alpha=0.25)
    panels[0].set_ylabel("N singles, times as long as the sweep")
    panels[0].legend(frameon=False, fontsize=9)
    return png(figure)
