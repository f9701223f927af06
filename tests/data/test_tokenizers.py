import json
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
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
from seqjax.data.line_by_line import lines
from seqjax.data.subwords import byte_symbols

SAMPLE = shakespeare()[:20_000]
CHAR, BYTES = CharTokenizer.train(SAMPLE), ByteTokenizer()
WORD, BPE = WordTokenizer.train(SAMPLE, size=500), BPETokenizer.train(SAMPLE, size=400)
EVERY = pytest.mark.parametrize(
    "tokenizer", [CHAR, BYTES, WORD, BPE], ids=lambda tokenizer: tokenizer.kind
)

unicode = st.text()  # hypothesis leaves out surrogates, which are no characters
mixed = st.text(st.sampled_from("ab \n\t\r'1é😀́\u2028"))


def streamed(tokenizer: Tokenizer, ids: list[int]) -> str:
    stream = tokenizer.stream()
    return "".join([stream(token) for token in ids]) + stream.end()


@given(unicode | mixed)
def test_bytes_give_back_any_text(text: str):
    assert BYTES.decode(BYTES.encode(text)) == text


@given(unicode | mixed)
def test_subwords_give_back_any_text(text: str):
    assert BPE.decode(BPE.encode(text)) == text


@given((unicode | mixed).filter(bool))
def test_characters_give_back_the_text_they_were_trained_on(text: str):
    tokenizer = CharTokenizer.train(text)
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.size == len(set(text))
    assert ids.tolist() == [sorted(set(text)).index(character) for character in text]


@given(st.lists(st.lists(st.sampled_from(["to", "be,", "É", "😀", "<unk>"]), min_size=1)))
def test_words_give_back_text_whose_words_are_known_and_one_space_apart(sentences: list):
    text = "\n".join(" ".join(words) for words in sentences)
    tokenizer = WordTokenizer.train("to be, É 😀\n", size=100)
    assert tokenizer.decode(tokenizer.encode(text)) == text


@given(mixed)
def test_words_are_what_stands_between_white_space_and_lines_end_in_a_token(text: str):
    tokenizer = WordTokenizer.train(text + "\nx", size=1000)
    expected = [w for line in text.split("\n") for w in [*line.split(), "\n"]][:-1]
    assert [tokenizer.words[token] for token in tokenizer.encode(text)] == expected


@EVERY
def test_no_text_is_no_tokens(tokenizer: Tokenizer):
    ids = tokenizer.encode("")
    assert ids.shape == (0,)
    assert ids.dtype == np.int32
    assert tokenizer.decode(ids) == tokenizer.decode([]) == ""


@EVERY
def test_ids_of_a_text_are_int32_in_the_vocabulary(tokenizer: Tokenizer):
    ids = tokenizer.encode(SAMPLE)
    assert ids.dtype == np.int32
    assert ids.ndim == 1
    assert 0 <= ids.min() <= ids.max() < tokenizer.size


@EVERY
@given(data=st.data())
def test_streamed_pieces_join_to_the_decoded_text_for_any_ids(tokenizer: Tokenizer, data):
    ids = data.draw(st.lists(st.integers(0, tokenizer.size - 1)))
    assert streamed(tokenizer, ids) == tokenizer.decode(ids)


@given(st.lists(st.integers(0, 255)))
def test_ill_formed_bytes_stream_as_they_decode(ids: list[int]):
    assert streamed(BYTES, ids) == bytes(ids).decode("utf-8", errors="replace")


def test_a_character_is_streamed_with_its_last_byte():
    stream = BYTES.stream()
    assert [stream(byte) for byte in "a😀b".encode()] == ["a", "", "", "", "😀", "b"]


def test_a_character_that_is_never_completed_ends_as_the_replacement_character():
    stream = BYTES.stream()
    assert [stream(byte) for byte in "😀".encode()[:2]] == ["", ""]
    assert stream.end() == "�"


@EVERY
def test_streams_of_one_tokenizer_do_not_share_what_they_hold_back(tokenizer: Tokenizer):
    one, other = tokenizer.stream(), tokenizer.stream()
    ids = tokenizer.encode("the king\nand the queen").tolist()
    pieces = [(one(token), other(token)) for token in ids]
    assert all(a == b for a, b in pieces)
    assert "".join(a for a, _ in pieces) + one.end() == tokenizer.decode(ids)


