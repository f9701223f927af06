"""What every reader shares: files, lines, and what is skipped and counted."""

import gzip
import json
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from seqjax.data import (
    read_columns,
    read_csv,
    read_idx,
    read_parallel,
    read_piano_rolls,
    read_text,
    read_tsv,
    read_voices,
)
from seqjax.data.lines import read_lines

READERS: dict[str, tuple[Callable[..., Any], bytes]] = {
    "tsv": (read_tsv, b"a b\t1\nc\t0\n"),
    "columns": (read_columns, b"a\tX\nb\tY\n\nc\tX\n"),
    "parallel": (lambda path, **options: read_parallel(path, path, **options), b"a b\nc\n"),
    "csv": (read_csv, b"date,x\nMonday,1\nTuesday,2\n"),
    "piano rolls": (read_piano_rolls, json.dumps({"train": [[[60], [61]]]}).encode()),
    "voices": (read_voices, json.dumps({"train": [[[60, 60, 60, -1]]]}).encode()),
    "idx": (read_idx, b"\0\0\x08\x01\0\0\0\x02\x05\x07"),
}
every = pytest.mark.parametrize(("read", "content"), READERS.values(), ids=READERS.keys())
LINES = ("tsv", "columns", "parallel", "csv")
every_of_lines = pytest.mark.parametrize(
    ("read", "content"), [READERS[name] for name in LINES], ids=LINES
)


@pytest.fixture
def write(tmp_path: Path):
    """Write a file with some text, and return its path."""

    def write(text: str, name: str = "data.txt") -> Path:
        (tmp_path / name).write_text(text, encoding="utf-8", newline="\n")
        return tmp_path / name

    return write


@every
def test_a_packed_file_reads_as_the_plain_one(read, content, tmp_path: Path):
    (tmp_path / "plain").write_bytes(content)
    expected = repr(read(tmp_path / "plain"))
    for name in ("packed.gz", "packed"):
        (tmp_path / name).write_bytes(gzip.compress(content))
        assert repr(read(tmp_path / name)) == expected
    (tmp_path / "packed.gz").write_bytes(b"never read")
    assert repr(read(str(tmp_path / "packed"))) == expected


@every
def test_only_the_packed_file_is_read_in_place_of_a_missing_one(read, content, tmp_path: Path):
    for name in ("train.bak", "train.gz.bak"):
        (tmp_path / name).write_bytes(content)
    (tmp_path / "train.gz").mkdir()
    with pytest.raises(FileNotFoundError, match=r"train does not exist \(looked from /"):
        read(tmp_path / "train")
    (tmp_path / "train.gz").rmdir()
    (tmp_path / "train.gz").write_bytes(gzip.compress(content))
    assert repr(read(tmp_path / "train")) == repr(read(tmp_path / "train.bak"))


@every
def test_a_damaged_packed_file_is_named(read, content, tmp_path: Path):
    wrong_sum = bytearray(gzip.compress(content))
    wrong_sum[-6] ^= 1
    for raw, message in [
        (gzip.compress(b"\xff\xff\xff\xff"), "[, ]"),
        (gzip.compress(content)[:-9], r" cannot be unpacked .* expected a whole gzip"),
        (wrong_sum, r" cannot be unpacked \(CRC check failed"),
        (gzip.compress(b""), " holds nothing once unpacked"),
    ]:
        (tmp_path / "train.gz").write_bytes(raw)
        with pytest.raises(ValueError, match=f"^{tmp_path}/train[.]gz{message}"):
            read(tmp_path / "train")


@every
def test_a_missing_file_a_folder_and_an_empty_file_are_named(read, content, tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"none does not exist \(looked from /"):
        read(tmp_path / "none")
    with pytest.raises(IsADirectoryError, match="is a directory"):
        read(tmp_path)
    (tmp_path / "empty").touch()
    with pytest.raises(ValueError, match="empty is empty; expected"):
        read(tmp_path / "empty")


@pytest.mark.parametrize("read", [read_text, *(READERS[n][0] for n in READERS if n != "idx")])
def test_a_byte_order_mark_alone_is_an_empty_file(read, tmp_path: Path):
    (tmp_path / "marked").write_bytes(b"\xef\xbb\xbf")
    expected = f"{tmp_path}/marked, line 1: nothing but a byte-order mark; expected a file with"
    with pytest.raises(ValueError, match=f"^{re.escape(expected)}"):
        read(tmp_path / "marked")


@every_of_lines
def test_line_ends_and_a_byte_order_mark_change_nothing(read, content, tmp_path: Path):
    (tmp_path / "plain").write_bytes(content)
    expected = repr(read(tmp_path / "plain"))
    for name, raw in {
        "windows": b"\xef\xbb\xbf" + content.replace(b"\n", b"\r\n"),
        "open": content.removesuffix(b"\n"),
    }.items():
        (tmp_path / name).write_bytes(raw)
        assert repr(read(tmp_path / name)) == expected


@every_of_lines
def test_bytes_that_are_not_utf_8_are_named_with_their_line(read, content, tmp_path: Path):
    lines = content.split(b"\n")
    lines[1] = b"\xe9" + lines[1][1:]
    (tmp_path / "latin").write_bytes(b"\n".join(lines))
    expected = r"latin, line 2: byte 0xe9 at offset 0 of the line is not UTF-8; expected"
    with pytest.raises(ValueError, match=expected):
        read(tmp_path / "latin")
    assert len(read(tmp_path / "latin", bad="skip")) > 0


@pytest.mark.parametrize("name", [name for name in READERS if name != "idx"])  # it has no lines
def test_another_word_for_bad_is_an_error(name, tmp_path: Path):
    read, content = READERS[name]
    (tmp_path / "plain").write_bytes(content)
    with pytest.raises(ValueError, match=r"bad: expected one of 'refuse', .*'skip', got 'ignore'"):
        read(tmp_path / "plain", bad="ignore")


def test_only_a_newline_ends_a_line(write):
    lines = read_lines(write("a\u2028b\x85c\x0bd\re\n\nf\n"))
    assert [(line.number, line.text) for line in lines] == [
        (1, "a\u2028b\x85c\x0bd\re"),
        (2, ""),
        (3, "f"),
    ]


def test_skipped_lines_are_logged_once_with_counts_and_the_first_reason(tmp_path: Path, caplog):
    file = tmp_path / "train.tsv"
    (tmp_path / "train.tsv.gz").write_bytes(gzip.compress(b"a\t1\n\t1\nb\t0\nc\nd\t1\n"))
    with caplog.at_level(logging.WARNING):
        found = read_tsv(file, bad="skip")
    assert [words for words, _ in found] == [("a",), ("b",), ("d",)]
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage() == (
        f"{file}.gz: skipped 2 of 5 lines; the first: "
        f"{file}.gz, line 2: the sentence (column 0) is empty; expected words"
    )


def test_nothing_is_logged_if_nothing_was_skipped_and_nothing_good_is_an_error(write, caplog):
    read_tsv(write("a\t1\n"), bad="skip")
    assert caplog.records == []
    with pytest.raises(ValueError, match=r"none of the 2 lines can be read; the first: .* line 1:"):
        read_tsv(write("a\nb\n"), bad="skip")
