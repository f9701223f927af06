"""Ragged examples in padded batches: nothing is lost, nothing is changed, the position comes back."""

import itertools
import json
from typing import Any, NamedTuple

import numpy as np
import pytest

from seqjax.data import Buckets, Example, pad
from seqjax.data.buckets import least_padding

LENGTHS = [3, 9, 4, 2, 8, 1, 0, 9, 5, 5, 7]
EXAMPLES = [Example([100 * i + t for t in range(n)], i) for i, n in enumerate(LENGTHS)]

ALL = sorted((e.targets, e.inputs) for e in EXAMPLES)
NO_EXAMPLES: Any = [([1], 2)]


class Words(NamedTuple):
    words: Any
    letters: Any


def seen(batch):
    """(label, tokens) of each real row."""
    return [
        (int(batch.targets[row]), batch.inputs[: batch.lengths[row], row].tolist())
        for row in np.flatnonzero(batch.real)
    ]


def test_a_batch_holds_the_numbers_and_zeros():
    examples = [Example(np.arange(6.0).reshape(3, 2), [1, 2]), Example(np.ones((1, 2)), [3, 4, 5])]
    batch = pad(examples, time=4, rows=3)
    expected = np.zeros((4, 3, 2), np.float32)
    expected[:3, 0] = [[0, 1], [2, 3], [4, 5]]
    expected[0, 1] = 1
    np.testing.assert_array_equal(batch.inputs, expected)
    np.testing.assert_array_equal(batch.targets, [[1, 3, 0], [2, 4, 0], [0, 5, 0], [0, 0, 0]])
    np.testing.assert_array_equal(batch.lengths, [3, 1, 0])
    np.testing.assert_array_equal(batch.target_lengths, [2, 3, 0])
    assert batch.inputs.dtype == np.float32
    assert batch.targets.dtype == batch.lengths.dtype == np.int32


def test_axes_after_time_are_padded_to_a_multiple():
    """The letters of words: 3 and 5 at most, so 8."""
    words = lambda *lengths: Words(
        np.ones(len(lengths), int), np.ones((len(lengths), max(lengths)), int)
    )
    batch = pad([Example(words(3, 2), 0), Example(words(5, 1, 4), 1)], time=3, rows=2)
    assert batch.inputs.words.shape == (3, 2)
    assert batch.inputs.letters.shape == (3, 2, 8)
    np.testing.assert_array_equal(batch.inputs.letters.sum(axis=-1), [[3, 5], [3, 5], [0, 5]])


@pytest.mark.parametrize(
    ("seed", "batch_size", "workers"),
    [(None, 1, 0), (None, 2, 2), (0, 1, 2), (7, 4, 0), (7, 100, 2)],
)
def test_every_pass_has_every_example_once(seed, batch_size, workers):
    batches = Buckets(EXAMPLES, batch_size, boundaries=(3, 6, 9), seed=seed, workers=workers)
    for number in range(3):
        assert batches.pass_number == number
        given = [next(batches) for _ in range(batches.steps_per_pass)]
        assert sorted(itertools.chain.from_iterable(map(seen, given))) == ALL


def test_each_batch_has_the_shape_of_its_bucket_and_padding_is_the_share_that_is_not_real():
    batches = Buckets(EXAMPLES, 2, boundaries=(3, 6, 9), seed=0)
    steps = real = 0
    for batch in itertools.islice(batches, batches.steps_per_pass):
        time = batch.inputs.shape[0]
        least = {3: 0, 5: 4, 9: 7}[time]  # no example has 6 steps
        assert batch.inputs.shape == (time, 2)
        assert all(least <= n <= time for n in batch.lengths[batch.real])
        steps, real = steps + batch.inputs.size, real + batch.lengths.sum()
    assert batches.padding == pytest.approx(1 - real / steps)


def test_passes_are_shuffled_each_in_its_own_way_and_alike_in_every_run():
    def orders(seed: int) -> list[list[str]]:
        batches = Buckets(EXAMPLES, 2, boundaries=(3, 6, 9), seed=seed)
        return [[str(seen(next(batches))) for _ in range(batches.steps_per_pass)] for _ in range(3)]

    first, second, third = orders(3)
    assert first != second != third
    assert orders(3) == [first, second, third]
    assert orders(4)[0] != first


def test_one_pass_is_in_order_and_moves_nothing():
    batches = Buckets(EXAMPLES, 2, boundaries=(9,), seed=3)
    before = batches.get_state()
    assert list(itertools.chain.from_iterable(map(seen, batches.one_pass()))) == ALL
    assert batches.get_state() == before


@pytest.mark.parametrize("taken", [0, 5, 13])
def test_a_position_through_json_goes_on_where_it_was(taken):
    make = lambda workers: Buckets(EXAMPLES, 2, boundaries=(3, 9), seed=1, workers=workers)
    first, second = make(2), make(0)
    for _ in range(taken):
        next(first)
    second.set_state(json.loads(json.dumps(first.get_state())))
    for _ in range(9):
        assert seen(next(first)) == seen(next(second))


