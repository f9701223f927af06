"""Time series for forecasting: scaling, parts by position, and windows."""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import overload

import numpy as np
import numpy.typing as npt
from jaxtyping import Float64

from seqjax import checks
from seqjax.data.buckets import Example


@dataclasses.dataclass(frozen=True)
class Scaling:
    """z = (x - mean) / deviation, column by column, in float64.

    `fit` it on the training part alone, and apply it to all parts. Errors of z are the usual ones to
    report; `seqjax.metrics.forecast_errors` gives them in the unit of each column too.

    >>> scaling = Scaling.fit([[1.0, 7.0], [3.0, 7.0]])
    >>> scaling
    Scaling(mean=(2.0, 7.0), deviation=(1.0, 1.0))
    >>> scaling.apply([[4.0, 9.0]]).tolist(), scaling.invert([[2.0, 2.0]]).tolist()
    ([[2.0, 2.0]], [[4.0, 9.0]])
    """

    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    def __post_init__(self) -> None:
        """Validate that the scaling can be inverted."""
        if len(self.mean) != len(self.deviation) or not self.mean:
            raise ValueError(
                f"Scaling: {len(self.mean)} means but {len(self.deviation)} deviations; "
                "expected one of each for each column"
            )
        for mean, deviation in zip(self.mean, self.deviation, strict=True):
            checks.finite("Scaling: mean", mean)
            checks.finite_positive("Scaling: deviation", deviation)

    @classmethod
    def fit(cls, train: npt.ArrayLike) -> "Scaling":
        """Take the mean and the population standard deviation of each column of `train`.

        train: [time, columns], finite. A constant column has deviation 1, as in scikit-learn, so it
        becomes 0.
        """
        train = _series("Scaling.fit: train", train).astype(np.float64)
        # The deviation of a constant may round to 1e-17, and that of tiny numbers to 0.
        mean, deviation = train.mean(axis=0), train.std(axis=0)
        constant = train.max(axis=0) == train.min(axis=0)
        mean = np.where(constant, train[0], mean)
        deviation = np.where(constant | (deviation == 0), 1.0, deviation)
        return cls(tuple(mean.tolist()), tuple(deviation.tolist()))

    def apply(self, values: npt.ArrayLike) -> Float64[np.ndarray, "*batch columns"]:
        """Scale `values` [*batch, columns]."""
        return (self._columns("apply", values) - np.array(self.mean)) / np.array(self.deviation)

    def invert(self, values: npt.ArrayLike) -> Float64[np.ndarray, "*batch columns"]:
        """Return scaled `values` [*batch, columns] to their own units."""
        return self._columns("invert", values) * np.array(self.deviation) + np.array(self.mean)

    def select(self, columns: Sequence[int]) -> "Scaling":
        """Return the scaling of some columns, in the given order: of the targets, for instance."""
        _check_columns("Scaling.select: columns", columns, len(self.mean))
        return Scaling(*(tuple(s[c] for c in columns) for s in (self.mean, self.deviation)))

    def _columns(self, method: str, values: npt.ArrayLike) -> np.ndarray:
        values = np.asarray(values, np.float64)
        if values.ndim == 0 or values.shape[-1] != len(self.mean):
            raise ValueError(
                f"Scaling.{method}: values has shape {values.shape}; "
                f"expected [*batch, {len(self.mean)}], as it was fitted; see Scaling.select"
            )
        return values


def split_by_position(
    series: npt.ArrayLike, parts: Sequence[int] | Sequence[float], *, past: int = 0
) -> tuple[np.ndarray, ...]:
    """Cut `series` [time, ...] into consecutive parts, as views.

    Args:
        series: [time, ...].
        parts: the steps of each part, integers; or the share of each, floats in (0, 1], which ends at
            the sum of the shares so far times `time`, rounded. The rest is dropped.
        past: how many steps earlier each part but the first begins, within the part before, so that the
            first forecast from `past` steps is that of its own first step. Every step of a part is
            scored and none is a target in two parts. Informer splits ETT so.

    >>> [part.tolist() for part in split_by_position(range(10), (6, 2))]
    [[0, 1, 2, 3, 4, 5], [6, 7]]
    >>> [part.tolist() for part in split_by_position(range(10), (0.6, 0.2, 0.2), past=2)]
    [[0, 1, 2, 3, 4, 5], [4, 5, 6, 7], [6, 7, 8, 9]]
    """
    series, sizes = np.asarray(series), np.asarray(parts)
    if series.ndim == 0:
        raise ValueError("split_by_position: series is a scalar; expected [time, ...]")
    checks.size("split_by_position: past", past)
    kinds = {np.asarray(part).dtype.kind for part in parts}
    if sizes.ndim != 1 or len(kinds) != 1 or not kinds <= set("iuf") or not np.all(sizes > 0):
        raise ValueError(
            "split_by_position: parts: expected positive steps, all integers, or shares, all floats, "
            f"got {parts!r}"
        )
    ends = np.cumsum(sizes)
    if sizes.dtype.kind == "f":
        if ends[-1] > 1 + 1e-9:
            raise ValueError(
                f"split_by_position: parts: expected shares with a sum of at most 1, got {parts!r}"
            )
        ends = np.round(ends * len(series)).astype(np.int64)
    if ends[-1] > len(series):
        raise ValueError(
            f"split_by_position: parts {parts!r} hold {ends[-1]} steps, but series has {len(series)}"
        )
    bounds = list(itertools.pairwise([0, *ends.tolist()]))
    for number, (start, end) in enumerate(bounds):
        if start == end or 0 < start < past:
            raise ValueError(
                f"split_by_position: parts[{number}] is steps {start} to {end} of {len(series)}; "
                f"expected at least one step, and past={past} steps before it"
            )
    return tuple(series[max(start - past, 0) : end] for start, end in bounds)


