"""Tokens and labels as numbers: their order, and back."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqjax.data import Example, Labels, Vocabulary, pad

SPECIAL = ("<pad>", "<unk>", "<s>", "</s>")
SENTENCES = [("b", "a", "c"), ("a", "b", "a"), ("d", "c", "e")]


@pytest.mark.parametrize(
    ("sentences", "options", "tokens"),
    [
        (SENTENCES, {}, "abcde"),  # three a, two b, two c, one d, one e
        (SENTENCES[::-1], {}, "abcde"),
        (SENTENCES, {"min_count": 2}, "abc"),
        (SENTENCES, {"size": 6}, "ab"),
        (SENTENCES, {"min_count": 2, "size": 100}, "abc"),
        ([("<pad>", "a", "</s>", "</s>", "<s>", "<unk>")], {}, "a"),
        (["abba", "cab"], {}, "abc"),  # a str is a sequence of characters
    ],
)
def test_the_most_frequent_token_comes_first_and_ties_are_by_characters(sentences, options, tokens):
    assert Vocabulary.train(sentences, **options).tokens == (*SPECIAL, *tokens)


@pytest.mark.parametrize(
    ("tokens", "options", "expected"),
    [
        (("a", "new", "c"), {}, [4, 1, 6]),
        (("a", "new", "c"), {"start": True}, [2, 4, 1, 6]),
        (("a", "new", "c"), {"stop": True}, [4, 1, 6, 3]),
        (("a", "new", "c"), {"start": True, "stop": True}, [2, 4, 1, 6, 3]),
        (("</s>", "a", "<pad>", "<s>"), {}, [1, 4, 1, 1]),  # a text cannot write a special token
        ((), {}, []),
        ("cax", {}, [6, 4, 1]),
    ],
)
def test_encode_adds_the_ends_on_request(tokens, options, expected):
    ids = Vocabulary.train(SENTENCES).encode(tokens, **options)
    assert (ids.tolist(), ids.dtype) == (expected, np.int32)


def test_decode_ends_before_the_first_stop_and_drops_padding_and_start():
    vocabulary = Vocabulary.train(SENTENCES)
    special = (vocabulary.PADDING, vocabulary.UNKNOWN, vocabulary.START, vocabulary.STOP)
    assert tuple(vocabulary.tokens[i] for i in special) == SPECIAL
    assert vocabulary.decode([2, 4, 0, 1, 5, 3, 6, 3, 0]) == ("a", "<unk>", "b")
    assert vocabulary.decode([3, 4]) == vocabulary.decode([]) == ()
    batch = pad([Example(vocabulary.encode(s), 0) for s in (("a", "b"), ("c",))], time=5, rows=2)
    assert [vocabulary.decode(row) for row in batch.inputs.T] == [("a", "b"), ("c",)]


words = st.text(min_size=1).filter(lambda word: word not in SPECIAL)


@settings(max_examples=25)
@given(st.lists(st.lists(words, min_size=1), min_size=1), st.booleans(), st.booleans())
def test_training_sentences_come_back_whole(sentences, start, stop):
    vocabulary = Vocabulary.train(sentences)
    for sentence in sentences:
        ids = vocabulary.encode(sentence, start=start, stop=stop)
        assert len(ids) == len(sentence) + start + stop
        assert vocabulary.decode(ids) == tuple(sentence)
    again = Vocabulary.train(sentence[::-1] for sentence in sentences)
    assert again == vocabulary
    assert hash(again) == hash(vocabulary)


@pytest.mark.parametrize("kind", [Vocabulary, Labels])
@settings(max_examples=25)
@given(names=st.lists(st.text(st.characters(exclude_categories=())), unique=True, min_size=1))
def test_a_saved_file_gives_an_equal_one(kind, names, tmp_path_factory):
    file = tmp_path_factory.mktemp("saved") / "names.json"
    names = [name for name in names if name not in SPECIAL] or ["a"]
    made = Vocabulary((*SPECIAL, *names)) if kind is Vocabulary else Labels(tuple(names))
    made.save(file)
    assert json.loads(file.read_text())["names"][-1] == names[-1]
    assert kind.load(file) == made
    with pytest.raises(ValueError, match=r"of kind (vocabulary|labels)"):
        (Labels if kind is Vocabulary else Vocabulary).load(file)


@pytest.mark.parametrize("kind", [Vocabulary, Labels])
def test_a_file_of_something_else_is_an_error(kind, tmp_path: Path):
    for content in ("no json", "[]", '{"names": ["a"]}', '{"kind": "vocabulary", "names": "a"}'):
        (tmp_path / "other.json").write_text(content)
        with pytest.raises(ValueError, match=r"load: .*other\.json .* of kind (vocab|labels)"):
            kind.load(tmp_path / "other.json")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Vocabulary(("a", "b")), "expected <pad>, <unk>, <s>, </s> and then distinct"),
        (lambda: Vocabulary((*SPECIAL, "a", "a")), "distinct tokens"),
        (lambda: Vocabulary((*SPECIAL, "<s>")), "distinct tokens"),
        (lambda: Vocabulary.train([]), "sequences holds 0 distinct tokens, the special ones apart"),
        (lambda: Vocabulary.train([("<s>",)]), "sequences holds 0 distinct tokens"),
        (
            lambda: Vocabulary.train([*SENTENCES, ("<s>",) * 9], min_count=4),
            "sequences holds 5 distinct tokens, .* none of them 4 times; .* min_count of at most 3, or",
        ),
        (lambda: Vocabulary.train(SENTENCES, min_count=0), "min_count: expected a positive"),
        (lambda: Vocabulary.train(SENTENCES, size=4), "size is 4; expected at least 5"),
        (lambda: Vocabulary.train(SENTENCES).decode([4, 9]), "id 9 at position 1 .* in \\[0, 9\\)"),
        (lambda: Vocabulary.train(SENTENCES).decode([[4]]), r"ids has shape \(1, 1\)"),
        (lambda: Labels(()), "expected distinct names, got \\(\\)"),
        (lambda: Labels(("a", "a")), "expected distinct names"),
        (lambda: Labels.train([]), "expected distinct names, got \\(\\)"),
        (lambda: Labels(("a", "b")).decode(2), r"number is 2; expected one in \[0, 2\)"),
        (lambda: Labels(("a", "b")).decode(-1), r"number is -1; expected one in \[0, 2\)"),
        (lambda: Labels(("a", "b")).encode("X"), "label 'X' is not known; expected .* 'a', 'b'$"),
        (lambda: Labels(tuple(f"{i:02}" for i in range(25))).encode("X"), "'19' and 5 more$"),
    ],
)
def test_wrong_vocabularies_and_labels_are_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_labels_are_in_the_order_of_their_characters():
    labels = Labels.train(["1", "0", "1", "neutral"])
    assert (labels.names, labels.size) == (("0", "1", "neutral"), 3)
    assert [labels.encode(name) for name in ("1", "0", "neutral")] == [1, 0, 2]
    assert [labels.decode(number) for number in (0, np.int32(2))] == ["0", "neutral"]
