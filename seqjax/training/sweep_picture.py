"""The picture of a sweep: how each training went, and what came of it over two hyperparameters."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

FAR = 100
"""How many times the best score has a colour of its own."""


def picture(
    score: str,
    curves: tuple[np.ndarray, np.ndarray],
    axes: dict[str, list[str]],
    smallest: np.ndarray,
) -> Figure:
    """Curves on the left; on the right nothing, a line, or a map, as `axes` are none, one, or two.

    curves: steps and values, [times] and [times, settings]. axes: the values of up to two
    hyperparameters in words; smallest: the smallest score at each combination, an axis for each.
    """
    figure = Figure(figsize=(6 + 5 * bool(axes), 4.2), layout="constrained")
    left, *right = figure.subplots(1, 1 + bool(axes), squeeze=False)[0]
    left.plot(*curves, linewidth=1, alpha=0.7)
    left.set(xlabel="step", ylabel=score)
    if np.nanmin(curves[1], initial=np.inf) > 0:
        left.set_yscale("log")
    match list(axes.items()):
        case [across]:
            line(right[0], score, across, smallest)
        case [across, up]:
            shown = heat(right[0], across, up, smallest)
            figure.colorbar(shown, label=score, extend="max")
    return figure


def line(panel: Axes, score: str, across: tuple[str, list[str]], smallest: np.ndarray) -> None:
    """The score at each value of one hyperparameter."""
    name, values = across
    panel.plot(smallest, "o-")
    lost = np.flatnonzero(np.isnan(smallest))
    panel.plot(lost, 0.5 + 0 * lost, "x", color="black", transform=panel.get_xaxis_transform())
    panel.set(xlabel=name, ylabel=score)
    panel.set_xticks(range(len(values)), values)


def heat(
    panel: Axes, across: tuple[str, list[str]], up: tuple[str, list[str]], smallest: np.ndarray
) -> AxesImage:
    """The score at each pair of values of two hyperparameters."""
    # Colours for what is worth a look: one that has nearly diverged would have them all.
    least, most = np.nanmin(smallest, initial=np.inf), np.nanmax(smallest, initial=-np.inf)
    norm = LogNorm(least, min(most, FAR * least)) if 0 < least < most else None
    shown = panel.imshow(smallest.T, norm=norm, origin="lower", aspect="auto", cmap="viridis_r")
    panel.plot(*np.nonzero(np.isnan(smallest)), "x", color="black")
    panel.set(xlabel=across[0], ylabel=up[0])
    panel.set_xticks(range(len(across[1])), across[1], rotation=45)
    panel.set_yticks(range(len(up[1])), up[1])
    return shown
