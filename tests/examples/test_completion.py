import numpy as np
import pytest

import seqjax as sj
from examples import completion


@pytest.fixture(scope="module")
def completions() -> dict[str, completion.Completion]:
    """What the example finds, trained once."""
    starts = ("d", "l", "m", "de", "machi", "learn")
    return completion.main(completion.Options(starts=starts, display=False))


def test_each_beginning_is_completed_to_its_word(completions):
    assert {start: found.word for start, found in completions.items()} == {
        "d": "deep",
        "l": "learn",
        "m": "machine",
        "de": "deep",
        "machi": "machine",
        "learn": "learn",
    }


def test_the_probabilities_after_each_letter_sum_to_one(completions):
    for found in completions.values():
        assert found.probabilities.shape == (12, len(found.word))
        np.testing.assert_allclose(found.probabilities.sum(axis=0), 1, atol=1e-5)


def test_each_next_letter_and_the_stop_symbol_are_nearly_certain(completions):
    symbols = "\nacdehilmnpr"
    for found in completions.values():
        following = [symbols.index(c) for c in found.word[1:] + "\n"]
        assert found.probabilities.argmax(axis=0).tolist() == following
        assert found.probabilities.max(axis=0).min() > 0.95


def test_words_are_padded_to_the_longest_and_only_their_own_steps_count():
    tokenizer = sj.data.CharTokenizer("\nabc")
    batch = completion.batch_of(("ab", "bbca"), tokenizer)
    assert batch.inputs[:2, 0].tolist() == [1, 2]
    assert batch.targets[:2, 0].tolist() == [2, 0]
    assert batch.inputs[:, 1].tolist() == [2, 2, 3, 1]
    assert batch.targets[:, 1].tolist() == [2, 3, 1, 0]
    assert batch.mask.T.tolist() == [[True, True, False, False], [True] * 4]
    assert batch.resets.T.tolist() == [[True, False, False, False]] * 2


def test_the_table_has_a_row_for_each_symbol_and_a_column_for_each_letter_read():
    tokenizer = sj.data.CharTokenizer("\nab")
    found = completion.Completion("ab", np.array([[0.25, 1.0], [0.0, 0.0], [0.75, 0.0]]))
    assert completion.table(tokenizer, found).splitlines() == [
        "after         a      b",
        "p(stop)   0.250  1.000",
        "p(a)      0.000  0.000",
        "p(b)      0.750  0.000",
    ]


@pytest.mark.parametrize("start", ["x", "", "dx"])
def test_a_beginning_that_no_letter_stands_for_is_refused(start):
    with pytest.raises(ValueError, match="expected one or more of the letters acdehilmnpr"):
        completion.main(completion.Options(starts=(start,), display=False))
