"""What every reader shares: packed files, line ends, encodings, missing files, and what is logged."""

import gzip
import json
import logging
import re
from pathlib import Path

import pytest

from seqjax.data import (
    read_bytes,
    read_columns,
    read_csv,
    read_idx,
    read_parallel,
    read_piano_rolls,
    read_text,
    read_tsv,
    read_voices,
)
from seqjax.data.files import read_lines

IDX = b"\0\0\x08\x01\0\0\0\x02\x05\x07"
READERS = {
    "tsv": (read_tsv, b"a b\t1\nc\t0\n"),
    "columns": (read_columns, b"a\tX\nb\tY\n\nc\tX\n"),
    "parallel": (lambda path, **options: read_parallel(path, path, **options), b"a b\nc\n"),
    "csv": (read_csv, b"date,x\nMonday,1\nTuesday,2\n"),
    "piano rolls": (read_piano_rolls, json.dumps({"train": [[[60], [61]]]}).encode()),
    "voices": (read_voices, json.dumps({"train": [[[60, 60, 60, -1]]]}).encode()),
    "idx": (read_idx, IDX),
}
every_reader = pytest.mark.parametrize(("read", "content"), READERS.values(), ids=READERS.keys())
TEXT = [name for name in READERS if name not in ("piano rolls", "voices", "idx")]
every_reader_of_lines = pytest.mark.parametrize(
    ("read", "content"), [READERS[name] for name in TEXT], ids=TEXT
)


@every_reader
@pytest.mark.parametrize("name", ["packed.gz", "packed"])
def test_a_packed_file_reads_as_the_plain_one(read, content, name, tmp_path: Path):
    (tmp_path / "plain").write_bytes(content)
    (tmp_path / name).write_bytes(gzip.compress(content))
    assert repr(read(tmp_path / name)) == repr(read(tmp_path / "plain"))


@every_reader
def test_where_only_the_packed_file_is_there_the_plain_name_reads_it(read, content, tmp_path: Path):
    (tmp_path / "train.bak").write_bytes(content)
    (tmp_path / "train.gz.bak").write_bytes(content)
    with pytest.raises(FileNotFoundError, match=r"train does not exist \(looked from /"):
        read(tmp_path / "train")
    (tmp_path / "train.gz").mkdir()
    with pytest.raises(FileNotFoundError, match=r"train does not exist \(looked from /"):
        read(tmp_path / "train")
    (tmp_path / "train.gz").rmdir()
    (tmp_path / "train.gz").write_bytes(gzip.compress(content))
    expected = repr(read(tmp_path / "train.bak"))
    assert repr(read(tmp_path / "train")) == repr(read(str(tmp_path / "train"))) == expected


@every_reader
def test_the_plain_file_is_read_where_the_packed_one_stands_beside_it(
    read, content, tmp_path: Path
):
    (tmp_path / "train").write_bytes(content)
    (tmp_path / "train.gz").write_bytes(b"never read")
    (tmp_path / "alone").write_bytes(content)
    assert repr(read(tmp_path / "train")) == repr(read(tmp_path / "alone"))


@every_reader
def test_a_message_names_the_packed_file_where_that_was_read(read, content, tmp_path: Path):
    (tmp_path / "train.gz").write_bytes(gzip.compress(b"\xff\xff\xff\xff"))
    with pytest.raises(ValueError, match=f"^{tmp_path}/train[.]gz[, ]"):
        read(tmp_path / "train")
    (tmp_path / "train.gz").write_bytes(gzip.compress(content)[:-9])
    with pytest.raises(ValueError, match=f"^{tmp_path}/train[.]gz cannot be unpacked"):
        read(tmp_path / "train")


def test_other_messages_and_the_log_name_the_packed_files_too(tmp_path: Path, caplog):
    def pack(name: str, content: bytes) -> Path:
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(content))
        return tmp_path / name

    one, two = pack("one", b"a\n"), pack("two", b"a\nb\n")
    expected = (
        f"read_parallel: {one}.gz has 1 lines but {two}.gz has 2; expected as many, line i of one "
        "beside line i of the other"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(expected)}$"):
        read_parallel(one, two)
    with pytest.raises(ValueError, match="^" + re.escape(f"{tmp_path}/csv.gz, column 'x' has no")):
        read_csv(pack("csv", b"x,y\n,1\n"), bad="interpolate")
    with pytest.raises(ValueError, match="^" + re.escape(f"{tmp_path}/json.gz, a[0]: expected")):
        read_piano_rolls(pack("json", b'{"a": [[]]}'))
    with caplog.at_level(logging.WARNING):
        read_tsv(pack("tsv", b"a\t1\n\n"), bad="skip")
    assert caplog.records[-1].getMessage() == (
        f"{tmp_path}/tsv.gz: skipped 1 of 2 lines; the first: {tmp_path}/tsv.gz, line 2: the line is "
        "empty; expected 2 columns, parted by TAB"
    )


def test_bytes_are_those_inside_only_where_the_plain_name_was_asked_for(tmp_path: Path):
    packed = gzip.compress(b"n\xe9")
    (tmp_path / "train.gz").write_bytes(packed)
    assert read_bytes(tmp_path / "train") == b"n\xe9"
    assert read_bytes(tmp_path / "train.gz") == packed


