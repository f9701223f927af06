"""Tokens and labels as numbers: in which order, and back; what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqjax.data import Labels, Vocabulary, pad
from seqjax.data.buckets import Example

SPECIAL = ("<pad>", "<unk>", "<s>", "</s>")
SENTENCES = [("b", "a", "c"), ("a", "b", "a"), ("d", "c", "e")]


def test_the_most_frequent_token_comes_first_and_ties_are_by_characters():
    """Three a, two b, two c, one d, one e."""
    assert Vocabulary.train(SENTENCES).tokens == (*SPECIAL, "a", "b", "c", "d", "e")
    assert Vocabulary.train(reversed(SENTENCES)).tokens == (*SPECIAL, "a", "b", "c", "d", "e")


def test_rare_tokens_are_left_out_and_the_size_counts_the_special_ones():
    assert Vocabulary.train(SENTENCES, min_count=2).tokens == (*SPECIAL, "a", "b", "c")
    assert Vocabulary.train(SENTENCES, size=6).tokens == (*SPECIAL, "a", "b")
    assert Vocabulary.train(SENTENCES, min_count=2, size=100).size == 7


def test_the_special_ids_are_those_of_the_special_tokens():
    vocabulary = Vocabulary.train(SENTENCES)
    special = (vocabulary.PADDING, vocabulary.UNKNOWN, vocabulary.START, vocabulary.STOP)
    assert special == (0, 1, 2, 3)
    assert tuple(vocabulary.tokens[i] for i in special) == SPECIAL


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [4, 1, 6]),
        ({"start": True}, [2, 4, 1, 6]),
        ({"stop": True}, [4, 1, 6, 3]),
        ({"start": True, "stop": True}, [2, 4, 1, 6, 3]),
    ],
)
def test_encode_puts_the_ends_where_it_is_asked_to(options, expected):
    ids = Vocabulary.train(SENTENCES).encode(("a", "new", "c"), **options)
    assert ids.tolist() == expected
    assert ids.dtype == np.int32


def test_nothing_encodes_to_no_ids_of_int32():
    ids = Vocabulary.train(SENTENCES).encode(())
    assert (ids.tolist(), ids.dtype) == ([], np.int32)


def test_decode_ends_before_the_first_stop_and_drops_padding_and_start():
    vocabulary = Vocabulary.train(SENTENCES)
    assert vocabulary.decode([2, 4, 0, 1, 5, 3, 6, 3, 0]) == ("a", "<unk>", "b")
    assert vocabulary.decode([3, 4]) == vocabulary.decode([]) == ()


def test_a_text_cannot_write_a_special_token():
    vocabulary = Vocabulary.train([("<pad>", "a", "</s>", "</s>", "<s>", "<unk>")])
    assert vocabulary.tokens == (*SPECIAL, "a")
    assert vocabulary.encode(("</s>", "a", "<pad>", "<s>")).tolist() == [1, 4, 1, 1]


def test_a_str_is_a_sequence_of_characters():
    vocabulary = Vocabulary.train(["abba", "cab"])
    assert vocabulary.decode(vocabulary.encode("cabx")) == ("c", "a", "b", "<unk>")


words = st.text(min_size=1).filter(lambda word: word not in SPECIAL)


@given(st.lists(st.lists(words, min_size=1), min_size=1), st.booleans(), st.booleans())
def test_what_was_trained_on_comes_back_whole(sentences, start, stop):
    vocabulary = Vocabulary.train(sentences)
    for sentence in sentences:
        ids = vocabulary.encode(sentence, start=start, stop=stop)
        assert len(ids) == len(sentence) + start + stop
        assert vocabulary.decode(ids) == tuple(sentence)
    again = Vocabulary.train(sentence[::-1] for sentence in sentences)
    assert again == vocabulary
    assert hash(again) == hash(vocabulary)


def test_padding_of_a_batch_is_decoded_to_nothing():
    vocabulary = Vocabulary.train(SENTENCES)
    batch = pad([Example(vocabulary.encode(s), 0) for s in (("a", "b"), ("c",))], time=5, rows=2)
    assert [vocabulary.decode(row) for row in batch.inputs.T] == [("a", "b"), ("c",)]


@pytest.mark.parametrize("kind", [Vocabulary, Labels])
@given(names=st.lists(st.text(st.characters(exclude_categories=())), unique=True, min_size=1))
def test_a_saved_file_gives_an_equal_one(kind, names, tmp_path_factory):
    file = tmp_path_factory.mktemp("saved") / "names.json"
    names = [name for name in names if name not in SPECIAL] or ["a"]
    made = Vocabulary((*SPECIAL, *names)) if kind is Vocabulary else Labels(tuple(names))
    made.save(file)
    assert kind.load(file) == made


@pytest.mark.parametrize(
    "content",
    [
        "no json",
        "[]",
        '{"kind": "words", "names": ["a"]}',
        '{"names": ["a"]}',
        '{"kind": "vocabulary", "names": "a"}',
    ],
)
@pytest.mark.parametrize("kind", [Vocabulary, Labels])
def test_a_file_of_something_else_is_refused(kind, content, tmp_path: Path):
    (tmp_path / "other.json").write_text(content)
    with pytest.raises(ValueError, match=r"load: .*other\.json holds no (vocabulary|labels) "):
        kind.load(tmp_path / "other.json")


def test_a_file_of_one_is_not_read_as_the_other(tmp_path: Path):
    Labels(("a", "b")).save(tmp_path / "labels.json")
    with pytest.raises(ValueError, match="kind is 'labels'"):
        Vocabulary.load(tmp_path / "labels.json")
    assert json.loads((tmp_path / "labels.json").read_text())["names"] == ["a", "b"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Vocabulary(("a", "b")), "expected <pad>, <unk>, <s>, </s> and then distinct"),
        (lambda: Vocabulary((*SPECIAL, "a", "a")), "distinct tokens"),
        (lambda: Vocabulary((*SPECIAL, "<s>")), "distinct tokens"),
        (
            lambda: Vocabulary.train([]),
            "sequences holds no token, the special ones apart; expected",
        ),
        (lambda: Vocabulary.train([("<s>",)]), "sequences holds no token, the special ones apart"),
        (
            lambda: Vocabulary.train([*SENTENCES, ("<s>",) * 9], min_count=4),
            "^Vocabulary.train: sequences holds 5 distinct tokens, none of them seen 4 times; give a "
            "min_count of at most 3, or more sequences$",
        ),
        (lambda: Vocabulary.train(SENTENCES, min_count=0), "min_count: expected a positive"),
        (lambda: Vocabulary.train(SENTENCES, size=4), "size is 4; expected at least 5"),
        (lambda: Vocabulary.train(SENTENCES, size=0), "size: expected a positive integer"),
        (lambda: Vocabulary.train(SENTENCES).decode([4, 9]), "id 9 at position 1 .* in \\[0, 9\\)"),
        (lambda: Vocabulary.train(SENTENCES).decode([[4]]), r"ids has shape \(1, 1\)"),
        (lambda: Labels(()), "expected distinct names, got \\(\\)"),
        (lambda: Labels(("a", "a")), "expected distinct names"),
        (lambda: Labels.train([]), "expected distinct names, got \\(\\)"),
        (lambda: Labels(("a", "b")).decode(2), r"number is 2; expected one in \[0, 2\)"),
        (lambda: Labels(("a", "b")).decode(-1), "expected an integer of at least 0, got -1"),
    ],
)
def test_what_is_no_vocabulary_and_no_label_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_labels_are_in_the_order_of_their_characters():
    labels = Labels.train(["1", "0", "1", "neutral"])
    assert labels.names == ("0", "1", "neutral")
    assert [labels.encode(name) for name in ("1", "0", "neutral")] == [1, 0, 2]
    assert [labels.decode(number) for number in (0, np.int32(2))] == ["0", "neutral"]
    assert labels.size == 3


def test_an_unseen_label_is_refused_with_those_that_are_known():
    with pytest.raises(ValueError, match=r"label 'X' is not known; expected one of 'a', 'b'$"):
        Labels(("a", "b")).encode("X")
    many = Labels(tuple(f"{i:02}" for i in range(25)))
    with pytest.raises(ValueError, match=r"'19' and 5 more$"):
        many.encode("X")
