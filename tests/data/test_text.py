"""Files as text, bytes or rows of ids, and the split by position."""

import gzip
import hashlib
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from seqjax.data import read_bytes, read_text, shakespeare, split


def test_shakespeare_is_the_text_of_char_rnn():
    text = shakespeare()
    assert (len(text), len(set(text)), text.count("\n")) == (1_115_394, 65, 40_000)
    assert hashlib.sha256(text.encode()).hexdigest().startswith("86c4e6aa9db7c042")


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "packed"])
def test_a_file_is_read_as_utf_8_with_its_line_ends_whatever_its_name(pack, tmp_path: Path):
    content = "\ufeffné\r\n\ufeff😀\n".encode()
    file, packed = tmp_path / "text.txt", tmp_path / "text.txt.gz"
    raw = gzip.compress(content, mtime=0)
    packed.write_bytes(raw)  # read only where the plain one is missing
    assert read_text(file) == "né\r\n\ufeff😀\n"
    assert (read_bytes(file), read_bytes(packed)) == (content, raw)
    raw = pack(content)
    file.write_bytes(raw)
    packed.write_bytes(b"never read")
    assert read_text(file) == read_text(str(file)) == "né\r\n\ufeff😀\n"
    assert read_bytes(file) == raw


@pytest.mark.parametrize(
    ("raw", "line"),
    [(b"caf\xe9 au lait", 1), (b"\xef\xbb\xbfcaf\xe9", 1), (b"n\xc3\xa9\n\ncaf\xe9\n", 3)],
)
def test_bytes_that_are_not_utf_8_are_named_with_their_line_and_a_way_out(raw, line, tmp_path):
    file = tmp_path / "latin.txt"
    file.write_bytes(raw)
    expected = (
        "; convert the file, or use its bytes as tokens: seqjax.data.read_bytes and ByteTokenizer"
    )
    where = f"^{file}, line {line}: 'utf-8' codec can't decode byte 0xe9 "
    with pytest.raises(ValueError, match=f"{where}.*{re.escape(expected)}$"):
        read_text(file)
    assert read_bytes(file) == raw


def test_the_split_of_shakespeare_is_that_of_nanogpt():
    train, validation = split(np.arange(1_115_394))
    assert (train.size, validation.size) == (1_003_854, 111_540)


@settings(max_examples=20)
@given(st.lists(st.integers(0, 99), min_size=4, max_size=200), st.floats(0.01, 0.99))
def test_the_parts_of_a_split_join_to_the_whole(ids: list[int], share: float):
    first = int(share * len(ids))
    assume(2 <= first <= len(ids) - 2)
    train, validation = split(ids, train=share)
    assert (train.tolist(), validation.tolist()) == (ids[:first], ids[first:])
    assert train.dtype == validation.dtype == np.int32


@pytest.mark.parametrize(
    ("size", "share", "message"),
    [(10, s, r"train: expected a share in \(0, 1\)") for s in (0.0, 1.0, -0.5, 90.0, float("nan"))]
    + [(n, s, "at least 2 tokens each") for n, s in ((10, 0.95), (10, 0.1), (3, 0.5), (0, 0.5))],
)
def test_a_share_that_leaves_a_part_without_a_pair_is_an_error(size, share, message):
    with pytest.raises(ValueError, match=message):
        split(np.arange(size), train=share)
