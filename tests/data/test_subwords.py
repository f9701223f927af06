"""Byte-pair encoding beside the package that trains it."""

import numpy as np
import pytest

from seqjax.data import BPETokenizer, shakespeare
from seqjax.data.subwords import byte_symbols

SAMPLE = shakespeare()[:20_000]
BPE = BPETokenizer.train(SAMPLE, size=400)


def test_subwords_are_shorter_than_bytes_and_never_cross_a_newline():
    assert BPE.size == 400
    assert BPE.encode(SAMPLE).size < 0.7 * len(SAMPLE)
    pieces = [BPE.decode([token]) for token in range(BPE.size)]
    assert [piece for piece in pieces if "\n" in piece] == ["\n"]


def test_training_stops_where_no_pair_is_seen_twice():
    assert BPETokenizer.train("abcdefg", size=1000).size == 256


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
    monkeypatch.setattr("seqjax.data.subwords.BLOCK", 3)
    lines = [f"the king {n} said\n" for n in range(6)] + ["a\rb\u2028c\r\n", "\n", "d"]
    one_by_one = np.concatenate([BPE.encode(line) for line in lines])
    assert BPE.encode("".join(lines)).tolist() == one_by_one.tolist()
