"""What a sweep returns: a table, a picture, and every training in it."""

import dataclasses
import operator
from typing import Any

import jax
import numpy as np

from seqjax.training.members import Setting
from seqjax.training.state import Record, TrainState


@dataclasses.dataclass(frozen=True)
class SweepResult:
    """All trainings of a sweep, in the order of its settings.

    settings: the hyperparameters of each. records: the log; a metric is a list, [settings].
    score: the name of the record that ranks them; the smallest last value is the best.
    interrupted: True where Ctrl-C ended the sweep before its last step.

    `str` is a table, the best first.
    """

    settings: tuple[Setting, ...]
    records: list[Record]
    score: str
    interrupted: bool
    groups: tuple[tuple[np.ndarray, TrainState], ...] = dataclasses.field(repr=False)

    @property
    def scores(self) -> np.ndarray:
        """The last score of each, [settings]; NaN for one that diverged."""
        scores = self.last(self.score)
        return np.where(np.isfinite(scores), scores, np.nan)

    @property
    def best(self) -> int:
        """The index of the setting with the smallest score.

        Raises a ValueError where all have diverged.
        """
        if np.isnan(self.scores).all():
            raise ValueError(
                f"SweepResult.best: {self.score} is not finite under any of the {len(self.settings)} "
                "settings; expected one that did not diverge: try smaller learning rates or clipping"
            )
        return int(np.nanargmin(self.scores))

    def state(self, index: int) -> TrainState:
        """The training under `settings[index]`, as `fit` would have left it.

        Raises a ValueError for an index out of range.
        """
        for indices, states in self.groups:
            for place in np.flatnonzero(indices == index):
                return jax.tree.map(operator.itemgetter(int(place)), states)
        raise ValueError(f"SweepResult.state: expected 0 … {len(self.settings) - 1}, got {index}")

    def last(self, name: str) -> np.ndarray:
        """The last value of a record, [settings].

        Raises a ValueError for a name that no record has.
        """
        return self.curve(name)[1][-1]

    def curve(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """The steps at which a record was made, [times], and its values, [times, settings].

        Raises a ValueError for a name that no record has.
        """
        found = [(record["step"], record[name]) for record in self.records if name in record]
        if not found:
            names = sorted({n for r in self.records for n in r} - {"step", "seconds", "tokens"})
            raise ValueError(
                f"SweepResult: no record has {name!r}; expected one of {', '.join(names)}"
            )
        steps, values = zip(*found, strict=True)
        return np.asarray(steps), np.asarray(values, np.float64)

    def best_over(self, *names: str) -> tuple[list[list[Any]], np.ndarray]:
        """The values of these hyperparameters, and the smallest score at each combination of them.

        The array has an axis for each name; NaN where all that were tried there diverged, or none was.
        Raises a ValueError for a name that does not vary.
        """
        varied = axes(self.settings)
        for name in names:
            if name not in varied:
                expected = ", ".join(varied) or "none, as all settings are equal"
                raise ValueError(f"SweepResult: expected one of {expected}, got {name!r}")
        values = [varied[name] for name in names]
        smallest = np.full([len(v) for v in values], np.nan)
        for setting, score in zip(self.settings, self.scores, strict=True):
            place = tuple(v.index(setting[name]) for name, v in zip(names, values, strict=True))
            smallest[place] = np.fmin(smallest[place], score)
        return values, smallest

    def __str__(self) -> str:
        """A line for each setting, the best first, those that diverged last."""
        varied = list(axes(self.settings)) or list(self.settings[0])
        rows = [[*varied, self.score]]
        for index in np.argsort(self.scores, kind="stable"):
            score = self.scores[index]
            shown = "diverged" if np.isnan(score) else f"{score:.4g}"
            rows.append([*(in_short(self.settings[index][name]) for name in varied), shown])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join("  ".join(map(str.rjust, row, widths)) for row in rows)

    def plot(self, x: str | None = None, y: str | None = None) -> Any:
        """One matplotlib `Figure`: the score over training, and its last value over the settings.

        x, y: which hyperparameters, by default the first two that vary; over all others the best is
        taken. A setting that diverged is a cross. Needs seqjax[plot].

        Raises a ValueError for a name that does not vary.
        """
        names = [name for name in (x, y) if name is not None]
        names += [name for name in axes(self.settings) if name not in names]
        values, smallest = self.best_over(*names[:2])
        texts = [[in_short(value) for value in of_name] for of_name in values]
        named = dict(zip(names, texts, strict=False))
        return picture(self.score, self.curve(self.score), named, smallest)


def axes(settings: tuple[Setting, ...]) -> dict[str, list[Any]]:
    """The hyperparameters that vary, and their values: numbers in order, others as they come."""
    found = {}
    for name in settings[0]:
        values = list(dict.fromkeys(setting[name] for setting in settings))
        if len(values) > 1:
            numbers = all(isinstance(value, int | float | np.number) for value in values)
            found[name] = sorted(values) if numbers else values
    return found


def in_short(value: Any) -> str:
    """A value of a hyperparameter in at most four digits."""
    return f"{value:.4g}" if isinstance(value, float | np.floating) else str(value)


FAR = 100
"""How many times the best score has a colour: what nearly diverged would have all of them."""


def picture(
    score: str,
    curves: tuple[np.ndarray, np.ndarray],
    axes: dict[str, list[str]],
    smallest: np.ndarray,
) -> Any:
    """Curves on the left; on the right nothing, a line, or a map, as `axes` are none, one, or two.

    curves: steps and values, [times] and [times, settings]. axes: the values of up to two
    hyperparameters in words; smallest: the smallest score at each combination, an axis for each.
    """
    from matplotlib.colors import LogNorm  # lazily: not for those who only read the table
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6 + 5 * bool(axes), 4.2), layout="constrained")
    left, *right = figure.subplots(1, 1 + bool(axes), squeeze=False)[0]
    left.plot(*curves, linewidth=1, alpha=0.7)
    left.set(xlabel="step", ylabel=score)
    if np.nanmin(curves[1], initial=np.inf) > 0:
        left.set_yscale("log")
    if not axes:
        return figure
    panel, names, lost = right[0], list(axes), np.nonzero(np.isnan(smallest))
    if len(axes) == 1:
        panel.plot(smallest, "o-")
        lost = lost[0], np.full(len(lost[0]), 0.5)
        panel.plot(*lost, "x", color="black", transform=panel.get_xaxis_transform())
        panel.set(xlabel=names[0], ylabel=score)
    else:
        least, most = np.nanmin(smallest, initial=np.inf), np.nanmax(smallest, initial=-np.inf)
        norm = LogNorm(least, min(most, FAR * least)) if 0 < least < most else None
        shown = panel.imshow(smallest.T, norm=norm, origin="lower", aspect="auto", cmap="viridis_r")
        figure.colorbar(shown, label=score, extend="max")
        panel.plot(*lost, "x", color="black")
        panel.set(xlabel=names[0], ylabel=names[1])
        panel.set_yticks(range(len(axes[names[1]])), axes[names[1]])
    panel.set_xticks(range(len(axes[names[0]])), axes[names[0]], rotation=45 * (len(axes) - 1))
    return figure