@EVERY
def test_a_saved_tokenizer_is_restored_equal_and_from_json(tokenizer: Tokenizer, tmp_path: Path):
    tokenizer.save(tmp_path / "tokenizer.json")
    restored = load_tokenizer(tmp_path / "tokenizer.json")
    assert restored == tokenizer
    assert hash(restored) == hash(tokenizer)
    assert restored.encode(SAMPLE).tolist() == tokenizer.encode(SAMPLE).tolist()
    assert json.loads((tmp_path / "tokenizer.json").read_text())["kind"] == tokenizer.kind


@given(unicode.filter(bool))
def test_any_characters_survive_the_file(tmp_path_factory: pytest.TempPathFactory, text: str):
    file = tmp_path_factory.getbasetemp() / "characters.json"
    CharTokenizer.train(text).save(file)
    assert load_tokenizer(file) == CharTokenizer.train(text)


@pytest.mark.parametrize(
    "content",
    [
        "no json",
        "[]",
        '{"characters": "ab"}',
        '{"kind": "other"}',
        '{"kind": "char"}',
        '{"kind": "bytes", "size": 256}',
        '{"kind": "char", "characters": "ba"}',
        '{"kind": "word", "words": ["a", "b"]}',
        '{"kind": "bpe", "merges": [["a", "bc"]]}',
    ],
)
def test_a_file_that_holds_no_tokenizer_is_refused(content: str, tmp_path: Path):
    (tmp_path / "file.json").write_text(content)
    with pytest.raises(ValueError, match=r"file\.json holds no tokenizer .* of kind char, bytes"):
        load_tokenizer(tmp_path / "file.json")


def test_a_missing_tokenizer_file_is_a_missing_file(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"none\.json"):
        load_tokenizer(tmp_path / "none.json")


def test_equal_training_makes_equal_tokenizers_and_other_text_makes_others():
    assert CharTokenizer.train("hello") == CharTokenizer.train("hole") != CharTokenizer.train("a")
    assert WordTokenizer.train(SAMPLE, size=500) == WORD != WordTokenizer.train(SAMPLE, size=400)
    assert BPETokenizer.train(SAMPLE, size=400) == BPE != BPETokenizer.train(SAMPLE, size=300)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hello wörld", r"'ö' \(U\+00F6\) at position 7 was not in .* 8 distinct .*ByteTokenizer"),
        ("\0", r"'\\x00' \(U\+0000\) at position 0"),
        ("hell😀", r"'😀' \(U\+1F600\) at position 4"),
    ],
)
def test_an_unseen_character_is_named_with_its_position_and_a_way_out(text: str, message: str):
    with pytest.raises(ValueError, match=message):
        CharTokenizer.train("hello world").encode(text)


def test_an_unseen_word_is_the_unknown_word():
    tokenizer = WordTokenizer.train("to be or not to be", size=100)
    assert tokenizer.words[0] == "<unk>"
    assert tokenizer.encode("to see be").tolist() == [2, 0, 1]
    assert tokenizer.decode([2, 0, 1]) == "to <unk> be"


def test_a_corpus_that_holds_the_unknown_word_has_one_token_for_it():
    tokenizer = WordTokenizer.train("a <unk> <unk> b b b <unk> <unk>", size=3)
    assert tokenizer.words == ("<unk>", "b", "a")
    assert tokenizer.encode("b <unk> c").tolist() == [1, 0, 0]


def test_the_most_frequent_words_are_kept_and_ties_go_by_their_characters():
    tokenizer = WordTokenizer.train("c c c b a b a d\n\n\n\n", size=5)
    assert tokenizer.words == ("<unk>", "\n", "c", "a", "b")


def test_subwords_are_shorter_than_bytes_and_never_cross_a_newline():
    ids = BPE.encode(SAMPLE)
    assert BPE.size == 400
    assert ids.size < 0.7 * len(SAMPLE)
    pieces = [BPE.decode([token]) for token in range(BPE.size)]
    assert [piece for piece in pieces if "\n" in piece] == ["\n"]


def test_subwords_stop_where_no_pair_is_seen_twice():
    assert BPETokenizer.train("abcdefg", size=1000).size == 256


