"""Windows of a time series and their scaling: each step is forecast once and nothing is copied."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from seqjax.data import (
    Buckets,
    Example,
    Scaling,
    forecast_windows,
    split_by_position,
)


def steps(time: int, columns: int = 2) -> np.ndarray:
    """Make numbers that are all different: row t, column c holds 10 t + c."""
    return 10.0 * np.arange(time)[:, None] + np.arange(columns)


# Scaling ------------------------------------------------------------------------------------------


def test_the_deviation_is_that_of_the_population():
    """Means 3 and 10; the squares of the differences add up to 8 and 0 over 4 steps."""
    scaling = Scaling.fit([[1, 10], [3, 10], [3, 10], [5, 10]])
    assert scaling.mean == (3.0, 10.0)
    np.testing.assert_allclose(scaling.deviation, (np.sqrt(2), 1.0), rtol=1e-15)
    np.testing.assert_allclose(scaling.apply([[3 + np.sqrt(2), 12]]), [[1, 2]], rtol=1e-14)
    # A spread that vanishes when it is squared is left as it is.
    assert Scaling.fit([[0.0], [1e-200]]).deviation == (1.0,)
    # In float32 the mean of these is 16,777,216 and the deviation 0 or more, by how it is summed.
    narrow = np.array([[2.0**24], [2.0**24 + 2], [2.0**24 + 4]], np.float32)
    scaling = Scaling.fit(narrow)
    assert (scaling.mean, scaling.apply(narrow).dtype) == ((2.0**24 + 2,), np.float64)


@pytest.mark.parametrize("constant", [0.1, 0.0, 1e12 / 3, -7])
def test_a_constant_column_becomes_zero_and_comes_back(constant):
    train = np.column_stack([np.full(1000, constant), np.arange(1000.0)])
    scaling = Scaling.fit(train)
    assert scaling.deviation[0] == 1
    assert not scaling.apply(train)[:, 0].any()
    np.testing.assert_array_equal(scaling.invert(scaling.apply(train))[:, 0], constant)


def test_what_is_scaled_has_mean_0_and_deviation_1_and_columns_can_be_chosen():
    train = np.random.default_rng(0).normal(size=(50, 3)) * [1, 100, 1e-4] + [5, -3, 0]
    scaling = Scaling.fit(train)
    scaled = scaling.apply(train)
    np.testing.assert_allclose(scaled.mean(axis=0), 0, atol=1e-13)
    np.testing.assert_allclose(scaled.std(axis=0), 1, rtol=1e-13)
    np.testing.assert_array_equal(scaling.select([2, 0]).apply(train[:, [2, 0]]), scaled[:, [2, 0]])


NUMBERS = st.integers(-(10**9), 10**9).map(lambda number: number / 1000)


@settings(max_examples=20)
@given(
    hnp.arrays(np.float64, (7, 2), elements=NUMBERS),
    hnp.arrays(np.float64, (3, 4, 2), elements=NUMBERS),
)
def test_invert_undoes_apply(train, values):
    """Both round at most a few times, at the size of the largest number on the way."""
    scaling = Scaling.fit(train)
    largest = max(np.abs(values).max(), np.abs(train).max())
    np.testing.assert_allclose(
        scaling.invert(scaling.apply(values)), values, rtol=1e-14, atol=1e-14 * largest
    )


# Parts --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("time", "sizes", "lengths"),
    [
        (10, (0.7, 0.1, 0.2), [7, 1, 2]),
        (100, (0.29, 0.71), [29, 71]),
        (10, (0.6, 0.2), [6, 2]),
        (7, (0.5, 0.5), [4, 3]),
        (3, (1.0,), [3]),
        (20, (9, 4, 3), [9, 4, 3]),
    ],
)
def test_shares_end_at_the_nearest_step_and_the_rest_is_left_out(time, sizes, lengths):
    parts = split_by_position(np.arange(time), sizes)
    assert [len(part) for part in parts] == lengths
    np.testing.assert_array_equal(np.concatenate(parts), np.arange(sum(lengths)))


def test_with_a_past_every_step_of_a_later_part_is_forecast_and_none_of_an_earlier_one():
    past, horizon, ends = 4, 3, (12, 20, 30)
    series = steps(30, 1)
    parts = split_by_position(series, (12, 8, 10), past=past)
    assert [len(part) for part in parts] == [12, 8 + past, 10 + past]
    for part, start, end in zip(parts, (past, *ends[:-1]), ends, strict=True):
        assert np.shares_memory(part, series)
        windows = forecast_windows(part, past, horizon)
        scored = {t // 10 for window in windows for t in window.targets[:, 0]}
        assert scored == set(range(start, end))
        assert len(windows) == end - start - horizon + 1


# Windows ------------------------------------------------------------------------------------------


@settings(max_examples=20)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 4), st.integers(0, 20))
def test_window_i_is_the_past_and_the_steps_after_it(past, horizon, stride, more):
    time = past + horizon + more
    series = steps(time)
    windows = forecast_windows(series, past, horizon, stride=stride)
    starts = [s for s in range(time) if s % stride == 0 and s + past + horizon <= time]
    assert len(windows) == len(starts)
    for start, window in zip(starts, windows, strict=True):
        assert isinstance(window, Example)
        np.testing.assert_array_equal(window.inputs, series[start : start + past])
        now = start + past
        np.testing.assert_array_equal(window.targets, series[now : now + horizon])


@pytest.mark.parametrize("targets", [None, [1], (2, 0), [0, 1, 2]])
def test_targets_are_the_columns_that_were_chosen_and_one_or_all_are_views(targets):
    series = steps(12, 3)
    window = forecast_windows(series, 4, 2, targets=targets)[3]
    np.testing.assert_array_equal(window.inputs, series[3:7])
    expected = series[7:9] if targets is None else series[7:9][:, list(targets)]
    np.testing.assert_array_equal(window.targets, expected)
    assert np.shares_memory(window.inputs, series)
    assert np.shares_memory(window.targets, series) == (targets in (None, [1]))


def test_windows_are_indexed_as_a_list_is():
    windows = forecast_windows(steps(12), 4, 2, stride=3)
    rows = [window.inputs[0, 0] for window in windows]
    assert rows == [0, 30, 60]
    assert [window.inputs[0, 0] for window in windows[::-1]] == rows[::-1]
    assert (windows[-1].inputs[0, 0], windows[np.int64(1)].inputs[0, 0]) == (60, 30)
    for index in (3, -4):
        with pytest.raises(IndexError):
            _ = windows[index]


def test_buckets_take_the_windows_as_they_are():
    windows = forecast_windows(steps(30), 6, 2, targets=[1])
    batches = Buckets(windows, 4, boundaries=(6,), workers=0)
    seen = []
    for batch in batches.one_pass():
        assert batch.inputs.shape == (6, 4, 2)
        for row in np.flatnonzero(batch.real):
            seen.append(batch.inputs[0, row, 0] / 10)
            np.testing.assert_array_equal(
                batch.targets[: batch.target_lengths[row], row], steps(30)[6:8, 1:] + 10 * seen[-1]
            )
    assert seen == list(range(len(windows)))


HOLE = steps(9)
HOLE[4, 1] = np.nan
ENDLESS: Any = [[1.0], [np.inf], [np.nan]]
FITTED = Scaling.fit(steps(4))
cut: Any = lambda *options, **targets: forecast_windows(steps(7), *options, **targets)
parted: Any = lambda parts, **options: split_by_position(np.arange(10), parts, **options)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: cut(5, 3), "series has 7 steps; expected at least 8"),
        (lambda: cut(0, 3), "past: expected a positive integer, got 0"),
        (lambda: cut(3, 0), "horizon: expected a positive integer, got 0"),
        (lambda: cut(3, 1, stride=0), "stride: expected a positive"),
        (lambda: cut(3, 1, targets=[2]), r"targets: expected .* in \[0, 2\), got \[2\]"),
        (lambda: cut(3, 1, targets=[-1]), r"targets: expected .* in \[0, 2\), got \[-1\]"),
        (lambda: cut(3, 1, targets=[]), "targets: expected one column or more"),
        (lambda: forecast_windows(np.arange(9.0), 3, 1), r"float64\[9\]; .*series\[:, None\]"),
        (lambda: forecast_windows(HOLE, 3, 1), r"holds nan at step 4, column 1 \(1 such values\)"),
        (lambda: Scaling.fit(HOLE), r"Scaling.fit: train holds nan at step 4, column 1"),
        (lambda: Scaling.fit(ENDLESS), r"holds inf at step 1, column 0 \(2 such values\)"),
        (lambda: Scaling.fit(np.zeros((0, 2))), r"64\[0, 2\]; expected .* \[time, columns\]"),
        (lambda: Scaling.fit([["a"], ["b"]]), r"train is <U1\[2, 1\]; expected real numbers"),
        (lambda: FITTED.apply([1.0]), r"apply: values has shape \(1,\); expected"),
        (lambda: FITTED.invert(np.float64(1)), r"invert: values has shape \(\)"),
        (lambda: FITTED.select([]), "select: columns: expected one column or more"),
        (lambda: FITTED.select([2]), r"select: columns: expected .* \[0, 2\)"),
        (lambda: Scaling((0.0,), (0.0,)), "deviation: expected a positive number, got 0.0"),
        (lambda: Scaling((0.0,), (1.0, 1.0)), "1 means but 2 deviations"),
        (lambda: split_by_position(np.float64(1), (1,)), "series is a scalar"),
        (lambda: parted((6, 5)), r"parts \(6, 5\) hold 11 steps, but series has 10"),
        (lambda: parted((6, 0)), "parts: expected positive steps, all integers, or shares"),
        (lambda: parted((0.5, 0.6)), "expected shares with a sum of at most 1"),
        (lambda: parted((0.5, -0.1)), "parts: expected positive steps, all integers, or shares"),
        (lambda: parted((0.98, 0.02)), r"parts\[1\] is steps 10 to 10 of 10; expected at least"),
        (lambda: parted((5, 0.5)), "all integers, or shares, all floats"),
        (lambda: parted(()), "all integers, or shares, all floats"),
        (lambda: parted((True, True)), "all integers, or shares, all floats"),
        (lambda: parted((3, 7), past=4), r"parts\[1\] is steps 3 to 10 of 10; expected .* past=4"),
        (lambda: parted((3, 7), past=-1), "past: expected an integer of at least 0"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_wrong_series_columns_and_parts_are_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()