@dataclasses.dataclass(frozen=True, eq=False)
class ForecastWindows(Sequence[Example]):
    """`Example`s of the first `past` steps of each window, and of the `targets` in the steps after.

    windows: [windows, time, columns], a view of the series; `forecast_windows` makes it.
    """

    windows: np.ndarray
    past: int
    targets: list[int] | slice

    def __len__(self) -> int:
        """The number of windows."""
        return len(self.windows)

    @overload
    def __getitem__(self, index: int | np.integer) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> list[Example]: ...
    def __getitem__(self, index: int | np.integer | slice) -> Example | list[Example]:
        """Window `index`, or a list of those of a slice."""
        if isinstance(index, slice):
            return [self[i] for i in range(len(self))[index]]
        window = self.windows[index]
        return Example(window[: self.past], window[self.past :, self.targets])


def forecast_windows(
    series: npt.ArrayLike,
    past: int,
    horizon: int,
    *,
    stride: int = 1,
    targets: Sequence[int] | None = None,
) -> ForecastWindows:
    """Cut all windows of `past` steps, each with the `horizon` steps after it, as `Example`s.

    Args:
        series: [time, columns]; scale it first.
        past: the steps of the inputs, in all columns, so with the past of what is forecast.
        horizon: the steps of the targets.
        stride: the steps from one window to the next.
        targets: the columns to forecast, by number; None is all.

    `Buckets` takes the windows as they are. They are views of `series`, apart from targets of several
    chosen columns, which are a copy of one window. Raises a ValueError for a series that is not finite.

    >>> windows = forecast_windows([[0.0], [1.0], [2.0], [3.0], [4.0]], past=2, horizon=1)
    >>> len(windows), windows[-1].inputs.tolist(), windows[-1].targets.tolist()
    (3, [[2.0], [3.0]], [[4.0]])
    """
    series = _series("forecast_windows: series", series)
    for name, value in {"past": past, "horizon": horizon, "stride": stride}.items():
        checks.positive(f"forecast_windows: {name}", value)
    columns = slice(None)
    if targets is not None:
        _check_columns("forecast_windows: targets", targets, series.shape[1])
        first, *more = targets
        columns = list(targets) if more else slice(first, first + 1)  # a view, where a list copies
    if len(series) < past + horizon:
        raise ValueError(
            f"forecast_windows: series has {len(series)} steps; expected at least {past + horizon}, "
            f"past={past} and horizon={horizon}"
        )
    windows = np.lib.stride_tricks.sliding_window_view(series, past + horizon, axis=0)
    return ForecastWindows(windows[::stride].swapaxes(1, 2), past, columns)


def _series(name: str, series: npt.ArrayLike) -> np.ndarray:
    """Validate `series` as [time, columns] of finite numbers, without a copy."""
    series = np.asarray(series)
    if series.ndim != 2 or 0 in series.shape or series.dtype.kind not in "fiu":
        hint = "; for one column, series[:, None]" if series.ndim == 1 else ""
        raise ValueError(
            f"{name} is {series.dtype}{list(series.shape)}; expected real numbers [time, columns]{hint}"
        )
    bad = np.argwhere(~np.isfinite(series))
    if len(bad):
        step, column = bad[0].tolist()
        raise ValueError(
            f"{name} holds {series[step, column]} at step {step}, column {column} "
            f"({len(bad)} such values); expected finite numbers"
        )
    return series


def _check_columns(name: str, columns: Sequence[int], count: int) -> None:
    known = all(isinstance(c, int | np.integer) and 0 <= c < count for c in columns)
    if len(columns) == 0 or not known:
        raise ValueError(f"{name}: expected one column or more in [0, {count}), got {columns!r}")