@pytest.mark.parametrize(
    "read", [read_text, *(READERS[name][0] for name in READERS if name != "idx")]
)
def test_a_byte_order_mark_alone_is_refused(read, tmp_path: Path):
    (tmp_path / "marked").write_bytes(b"\xef\xbb\xbf")
    expected = (
        f"{tmp_path}/marked, line 1: nothing but a byte-order mark; expected a file with text in it"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(expected)}$"):
        read(tmp_path / "marked")


@every_reader
def test_a_cut_off_packed_file_is_refused(read, content, tmp_path: Path):
    (tmp_path / "cut.gz").write_bytes(gzip.compress(content)[:-9])
    with pytest.raises(ValueError, match=r"cut\.gz cannot be unpacked .* expected a whole gzip"):
        read(tmp_path / "cut.gz")


@every_reader
def test_a_damaged_packed_file_is_refused(read, content, tmp_path: Path):
    packed = bytearray(gzip.compress(content))
    packed[-6] ^= 1  # in the checksum
    (tmp_path / "damaged.gz").write_bytes(packed)
    with pytest.raises(ValueError, match=r"damaged\.gz cannot be unpacked \(CRC check failed"):
        read(tmp_path / "damaged.gz")


@every_reader
def test_a_missing_file_a_folder_and_an_empty_file_are_refused(read, content, tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"none does not exist \(looked from /"):
        read(tmp_path / "none")
    with pytest.raises(IsADirectoryError, match="is a directory"):
        read(tmp_path)
    (tmp_path / "empty").touch()
    with pytest.raises(ValueError, match="empty is empty; expected"):
        read(tmp_path / "empty")
    (tmp_path / "empty.gz").write_bytes(gzip.compress(b""))
    with pytest.raises(ValueError, match=r"empty\.gz holds nothing once unpacked"):
        read(tmp_path / "empty.gz")


@every_reader_of_lines
def test_line_ends_of_windows_and_a_byte_order_mark_change_nothing(read, content, tmp_path: Path):
    (tmp_path / "plain").write_bytes(content)
    (tmp_path / "windows").write_bytes(b"\xef\xbb\xbf" + content.replace(b"\n", b"\r\n"))
    assert repr(read(tmp_path / "windows")) == repr(read(tmp_path / "plain"))


@every_reader_of_lines
def test_the_last_line_needs_no_end(read, content, tmp_path: Path):
    (tmp_path / "plain").write_bytes(content)
    (tmp_path / "open").write_bytes(content.removesuffix(b"\n"))
    assert repr(read(tmp_path / "open")) == repr(read(tmp_path / "plain"))


@pytest.mark.parametrize("name", [name for name in READERS if name != "idx"])  # it has no lines
def test_another_word_for_bad_is_refused(name, tmp_path: Path):
    read, content = READERS[name]
    (tmp_path / "plain").write_bytes(content)
    with pytest.raises(ValueError, match=r"bad: expected one of 'refuse', .*'skip', got 'ignore'"):
        read(tmp_path / "plain", bad="ignore")


@every_reader_of_lines
def test_bytes_that_are_not_utf_8_are_named_with_their_line(read, content, tmp_path: Path):
    lines = content.split(b"\n")
    lines[1] = b"\xe9" + lines[1][1:]
    (tmp_path / "latin").write_bytes(b"\n".join(lines))
    expected = r"latin, line 2: byte 0xe9 at offset 0 of the line is not UTF-8; expected"
    with pytest.raises(ValueError, match=expected):
        read(tmp_path / "latin")
    assert len(read(tmp_path / "latin", bad="skip")) > 0


def test_only_a_newline_ends_a_line(tmp_path: Path):
    (tmp_path / "text").write_text("a\u2028b\x85c\x0bd\re\n\nf\n", encoding="utf-8", newline="\n")
    assert [line.text for line in read_lines(tmp_path / "text")] == [
        "a\u2028b\x85c\x0bd\re",
        "",
        "f",
    ]
    assert [line.number for line in read_lines(tmp_path / "text")] == [1, 2, 3]


def test_what_was_skipped_is_logged_once_with_counts_and_the_first_reason(tmp_path: Path, caplog):
    (tmp_path / "train.tsv").write_text("a\t1\n\t1\nb\t0\nc\nd\t1\n")
    with caplog.at_level(logging.WARNING):
        found = read_tsv(tmp_path / "train.tsv", bad="skip")
    assert [words for words, _ in found] == [("a",), ("b",), ("d",)]
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    file = tmp_path / "train.tsv"
    assert record.getMessage() == (
        f"{file}: skipped 2 of 5 lines; the first: "
        f"{file}, line 2: the sentence (column 0) is empty; expected words"
    )


def test_nothing_is_logged_where_nothing_was_skipped(tmp_path: Path, caplog):
    (tmp_path / "train.tsv").write_text("a\t1\n")
    read_tsv(tmp_path / "train.tsv", bad="skip")
    assert caplog.records == []


def test_a_file_of_bad_lines_alone_is_refused_though_they_may_be_skipped(tmp_path: Path):
    (tmp_path / "train.tsv").write_text("a\nb\n")
    with pytest.raises(
        ValueError, match=r"none of the 2 lines can be read; the first: .* line 1: "
    ):
        read_tsv(tmp_path / "train.tsv", bad="skip")
