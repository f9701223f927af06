import numpy as np
import pytest

from examples import parity


def test_the_target_after_each_letter_is_the_parity_of_a_count():
    lengths = np.array([4, 1, 9], np.int32)
    batch = parity.draw(np.random.default_rng(0), lengths)
    assert batch.letters.shape == (9, 3, 2)
    for string, length in enumerate(lengths):
        letters = batch.letters[:length, string]
        assert set(map(tuple, letters.tolist())) <= {(1.0, 0.0), (0.0, 1.0)}
        for t in range(length):
            assert batch.odd[t, string] == (sum(letters[: t + 1, 1]) % 2 == 1)
        assert not batch.letters[length:, string].any()


def test_training_draws_every_length_up_to_the_longest_and_none_beyond():
    batches = parity.training_batches(parity.Options(longest=5, batch=64))
    first, second = next(batches), next(batches)
    assert set(first.lengths.tolist()) == {1, 2, 3, 4, 5}
    assert first.letters.shape == second.letters.shape == (5, 64, 2)
    assert not np.array_equal(first.letters, second.letters)


def test_parity_learned_on_short_strings_holds_on_strings_far_longer(capsys):
    tested = (12, 20, 50, 100)
    accuracy = parity.main(parity.Options(tested=tested, display=False))
    assert tuple(accuracy) == tested
    assert min(accuracy.values()) >= 0.99
    lines = capsys.readouterr().out.splitlines()[1:]
    assert ["never trained" in line for line in lines] == [False, True, True, True]


def test_without_training_parity_is_a_coin_toss():
    options = parity.Options(tested=(50,), targets="last", steps=1, display=False)
    assert parity.main(options)[50] == pytest.approx(0.5, abs=0.1)
