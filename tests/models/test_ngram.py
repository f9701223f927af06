"""Counts of the last few tokens, against the recursion written out with dictionaries."""

import collections

import numpy as np
import pytest

import seqjax as sj
from seqjax.models import NGram

DRAW = np.random.default_rng(0)
TEXT = DRAW.choice(4, size=300, p=[0.5, 0.3, 0.15, 0.05])


def by_hand(text, context, token, vocabulary):
    """P of a token after a context of at most the order, by the equation."""
    p = 1 / vocabulary
    for k in range(len(context) + 1):
        h = tuple(context[len(context) - k :])
        follows = collections.Counter(
            int(text[i + k]) for i in range(len(text) - k) if tuple(text[i : i + k]) == h
        )
        total, kinds = sum(follows.values()), len(follows)
        if total:
            p = (follows[token] + kinds * p) / (total + kinds)
    return p


@pytest.mark.parametrize("order", [0, 1, 3])
def test_every_probability_is_that_of_the_equation(order):
    model = NGram.train(TEXT, vocabulary=5, order=order)
    assert model.order == order
    for context in ([], [0], [1, 2], [3, 3, 3], [4, 0, 1], [2, 1, 0, 0]):
        known = context[max(0, len(context) - order) :]
        expected = [by_hand(TEXT, known, token, 5) for token in range(5)]
        np.testing.assert_allclose(model.distribution(context), expected, rtol=1e-12)
        assert sum(expected) == pytest.approx(1)


@pytest.mark.parametrize("order", [0, 2, 4])
def test_a_text_is_scored_token_by_token(order):
    model = NGram.train(TEXT, vocabulary=5, order=order)
    other = np.array([0, 1, 4, 0, 0, 1, 3, 2, 2])
    expected = [
        -np.log(model.distribution(other[max(0, t - order) : t])[other[t]])
        for t in range(1, len(other))
    ]
    np.testing.assert_allclose(model.nats(other), expected, rtol=1e-12)
    assert model.nats([3]).size == 0


def test_what_it_writes_has_the_statistics_of_what_it_read():
    model = NGram.train(TEXT, vocabulary=4, order=1)
    written = model.generate(seed=1, prompt=[0], length=4000)
    for token in range(4):
        after = written[1:][written[:-1] == token]
        found = np.bincount(after, minlength=4) / len(after)
        deviation = 4 / np.sqrt(len(after))
        np.testing.assert_allclose(found, model.distribution([token]), atol=deviation)


def test_a_longer_context_is_better_on_real_text_until_it_is_too_rare():
    """The bigram is near the 2.488 nats that counts with 0.01 added give on this split."""
    text = sj.data.shakespeare()
    tokenizer = sj.data.CharTokenizer.train(text)
    train, valid = sj.data.split(tokenizer.encode(text))
    nats = [NGram.train(train, tokenizer.size, order).nats(valid).mean() for order in range(5)]
    assert nats[0] > nats[1] > nats[2] > nats[3] > nats[4]
    assert nats[0] == pytest.approx(3.347, abs=0.005)
    assert nats[1] == pytest.approx(2.488, abs=0.01)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: NGram.train([0, 1], 2, 2), "holds 2 tokens; expected more than the order of 2"),
        (lambda: NGram.train([0, 2], 2, 1), r"expected ids in \[0, 2\), got 2"),
        (lambda: NGram.train(range(99), 33_278, 5), "at most 3 for 33278 tokens, got 5"),
        (lambda: NGram.train([0, 1], 2, -1), "order: expected an integer of at least 0"),
        (lambda: NGram.train([0, 1], 0, 0), "vocabulary: expected a positive integer"),
        (lambda: NGram.train([0, 1], 2, 0).generate(0, [], 0), "length: expected a positive"),
    ],
)
def test_bad_input_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
