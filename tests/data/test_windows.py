"""Lanes and windows: every pair of tokens once per pass, and positions that can be resumed."""

import json
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqjax.data import Batch, Windows, lanes, passes
from seqjax.data.windows import rolled

few = settings(max_examples=25)


def text(size: int) -> np.ndarray:
    """Tokens that are all different, so that a pair says where in the text it stands."""
    return np.arange(1, size + 1)


def pairs(*batches: Batch) -> list[tuple[int, int]]:
    """The pairs of all batches, lane by lane within a batch."""
    return [
        (int(i), int(t))
        for batch in batches
        for i, t in zip(batch.inputs.T[batch.mask.T], batch.targets.T[batch.mask.T], strict=True)
    ]


def all_pairs(size: int) -> list[tuple[int, int]]:
    return [(i, i + 1) for i in range(1, size)]


@st.composite
def laid(draw: st.DrawFn) -> tuple[int, Batch]:
    """The number of tokens, and their lanes."""
    size = draw(st.integers(2, 60))
    return size, lanes(text(size), draw(st.integers(1, size - 1)))


def same(a: Batch, b: Batch) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


@few
@given(laid())
def test_every_pair_stands_in_one_lane_and_padding_follows_the_last(case: tuple[int, Batch]):
    size, batch = case
    assert pairs(batch) == all_pairs(size)
    time, count = batch.mask.shape
    assert time == -(-(size - 1) // count)
    assert batch.mask.T.reshape(-1).tolist() == [k < size - 1 for k in range(time * count)]
    assert not batch.inputs[~batch.mask].any()
    assert not batch.targets[~batch.mask].any()


def test_lane_b_holds_the_pairs_from_b_times_T_on_and_starts_with_a_reset():
    batch = lanes(text(8).astype(np.uint16), count=3)
    assert [field.dtype for field in batch] == [np.int32, np.int32, bool, bool]
    assert batch.resets.tolist() == [[True] * 3, [False] * 3, [False] * 3]
    assert batch.inputs.T.tolist() == [[1, 2, 3], [4, 5, 6], [7, 0, 0]]
    assert batch.targets.T.tolist() == [[2, 3, 4], [5, 6, 7], [8, 0, 0]]


@few
@given(laid(), st.integers(0, 100))
def test_rolled_lanes_hold_every_pair_once_and_go_on_where_they_are_not_reset(
    case: tuple[int, Batch], offset: int
):
    size, batch = case
    turned = rolled(batch, offset)
    assert sorted(pairs(turned)) == all_pairs(size)
    assert turned.resets[0].all()
    assert turned.resets[turned.mask & (turned.inputs == 1)].all()
    goes_on = turned.mask[1:] & ~turned.resets[1:]
    assert (turned.inputs[1:] == turned.targets[:-1])[goes_on].all()


@few
@given(laid(), st.integers(1, 70))
def test_one_pass_for_evaluation_is_the_whole_batch_in_windows(
    case: tuple[int, Batch], length: int
):
    _, batch = case
    windows = list(passes(batch, length))
    assert same(Batch(*map(np.concatenate, zip(*windows, strict=True))), batch)
    assert all(len(window.mask) == length for window in windows[:-1])
    assert 1 <= len(windows[-1].mask) <= length


@st.composite
def windowed(draw: st.DrawFn) -> tuple[int, Callable[[], Windows]]:
    """Draw the number of tokens, and a function that makes equal windows over their lanes."""
    size, batch = draw(laid())
    length = draw(st.integers(1, len(batch.mask)))
    per_batch = draw(st.integers(1, 3))
    options = {
        "seed": draw(st.none() | st.integers(0, 5)),
        "restart": draw(st.sampled_from([0.0, 0.5])),
    }
    return size, lambda: Windows(batch, length, windows_per_batch=per_batch, **options)


@few
@given(windowed())
def test_each_pass_of_windows_holds_every_pair_once(case: tuple[int, Callable[[], Windows]]):
    size, make = case
    windows = make()
    for number in range(3):
        assert windows.pass_number == number
        one_pass = [next(windows) for _ in range(windows.steps_per_pass)]
        assert sorted(pairs(*one_pass)) == all_pairs(size)
        assert one_pass[0].resets[0].all()
    assert windows.pass_number == 3


@pytest.mark.parametrize(("size", "count", "steps"), [(24, 2, [4, 4, 4]), (22, 3, [4, 3])])
def test_without_a_seed_every_pass_is_the_batch_itself_the_last_of_it_shorter(size, count, steps):
    batch = lanes(text(size), count)
    windows = Windows(batch, length=2, windows_per_batch=2)
    assert windows.steps_per_pass == len(steps)
    for _ in range(2):
        got = [next(windows) for _ in steps]
        assert [len(window.mask) for window in got] == steps
        assert same(Batch(*map(np.concatenate, zip(*got, strict=True))), batch)


def test_windows_begin_elsewhere_in_every_pass_in_the_same_way_for_equal_seeds():
    batch = lanes(text(200), count=2)
    windows = Windows(batch, length=50, seed=0)
    first = [next(windows).inputs[0].tolist() for _ in range(2 * 4)][::2]
    assert len({tuple(tokens) for tokens in first}) == 4
    one, two, other = (next(Windows(batch, length=50, seed=seed)) for seed in (1, 1, 2))
    assert same(one, two)
    assert not same(one, other)


@few
@given(windowed(), st.integers(0, 7))
def test_a_restored_position_goes_on_as_the_first_iterator_does(
    case: tuple[int, Callable[[], Windows]], taken: int
):
    make = case[1]
    windows, again = make(), make()
    for _ in range(taken):
        next(windows)
    state = json.loads(json.dumps(windows.get_state()))
    ahead = [next(windows) for _ in range(5)]
    again.set_state(state)
    assert again.get_state() == state
    assert all(same(a, b) for a, b in zip(ahead, [next(again) for _ in range(5)], strict=True))


LANES = lanes(text(50), count=2)


def moved(batch: Batch = LANES, **changed: int) -> None:
    """Go to a position in `batch` with some values changed."""
    Windows(LANES, length=5).set_state(Windows(batch, length=5).get_state() | changed)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: lanes([3], 1), "count is 1 but 1 tokens make 0 pairs of a token"),
        (lambda: lanes([], 1), "count is 1 but 0 tokens make 0 pairs"),
        (lambda: lanes([1, 2, 3], 0), "lanes: count: expected a positive integer, got 0"),
        (lambda: lanes([1, 2, 3], 3), "count is 3 but 3 tokens make 2 pairs .* ask for fewer"),
        (lambda: lanes([[1, 2], [3, 4]], 1), r"ids has shape \(2, 2\); expected one row"),
        (lambda: lanes([0.5, 1.5], 1), "ids is float64; expected token ids, which are integers"),
        (lambda: lanes([0, -1], 1), "id -1 at position 1 is outside"),
        (lambda: lanes([0, 2**31], 1), "id 2147483648 at position 1 is outside"),
        (lambda: moved(lanes(text(60), count=2)), "state has time 30 but this one has 25"),
        (lambda: moved(lanes(text(50)[::-1], count=2)), r"state has checksum \d+ but this one has"),
        (lambda: moved(lanes(text(99), count=4)), "state has lanes 4 but this one has 2"),
        (lambda: moved(offset=7), "state has offset 7 but .* and seed it began with"),
        (lambda: moved(pass_number=-1), "pass_number: expected an integer of at least 0, got -1"),
        (lambda: moved(position=25), r"at position 25; expected one in \[0, 25\)"),
        (lambda: moved(step=3), r"state has the keys .*'step'.*; expected \['checksum'"),
        (lambda: Windows(LANES, 26), "length is 26 steps but a lane holds 25"),
        (lambda: Windows(LANES, 0), "Windows: length: expected a positive integer, got 0"),
        (lambda: Windows(LANES, 1, windows_per_batch=0), "windows_per_batch: expected a positive"),
        (lambda: Windows(LANES, 1, seed=-1), "seed: expected an integer of at least 0, got -1"),
        (lambda: Windows(LANES, 1, restart=1.0), r"restart: expected a rate in \[0, 1\), got 1"),
        (lambda: passes(LANES, 0), "passes: length: expected a positive integer, got 0"),
    ],
)
def test_wrong_ids_windows_and_positions_are_errors(make: Callable[[], object], message: str):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_position_of_another_seed_is_an_error():
    batch = lanes(text(5000), count=2)
    state = Windows(batch, length=5, seed=1).get_state()
    with pytest.raises(ValueError, match=r"state has offset .* and seed it began with"):
        Windows(batch, length=5, seed=2).set_state(state)


def test_restarts_mark_their_share_of_window_beginnings_and_nothing_else():
    batch = lanes(text(4000), count=20)
    before = batch.resets.copy()
    plain = Windows(batch, length=5, windows_per_batch=2)
    windows = Windows(batch, length=5, windows_per_batch=2, restart=0.25)
    marks = []
    for _ in range(plain.steps_per_pass):
        expected, came = next(plain), next(windows)
        assert same(came._replace(resets=expected.resets), expected)
        new = came.resets & ~expected.resets
        marks.append(new[::5].mean())
        assert not np.delete(new, np.s_[::5], axis=0).any()
    assert 0.2 < np.mean(marks) < 0.3
    assert len(set(marks)) > 3
    np.testing.assert_array_equal(batch.resets, before)  # the lanes stay as they are
