import gzip
import hashlib
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from seqjax.data import read_bytes, read_text, shakespeare, split


def test_shakespeare_is_the_text_of_char_rnn():
    text = shakespeare()
    assert len(text) == 1_115_394
    assert len(set(text)) == 65
    assert text.count("\n") == 40_000
    assert hashlib.sha256(text.encode()).hexdigest().startswith("86c4e6aa9db7c042")


def test_a_file_is_read_as_utf_8_with_its_line_ends_as_they_are(tmp_path: Path):
    file = tmp_path / "text.txt"
    file.write_bytes("né\r\n😀\n".encode())
    assert read_text(file) == "né\r\n😀\n"
    assert read_text(str(file)) == "né\r\n😀\n"
    assert read_bytes(file) == b"n\xc3\xa9\r\n\xf0\x9f\x98\x80\n"


def test_a_text_that_is_packed_by_gzip_is_unpacked_whatever_its_name(tmp_path: Path):
    file = tmp_path / "text.txt"
    file.write_bytes(gzip.compress("né\r\n".encode()))
    assert read_text(file) == "né\r\n"
    file.write_bytes(gzip.compress(b"all of it")[:-6])
    with pytest.raises(ValueError, match=r"text\.txt cannot be unpacked .*fetch it again"):
        read_text(file)


@pytest.mark.parametrize("read", [read_text, read_bytes])
def test_a_missing_file_is_named_with_the_folder_it_was_looked_for_in(
    read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"none\.txt does not exist \(looked from /"):
        read("none.txt")


@pytest.mark.parametrize("read", [read_text, read_bytes])
def test_a_directory_is_refused(read, tmp_path: Path):
    with pytest.raises(IsADirectoryError, match="is a directory; expected a file"):
        read(tmp_path)


@pytest.mark.parametrize("read", [read_text, read_bytes])
def test_an_empty_file_is_refused(read, tmp_path: Path):
    (tmp_path / "empty.txt").touch()
    with pytest.raises(ValueError, match=r"empty\.txt is empty; expected a file with text"):
        read(tmp_path / "empty.txt")


@pytest.mark.parametrize(
    ("raw", "line"),
    [
        (b"caf\xe9 au lait", 1),
        (b"\xef\xbb\xbfcaf\xe9", 1),
        ("né\n\n".encode() + b"caf\xe9\n", 3),
    ],
)
def test_bytes_that_are_no_utf_8_are_named_with_their_line_and_a_way_out(
    raw: bytes, line: int, tmp_path: Path
):
    file = tmp_path / "latin.txt"
    file.write_bytes(raw)
    expected = (
        f"{file} is not UTF-8: byte 0xe9 at offset 3 of line {line}; convert the file, or take its "
        "bytes as tokens: seqjax.data.read_bytes and ByteTokenizer"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(expected)}$"):
        read_text(file)
    assert read_bytes(file) == raw


def test_a_byte_order_mark_is_dropped_at_the_start_and_kept_elsewhere(tmp_path: Path):
    (tmp_path / "marked.txt").write_bytes("\ufeffa\ufeff\n".encode())
    assert read_text(tmp_path / "marked.txt") == "a\ufeff\n"


def test_a_text_is_read_from_the_packed_file_where_only_that_is_there(tmp_path: Path):
    (tmp_path / "train.txt.gz").write_bytes(gzip.compress(b"all of it"))
    assert read_text(tmp_path / "train.txt") == "all of it"
    (tmp_path / "train.txt.gz").write_bytes(gzip.compress(b"\xff"))
    with pytest.raises(ValueError, match=r"train\.txt\.gz is not UTF-8: byte 0xff at offset 0 of"):
        read_text(tmp_path / "train.txt")


def test_the_split_of_shakespeare_is_that_of_nanogpt():
    train, validation = split(np.arange(1_115_394))
    assert (train.size, validation.size) == (1_003_854, 111_540)


@given(st.lists(st.integers(0, 99), min_size=4, max_size=200), st.floats(0.01, 0.99))
def test_the_parts_of_a_split_join_to_the_whole(ids: list[int], share: float):
    first = int(share * len(ids))
    assume(2 <= first <= len(ids) - 2)
    train, validation = split(ids, train=share)
    assert (train.tolist(), validation.tolist()) == (ids[:first], ids[first:])
    assert train.dtype == validation.dtype == np.int32


@pytest.mark.parametrize("share", [0.0, 1.0, -0.5, 90.0, float("nan")])
def test_a_share_outside_0_to_1_is_refused(share: float):
    with pytest.raises(ValueError, match=r"split: train: expected a share in \(0, 1\), got"):
        split(np.arange(10), train=share)


@pytest.mark.parametrize(("size", "share"), [(10, 0.95), (10, 0.1), (3, 0.5), (0, 0.5)])
def test_a_part_without_a_pair_is_refused(size: int, share: float):
    with pytest.raises(ValueError, match="expected at least 2 tokens each"):
        split(np.arange(size), train=share)
