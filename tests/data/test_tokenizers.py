"""What every tokenizer does, and characters, bytes, words and byte pairs."""

import json
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqjax.data import (
    BPETokenizer,
    ByteTokenizer,
    CharTokenizer,
    Tokenizer,
    WordTokenizer,
    load_tokenizer,
    shakespeare,
)
from seqjax.data.tokenizers import byte_symbols

SAMPLE = shakespeare()[:20_000]
CHAR, BYTES = CharTokenizer.train(SAMPLE), ByteTokenizer()
WORD, BPE = WordTokenizer.train(SAMPLE, size=500), BPETokenizer.train(SAMPLE, size=400)
EVERY = pytest.mark.parametrize(
    "tokenizer", [CHAR, BYTES, WORD, BPE], ids=lambda tokenizer: tokenizer.kind
)

few = settings(max_examples=25)
mixed = st.text(st.sampled_from("ab \n\t\r'1é😀́\u2028"))
any_text = st.text() | mixed  # hypothesis leaves out surrogates, which are not characters


@pytest.mark.parametrize("tokenizer", [BYTES, BPE], ids=["bytes", "bpe"])
@few
@given(any_text)
def test_bytes_and_subwords_give_back_any_text(tokenizer: Tokenizer, text: str):
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert BYTES.encode(b"caf\xe9\xff").tolist() == [99, 97, 102, 0xE9, 0xFF]


@few
@given(any_text.filter(bool))
def test_characters_give_back_the_text_they_were_trained_on(tmp_path_factory, text: str):
    tokenizer = CharTokenizer.train(text)
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert ids.tolist() == [sorted(set(text)).index(character) for character in text]
    file = tmp_path_factory.getbasetemp() / "characters.json"
    tokenizer.save(file)
    assert load_tokenizer(file) == tokenizer


@few
@given(st.lists(st.lists(st.sampled_from(["to", "be,", "É", "😀", "<unk>"]), min_size=1)))
def test_words_give_back_text_whose_words_are_known_and_one_space_apart(sentences: list):
    text = "\n".join(" ".join(words) for words in sentences)
    tokenizer = WordTokenizer.train("to be, É 😀\n", size=100)
    assert tokenizer.decode(tokenizer.encode(text)) == text


@few
@given(mixed)
def test_words_are_separated_by_white_space_and_lines_end_in_a_token(text: str):
    tokenizer = WordTokenizer.train(text + "\nx", size=1000)
    expected = [w for line in text.split("\n") for w in [*line.split(), "\n"]][:-1]
    assert [tokenizer.words[token] for token in tokenizer.encode(text)] == expected


@EVERY
def test_ids_are_one_row_of_int32_in_the_vocabulary(tokenizer: Tokenizer):
    ids = tokenizer.encode(SAMPLE)
    assert (ids.dtype, ids.ndim) == (np.int32, 1)
    assert 0 <= ids.min() <= ids.max() < tokenizer.size
    assert tokenizer.decode(jnp.asarray(ids[:50])) == tokenizer.decode(ids[:50])
    none = tokenizer.encode("")
    assert (none.shape, none.dtype) == ((0,), np.int32)
    assert tokenizer.decode(none) == tokenizer.decode([]) == ""


@EVERY
@few
@given(data=st.data())
def test_streamed_pieces_join_to_the_decoded_text_for_any_ids(tokenizer: Tokenizer, data):
    ids = data.draw(st.lists(st.integers(0, tokenizer.size - 1)))
    stream = tokenizer.stream()
    assert "".join([stream(token) for token in ids]) + stream.end() == tokenizer.decode(ids)


@EVERY
def test_a_saved_tokenizer_is_restored_equal_and_from_json(tokenizer: Tokenizer, tmp_path: Path):
    tokenizer.save(tmp_path / "tokenizer.json")
    restored = load_tokenizer(tmp_path / "tokenizer.json")
    assert (restored, hash(restored)) == (tokenizer, hash(tokenizer))
    assert restored.encode(SAMPLE).tolist() == tokenizer.encode(SAMPLE).tolist()
    assert json.loads((tmp_path / "tokenizer.json").read_text())["kind"] == tokenizer.kind


def test_a_file_without_a_tokenizer_is_an_error(tmp_path: Path):
    for content in (
        "no json",
        "[]",
        '{"characters": "ab"}',
        '{"kind": "other"}',
        '{"kind": "char"}',
        '{"kind": "bytes", "size": 256}',
        '{"kind": "char", "characters": "ba"}',
        '{"kind": "word", "words": ["a", "b"]}',
        '{"kind": "bpe", "merges": [["a", "bc"]]}',
    ):
        (tmp_path / "file.json").write_text(content)
        with pytest.raises(ValueError, match=r"file\.json .* that `save` wrote, of kind char"):
            load_tokenizer(tmp_path / "file.json")
    with pytest.raises(FileNotFoundError, match=r"none\.json"):
        load_tokenizer(tmp_path / "none.json")


def test_equal_training_makes_equal_tokenizers_and_other_text_makes_others():
    assert CharTokenizer.train("hello") == CharTokenizer.train("hole") != CharTokenizer.train("a")
    for kind, made in ((WordTokenizer, WORD), (BPETokenizer, BPE)):
        assert kind.train(SAMPLE, size=made.size) == made != kind.train(SAMPLE, size=300)