def test_two_merges_to_the_same_string_are_one_token():
    tokenizer = BPETokenizer((("a", "b"), ("b", "c"), ("ab", "c"), ("a", "bc"), ("abc", "d")))
    assert tokenizer.size == 256 + 4
    assert tokenizer.decode(tokenizer.encode("abcd bc")) == "abcd bc"
    assert tokenizer.decode([259]) == "abcd"


def test_ids_and_merges_of_subwords_are_those_that_the_package_trains():
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


@pytest.mark.parametrize("tokenizer", [WORD, BPE], ids=lambda tokenizer: tokenizer.kind)
def test_more_lines_than_one_block_encode_as_the_lines_one_by_one(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("seqjax.data.line_by_line.BLOCK", 3)
    said = [f"the king {n} said\n" for n in range(8)]
    one_by_one = np.concatenate([tokenizer.encode(line) for line in said])
    assert tokenizer.encode("".join(said)).tolist() == one_by_one.tolist()


def test_a_line_ends_at_a_newline_and_at_nothing_else():
    assert lines("", "a\rb\u2028c\r\n\nd") == ["a\rb\u2028c\r\n", "\n", "d"]


@EVERY
def test_an_id_outside_the_vocabulary_is_refused_whole_and_streamed(tokenizer: Tokenizer):
    message = rf"id {tokenizer.size} at position {{}} is outside .* \[0, {tokenizer.size}\)"
    with pytest.raises(ValueError, match=message.format(1)):
        tokenizer.decode([0, tokenizer.size])
    with pytest.raises(ValueError, match=message.format(0)):
        tokenizer.stream()(tokenizer.size)
    with pytest.raises(ValueError, match="ids holds -1"):
        tokenizer.decode([-1])


@EVERY
def test_ids_on_a_device_are_decoded_as_those_of_numpy(tokenizer: Tokenizer):
    ids = tokenizer.encode("the king")
    assert tokenizer.decode(jnp.asarray(ids)) == tokenizer.decode(ids)


@EVERY
def test_more_than_one_row_of_ids_is_refused(tokenizer: Tokenizer):
    with pytest.raises(ValueError, match=r"ids has shape \(2, 1\); expected one row"):
        tokenizer.decode([[0], [0]])


@EVERY
def test_a_lone_surrogate_is_refused_with_its_position(tokenizer: Tokenizer):
    with pytest.raises(ValueError, match=r"a lone surrogate, U\+D800, at position 3"):
        tokenizer.encode("the\ud800")


@pytest.mark.parametrize(
    "train",
    [
        CharTokenizer.train,
        lambda text: WordTokenizer.train(text, size=10),
        lambda text: BPETokenizer.train(text, size=300),
    ],
)
def test_training_on_no_text_is_refused(train):
    with pytest.raises(ValueError, match="is empty; expected"):
        train("")


def test_a_vocabulary_that_is_too_small_is_refused():
    with pytest.raises(ValueError, match="size is 1; expected at least 2"):
        WordTokenizer.train("a b", size=1)
    with pytest.raises(ValueError, match="size is 255; expected at least 256"):
        BPETokenizer.train("a b", size=255)


@pytest.mark.parametrize("characters", ["ba", "aab"])
def test_characters_that_do_not_ascend_are_refused(characters: str):
    with pytest.raises(ValueError, match="characters must be distinct and ascend"):
        CharTokenizer(characters)


def test_the_bytes_of_a_file_are_encoded_as_they_are():
    assert BYTES.encode(b"caf\xe9\xff").tolist() == [99, 97, 102, 0xE9, 0xFF]


def test_without_the_package_words_and_subwords_say_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ImportError, match=r"WordTokenizer needs .* pip install 'seqjax\[text\]'"):
        WordTokenizer.train("a b", size=10)
    with pytest.raises(ImportError, match=r"BPETokenizer needs .* pip install 'seqjax\[text\]'"):
        BPETokenizer(()).encode("a")


def test_characters_and_bytes_need_no_package():
    code = (
        "import sys; sys.modules['tokenizers'] = None; import seqjax.data as data; "
        "print(data.CharTokenizer.train('ab').encode('ba'), data.ByteTokenizer().encode('a'))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "[1 0] [97]\n"
