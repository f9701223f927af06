import dataclasses
import gzip

import numpy as np
import pytest

from examples import word_lm

SMALL = word_lm.Options(vocabulary=500, features=32, dropout=0.1, steps=250, display=False)


@pytest.mark.full
def test_it_learns_more_than_how_often_words_occur_and_the_same_call_goes_on(tmp_path, capsys):
    options = dataclasses.replace(SMALL, run=tmp_path)
    found = word_lm.main(options)
    assert found["perplexity"] < 0.85 * found["perplexity of counts of 0 words"]
    assert found["perplexity with a cache"] < found["perplexity"]  # names come again
    assert found["parameters"] == 500 * 32 + 500 + (32 * 4 * 64 + 4 * 32)  # tied: E once
    assert (tmp_path / "curves.png").stat().st_size > 5000
    assert word_lm.main(options) == found  # nothing is left to do
    without = word_lm.main(dataclasses.replace(options, cache=0))  # and this does not matter to it
    assert without == {k: v for k, v in found.items() if k != "perplexity with a cache"}
    assert f"test perplexity: {found['perplexity']:.1f}" in capsys.readouterr().out


@pytest.mark.full
def test_the_window_has_no_memory_and_the_same_params_beside_the_cell(tmp_path):
    options = dataclasses.replace(SMALL, steps=2, cell="window", run=tmp_path)
    assert word_lm.main(options)["parameters"] == 500 * 32 + 500 + (3 * 32 * 32 + 32)


def test_counts_of_no_words_are_the_perplexity_of_frequencies(tmp_path):
    words = np.random.default_rng(0).choice(["a", "b", "b", "b"], 4000)
    for part, text in zip(("train", "valid", "test"), np.split(words, [3000, 3500]), strict=True):
        (tmp_path / f"{part}.txt.gz").write_bytes(gzip.compress(" ".join(text).encode()))
    tiny = dataclasses.replace(SMALL, features=4, steps=2, vocabulary=10, lanes=4, layers=2)
    found = word_lm.main(dataclasses.replace(tiny, data=tmp_path, run=tmp_path / "run"))
    entropy = -(0.25 * np.log(0.25) + 0.75 * np.log(0.75))
    assert abs(np.log(found["perplexity of counts of 0 words"]) - entropy) < 0.05


def test_a_part_that_is_missing_is_named(tmp_path, script):
    (tmp_path / "train.txt").write_text("a few words\n", "utf-8")
    finished = script("word_lm.py", "--data", tmp_path)
    assert finished.code == 1
    assert "valid.txt does not exist" in finished.err


@pytest.mark.parametrize("vocabulary", [0, 1])
def test_a_vocabulary_without_words_is_refused(tmp_path, script, vocabulary):
    finished = script("word_lm.py", "--vocabulary", vocabulary, "--run", tmp_path)
    assert finished.code == 1
    assert "--vocabulary: expected an integer from 2 " in finished.err