def test_the_most_frequent_words_are_kept_and_any_other_is_the_unknown_word():
    tokenizer = WordTokenizer.train("to be or not to be", size=100)
    assert tokenizer.encode("to see be").tolist() == [2, 0, 1]
    assert tokenizer.decode([2, 0, 1]) == "to <unk> be"
    unknown = WordTokenizer.train("a <unk> <unk> b b b <unk> <unk>", size=3)
    assert unknown.words == ("<unk>", "b", "a")
    ties = WordTokenizer.train("c c c b a b a d\n\n\n\n", size=5)
    assert ties.words == ("<unk>", "\n", "c", "a", "b")


def test_byte_pairs_are_shorter_than_bytes_and_never_cross_a_newline():
    assert BPE.size == 400
    assert BPE.encode(SAMPLE).size < 0.7 * len(SAMPLE)
    pieces = [BPE.decode([token]) for token in range(BPE.size)]
    assert [piece for piece in pieces if "\n" in piece] == ["\n"]
    assert BPETokenizer.train("abcdefg", size=1000).size == 256  # no pair is seen twice


def test_two_merges_to_the_same_string_are_one_token():
    tokenizer = BPETokenizer((("a", "b"), ("b", "c"), ("ab", "c"), ("a", "bc"), ("abc", "d")))
    assert tokenizer.size == 256 + 4
    assert tokenizer.decode(tokenizer.encode("abcd bc")) == "abcd bc"
    assert tokenizer.decode([259]) == "abcd"


def test_ids_and_merges_are_those_that_the_package_trains():
    tokenizers = pytest.importorskip("tokenizers")
    peer = tokenizers.Tokenizer(tokenizers.models.BPE())
    peer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    peer.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    assert set(byte_symbols()) == set(alphabet)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=400, min_frequency=2, initial_alphabet=alphabet, show_progress=False
    )
    peer.train_from_iterator(SAMPLE.splitlines(keepends=True), trainer)
    line = "But, soft! what light through yonder window breaks? né 😀 12"
    assert BPE.encode(line).tolist() == peer.encode(line).ids
    every = np.random.default_rng(0).integers(0, 400, 2000).tolist()
    assert BPE.decode(every) == peer.decode(every)


def test_lines_are_cut_at_newlines_alone_and_encoded_one_by_one(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("seqjax.data.tokenizers.BLOCK", 3)
    lines = [f"the king {n} said\n" for n in range(6)] + ["a\rb\u2028c\r\n", "\n", "d"]
    one_by_one = np.concatenate([BPE.encode(line) for line in lines])
    assert BPE.encode("".join(lines)).tolist() == one_by_one.tolist()


@EVERY
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda t: t.decode([0, t.size]), r"id {0} at position 1 is outside .* \[0, {0}\)"),
        (lambda t: t.stream()(t.size), r"id {0} at position 0 is outside .* \[0, {0}\)"),
        (lambda t: t.decode([-1]), "id -1 at position 0 is outside"),
        (lambda t: t.decode([[0], [0]]), r"ids has shape \(2, 1\); expected one row"),
        (lambda t: t.encode("the\ud800"), r"'\\ud800'.* position 3"),
    ],
)
def test_wrong_ids_and_text_are_named(tokenizer: Tokenizer, call, message: str):
    with pytest.raises(ValueError, match=message.format(tokenizer.size)):
        call(tokenizer)


HELLO = CharTokenizer.train("hello world")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CharTokenizer.train(""), "expected one or more, .* got ''"),
        (lambda: CharTokenizer("ba"), "expected .* distinct and ascending"),
        (lambda: CharTokenizer("aab"), "expected .* distinct and ascending"),
        (lambda: WordTokenizer.train("", size=10), "is empty; expected"),
        (lambda: BPETokenizer.train("", size=300), "is empty; expected"),
        (lambda: WordTokenizer.train("a b", size=1), "size is 1; expected at least 2"),
        (lambda: BPETokenizer.train("a b", size=255), "size is 255; expected at least 256"),
        (lambda: HELLO.encode("\0"), r"'\\x00' \(U\+0000\) at position 0"),
        (
            lambda: HELLO.encode("hell wörld😀"),
            r"'ö' \(U\+00F6\) at position 6 was not in .* 8 distinct .*ByteTokenizer",
        ),
        (lambda: HELLO.encode("hell😀"), r"'😀' \(U\+1F600\) at position 4"),
    ],
)
def test_wrong_vocabularies_and_unseen_characters_are_named(make, message: str):
    with pytest.raises(ValueError, match=message):
        make()


def test_only_subwords_need_the_package():
    code = (
        "import sys; sys.modules['tokenizers'] = None; import seqjax.data as data; "
        "print(data.CharTokenizer.train('ab').encode('ba'), data.ByteTokenizer().encode('a'), "
        "data.WordTokenizer.train('a b', 9).encode('b'))\n"
        "try: data.BPETokenizer(()).encode('a')\n"
        "except ImportError as error: print(error)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.startswith("[1 0] [97] [2]\nBPETokenizer needs the tokenizers package: pip ")
