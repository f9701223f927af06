"""Draw a report as one figure; imported only to draw, since it needs matplotlib."""

from typing import Any

import jax
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

MOST_LINES = 8
"""How many lines a panel with one for each leaf, matrix or gate shows at most."""


def picture(report: Any) -> Figure:
    """Draw six panels: gradient by lag, Jacobians and bound, truncation, exponents, matrices, gates."""
    figure = Figure(figsize=(13, 7.5), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, 3).ravel()
    for panel, draw in zip(
        panels, (_gradient, _jacobians, _truncation, _exponents, _matrices, _gates), strict=True
    ):
        draw(panel, report)
        panel.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"{report.cell!r}, {report.steps} steps")
    return figure


def _gradient(panel: Any, report: Any) -> None:
    flow = report.flow
    for time, norms in zip(flow.times, np.asarray(flow.lag_norms), strict=True):
        reached = slice(1, int(time) + 2)
        _log_line(panel, flow.lags[reached], norms[reached], color="0.75", linewidth=0.8)
    _log_line(panel, flow.lags[1:], flow.mean_norms()[1:], color="C0", label="mean over t")
    panel.set(title="gradient of the state", xlabel="lag ℓ", ylabel="‖∂L_t/∂s‖, s ℓ steps back")
    _legend(panel)


def _jacobians(panel: Any, report: Any) -> None:
    found = report.jacobians
    name = "‖∂s_t/∂s_{t-ℓ}‖" if found.exact else f"from below, by {found.probes} probes"
    _log_line(panel, found.lags, np.max(np.asarray(found.spectral), axis=1), color="C0", label=name)
    if found.bound is not None:
        _log_line(panel, found.lags, np.asarray(found.bound), color="C3", label="bound (γ‖U‖)^ℓ")
    panel.set(title="Jacobian of the last state", xlabel="lag ℓ", ylabel="largest singular value")
    _legend(panel)


def _truncation(panel: Any, report: Any) -> None:
    flow = report.flow
    leaves = jax.tree_util.tree_leaves_with_path(flow.rest)
    for place, rest in leaves[:MOST_LINES]:
        name = jax.tree_util.keystr(place).lstrip(".")
        panel.plot(flow.ends, np.asarray(rest), linewidth=0.9, label=name)
    panel.plot(flow.ends, np.asarray(flow.total_rest), color="black", label="all")
    panel.set(title="what truncation loses", xlabel="after lag ℓ", ylabel="share of ‖∂L/∂θ‖")
    panel.set_ylim(bottom=0)
    _legend(panel)


def _exponents(panel: Any, report: Any) -> None:
    exponents = np.asarray(report.lyapunov.exponents)
    for row in exponents:
        panel.plot(np.arange(1, row.size + 1), row, "o", color="C0", alpha=0.6)
    panel.axhline(0, color="0.5", linewidth=0.8)
    panel.set_xticks(np.arange(1, exponents.shape[1] + 1))
    panel.set(title="Lyapunov exponents", xlabel="number", ylabel="nats per step")


def _matrices(panel: Any, report: Any) -> None:
    for matrix in report.spectrum.matrices[:MOST_LINES]:
        label = matrix.name
        if matrix.radius is not None:
            label += f", radius {matrix.radius:.2f}"
        values = matrix.singular_values
        panel.plot(np.linspace(0, 1, values.size), values, label=label)
    panel.set(title="singular values of U", xlabel="rank, from 0 to 1", ylabel="σ")
    panel.margins(y=0.1)
    panel.set_ylim(bottom=0)
    _legend(panel)


def _gates(panel: Any, report: Any) -> None:
    shown = [v for v in report.saturation.values if v.gate] or list(report.saturation.values)
    for v in shown[:MOST_LINES]:
        edges = np.linspace(0 if v.gate else -1, 1, v.histogram.size + 1)
        panel.stairs(v.histogram / max(v.histogram.sum(), 1), edges, label=v.name)
    kind = "gates" if any(v.gate for v in shown) else "tanh units"
    panel.set(title=kind if shown else "no gates", xlabel="value", ylabel="share of values")
    _legend(panel)


def _log_line(panel: Any, x: np.ndarray, y: np.ndarray, **style: Any) -> None:
    """Draw a line on a logarithmic axis, without points that have no logarithm."""
    drawn = np.isfinite(y) & (y > 0)
    panel.plot(x[drawn], y[drawn], **style)
    if np.any(drawn):
        panel.set_yscale("log")


def _legend(panel: Any) -> None:
    """Add a legend if any line has a name."""
    if panel.get_legend_handles_labels()[1]:
        panel.legend(fontsize=8, frameon=False)