@pytest.mark.parametrize(
    ("examples", "options", "name"),
    [
        (EXAMPLES[1:], {}, "examples"),
        (EXAMPLES, {"batch_size": 3}, "batches|batch_size"),
        (EXAMPLES, {"seed": 2}, "seed"),
        (EXAMPLES, {"boundaries": (20,)}, "batches|longest"),
        ([*EXAMPLES[:-1], EXAMPLES[-1]._replace(targets=99)], {}, "checksum"),
        ([*EXAMPLES[:-1], Example([*EXAMPLES[-1].inputs[:-1], 99], 10)], {}, "checksum"),
        ([EXAMPLES[1], EXAMPLES[0], *EXAMPLES[2:]], {}, "checksum"),
    ],
    ids=["examples", "batch size", "seed", "boundaries", "a label", "a word", "their order"],
)
def test_a_position_of_something_else_is_an_error(examples, options, name):
    other = Buckets(examples, **({"batch_size": 2, "seed": 1} | options)).get_state()
    with pytest.raises(ValueError, match=rf"Buckets.set_state: state has ({name}) "):
        Buckets(EXAMPLES, 2, seed=1).set_state(other)
    with pytest.raises(ValueError, match="state has the keys"):
        Buckets(EXAMPLES, 2, seed=1).set_state({"next_batch": 0})


def test_a_long_example_is_skipped_and_counted(caplog):
    batches = Buckets(EXAMPLES, 2, boundaries=(4, 8), longer="skip")
    assert batches.skipped == 2
    assert "skipped 2 of 11 examples with more than 8 steps" in caplog.text
    kept = list(itertools.chain.from_iterable(map(seen, batches.one_pass())))
    assert sorted(kept) == [pair for pair in ALL if len(pair[1]) <= 8]


@pytest.mark.parametrize("seed", range(5))
def test_the_boundaries_leave_the_least_padding_of_all(seed):
    lengths = np.random.default_rng(seed).integers(1, 9, size=12)
    cost = lambda cuts: sum(cuts[np.searchsorted(cuts, n)] for n in lengths)
    for buckets in (1, 2, 3):
        choices = itertools.combinations_with_replacement(range(1, lengths.max()), buckets - 1)
        least = min(cost((*sorted(c), lengths.max())) for c in choices)
        assert cost(least_padding(lengths, buckets)) == least


def test_boundaries_of_few_and_of_many_lengths():
    assert least_padding(np.array([5, 5, 5]), 6) == (5,)
    assert least_padding(np.array([0]), 6) == (1,)
    many = least_padding(np.arange(1, 5001), buckets=4)
    np.testing.assert_allclose(many, [1250, 2500, 3750, 5000], rtol=0.05)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Buckets([], 2), "examples is empty"),
        (lambda: Buckets(EXAMPLES, 0), "batch_size: expected a positive integer"),
        (lambda: Buckets(EXAMPLES, 2, boundaries=(5, 3)), "expected rising integers"),
        (lambda: Buckets(EXAMPLES, 2, boundaries=()), "expected rising integers, got"),
        (
            lambda: Buckets(EXAMPLES, 2, boundaries=(-1, 9)),
            "boundaries: expected a positive integer",
        ),
        (lambda: Buckets(EXAMPLES, 2, boundaries=0), "boundaries: expected a positive integer"),
        (lambda: Buckets(EXAMPLES, 2, seed=-1), "seed: expected an integer of at least 0"),
        (lambda: Buckets(EXAMPLES, 2, longer="cut"), "longer: expected one of 'refuse', 'skip'"),
        (lambda: Buckets(EXAMPLES, 2, boundaries=(8,)), r"\[1\] has 9 steps, .* holds 8 \(2 of 11"),
        (lambda: Buckets(EXAMPLES[1:2], 2, boundaries=(4,), longer="skip"), r"\(1 of 1 examples"),
        (lambda: Buckets(NO_EXAMPLES, 2), r"examples\[0\] is a tuple; expected an Example"),
        (lambda: Buckets([Example(Words([1, 2], [[3]]), 0)], 2), r"examples\[0\].*\[1, 2\] steps"),
        (lambda: pad([Example([1, 2], 0)], time=1, rows=1), "inputs of 2 steps do not fit in 1"),
        (lambda: pad([Example([1], 0)] * 2, time=1, rows=1), "from 1 to 1 examples, got 2"),
        (lambda: pad([Example([1], 0), Example([1], [1])], 1, 2), "targets: .* one structure"),
        (lambda: pad([Example([1], 0), Example([[1]], 0)], 1, 2), r"axes each, got \[1, 2\]"),
        (lambda: pad([Example([1], 0), Example({"a": [1]}, 0)], 1, 2), "expected one structure"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_wrong_batches_are_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_inputs_and_targets_have_room_of_their_own():
    examples = [Example([1] * n, [2] * m) for n, m in [(2, 5), (3, 1), (7, 9), (8, 2)]]
    shapes = [
        (batch.inputs.shape, batch.targets.shape)
        for batch in Buckets(examples, 2, boundaries=(5, 9)).one_pass()
    ]
    assert shapes == [((3, 2), (5, 2)), ((8, 2), (9, 2))]
