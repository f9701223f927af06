"""Readers of sentences, tables, images and music: what they share, what each reads, and their errors."""

import gzip
import json
import logging
import re
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from seqjax.data import (
    Labels,
    read_bytes,
    read_columns,
    read_csv,
    read_idx,
    read_labelled_images,
    read_mnist,
    read_parallel,
    read_piano_rolls,
    read_text,
    read_tsv,
    read_voices,
    write_midi,
)
from seqjax.data.text import read_lines


def idx(kind: int, shape: tuple[int, ...], numbers: bytes) -> bytes:
    """Make an idx file byte by byte from its description."""
    return struct.pack(f">BBBB{len(shape)}I", 0, 0, kind, len(shape), *shape) + numbers


LINES: dict[str, tuple[Callable[..., Any], bytes]] = {
    "tsv": (read_tsv, b"a b\t1\nc\t0\n"),
    "columns": (read_columns, b"a\tX\nb\tY\n\nc\tX\n"),
    "parallel": (lambda path, **options: read_parallel(path, path, **options), b"a b\nc\n"),
    "csv": (read_csv, b"date,x\nMonday,1\nTuesday,2\n"),
}
TEXT = LINES | {
    "piano rolls": (read_piano_rolls, b'{"train": [[[60], [61]]]}'),
    "voices": (read_voices, b'{"train": [[[60, 60, 60, -1]]]}'),
}
EVERY = TEXT | {"idx": (read_idx, idx(8, (2,), b"\5\7")), "text": (read_text, "né\n".encode())}


def each(readers: dict[str, tuple[Callable[..., Any], bytes]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(("read", "content"), readers.values(), ids=readers.keys())


@pytest.fixture
def write(tmp_path: Path):
    """Write a file with some bytes, some text, or the JSON of anything else, and return its path."""

    def write(content: Any, name: str = "data") -> Path:
        if not isinstance(content, str | bytes):
            content = json.dumps(content)
        raw = content.encode() if isinstance(content, str) else content
        (tmp_path / name).write_bytes(raw)
        return tmp_path / name

    return write


# What readers share ---------------------------------------------------------------------------------


@each(EVERY)
def test_a_packed_file_reads_as_the_plain_one_and_in_place_of_a_missing_one(read, content, write):
    expected = repr(read(write(content, "plain")))
    packed = write(gzip.compress(content), "packed.gz")
    assert repr(read(packed)) == repr(read(str(packed.parent / "packed"))) == expected
    assert repr(read(write(gzip.compress(content), "packed"))) == expected
    write(b"never read", "packed.gz")
    assert repr(read(packed.parent / "packed")) == expected


@each(EVERY | {"bytes": (read_bytes, b"abc")})
def test_files_that_cannot_be_read_are_named(read, content, write, tmp_path: Path):
    wrong_sum = bytearray(gzip.compress(content))
    wrong_sum[-6] ^= 1
    for raw, message in [
        (gzip.compress(content)[:-9], r" cannot be unpacked .* expected a whole gzip"),
        (bytes(wrong_sum), r" cannot be unpacked \(CRC check failed"),
        (gzip.compress(b""), " is empty; expected"),
        (b"", " is empty; expected"),
    ]:
        write(raw, "train.gz")
        with pytest.raises(ValueError, match=f"^{tmp_path}/train[.]gz{message}"):
            read(tmp_path / "train")
    (tmp_path / "none.gz").mkdir()
    with pytest.raises(FileNotFoundError, match=r"none does not exist \(looked from /"):
        read(tmp_path / "none")
    with pytest.raises(IsADirectoryError, match=str(tmp_path)):
        read(tmp_path)


@each(TEXT)
def test_a_byte_order_mark_is_not_part_of_the_text_and_bad_has_two_words(read, content, write):
    assert repr(read(write(b"\xef\xbb\xbf" + content, "marked"))) == repr(read(write(content)))
    with pytest.raises(ValueError, match=r"bad: expected one of 'refuse', .*'skip', got 'ignore'"):
        read(write(content), bad="ignore")
    for either in (read, read_text):
        with pytest.raises(
            ValueError, match=r"/data holds nothing but a byte-order mark; expected"
        ):
            either(write(b"\xef\xbb\xbf"))


@each(LINES)
def test_lines_may_end_in_crlf_or_with_the_file_and_must_be_utf_8(read, content, write):
    expected = repr(read(write(content)))
    assert repr(read(write(content.replace(b"\n", b"\r\n")))) == expected
    assert repr(read(write(content.removesuffix(b"\n")))) == expected
    lines = content.split(b"\n")
    lines[1] = b"\xe9" + lines[1][1:]
    file = write(b"\n".join(lines))
    with pytest.raises(ValueError, match=r"/data, line 2: 'utf-8' codec can't decode byte 0xe9"):
        read(file)
    assert len(read(file, bad="skip")) > 0


def test_only_a_newline_ends_a_line(write):
    read = [line.parse(lambda text: text) for line in read_lines(write("a\u2028b\x85c\re\n\nf\n"))]
    assert read == ["a\u2028b\x85c\re", "", "f"]


def test_skipped_lines_are_logged_once_with_counts_and_the_first_reason(write, caplog):
    file = write(gzip.compress(b"a\t1\n\t1\nb\t0\nc\nd\t1\n"), "train.gz")
    with caplog.at_level(logging.WARNING):
        found = read_tsv(file.parent / "train", bad="skip")
        read_tsv(write("a\t1\n"), bad="skip")  # nothing to say
    assert found == [(("a",), "1"), (("b",), "0"), (("d",), "1")]
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage() == (
        f"{file}: skipped 2 of 5 lines; the first: "
        f"{file}, line 2: the sentence (column 0) is empty; expected one"
    )
    with pytest.raises(ValueError, match=r"none of the 2 lines can be read; the first: .* line 1:"):
        read_tsv(write("a\nb\n"), bad="skip")


# Sentences ------------------------------------------------------------------------------------------

WORDS = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zs", "Zl", "Zp"]), min_size=1)
TWO = Labels(("X", "Y"))
IDS = {"id": 0, "form": 1, "tag": 2}


def test_columns_are_chosen_by_number_or_by_name(write):
    file = write("a stirring , funny film\t1\n un  film né \t neg \n")
    words = ("a", "stirring", ",", "funny", "film")
    assert read_tsv(file) == [(words, "1"), (("un", "film", "né"), "neg")]
    rows = "gj04\t1\t\tthey drank\ncj99\t0\t*\twe yelled us\n"
    expected = [(("they", "drank"), "1"), (("we", "yelled", "us"), "0")]
    assert read_tsv(write(rows), sentence=3, label=1) == expected
    with_header = write("source\tlabel\tstar\tsentence\n" + rows)
    assert read_tsv(with_header, header=True, sentence="sentence", label="label") == expected
    assert read_tsv(with_header, header=True, sentence=3, label=1) == expected
    assert read_tsv(write("a\t1\tx\n"), columns=3) == [(("a",), "1")]


def test_every_kind_of_bad_line_is_skipped(write):
    file = write("a\tX\n\tX\nb\t\nc\nd\tX\tx\n\ne\tZ\nf\tY\n")
    assert read_tsv(file, bad="skip", labels=TWO) == [(("a",), "X"), (("f",), "Y")]


@settings(max_examples=20)
@given(st.lists(st.lists(st.tuples(WORDS, WORDS), min_size=1), min_size=1))
def test_sentences_that_were_written_are_read(tmp_path_factory, sentences):
    file = tmp_path_factory.mktemp("sentences") / "train.tsv"
    pairs = [(tuple(form for form, _ in sentence), sentence[0][1]) for sentence in sentences]
    lines = [f"{' '.join(words)}\t{label}\n" for words, label in pairs]
    file.write_text("\ufeff" + "".join(lines), encoding="utf-8", newline="\n")
    assert read_tsv(file) == pairs
    blocks = ["".join(f"{form}\t{tag}\n" for form, tag in sentence) for sentence in sentences]
    file.write_text("\n".join(blocks) + "\n", encoding="utf-8", newline="\n")
    assert read_columns(file) == [tuple(zip(*sentence, strict=True)) for sentence in sentences]


def test_tagged_sentences_end_at_empty_lines(write):
    expected = [(("Al", "-", "Zaman"), ("PROPN", "PUNCT", "PROPN")), (("Go",), ("VERB",))]
    text = "Al\tPROPN\n-\tPUNCT\nZaman\tPROPN\n\nGo\tVERB\n"
    assert read_columns(write(text + "\n")) == expected
    assert read_columns(write("\n\n" + text.replace("\n\n", "\n \n\n\n"))) == expected


def test_comments_ranges_and_empty_nodes_of_conll_u_are_not_words(write, caplog):
    text = (
        "# text = Vámonos\tal mar\n1-2\tVámonos\t_\t_\n1\tVamos\tir\tVERB\n2\tnos\tnosotros\tPRON\n"
        "3\tal\t_\tADP\n3.1\tva\tir\tVERB\n\n# sent_id = 2\n\n1\t#\t#\tSYM\n\n"
    )
    assert read_columns(write(text), id=0, form=1, tag=3, columns=4) == [
        (("Vamos", "nos", "al"), ("VERB", "PRON", "ADP")),
        (("#",), ("SYM",)),
    ]
    assert caplog.records == []


def test_without_ids_a_word_may_begin_with_a_hash_and_comments_are_counted(write, caplog):
    file = write("# a comment\n#\tSYM\n#1\tNOUN\n# two\tNUM\n10 000\tNUM\n")
    with caplog.at_level(logging.WARNING):
        words, tags = ("#", "#1", "# two", "10 000"), ("SYM", "NOUN", "NUM", "NUM")
        assert read_columns(file) == [(words, tags)]
    (record,) = caplog.records
    assert record.getMessage() == (
        f'{file}: took 1 of 5 lines for comments ("#", and no TAB); the first: line 1'
    )


def test_a_bad_word_takes_its_whole_sentence_with_it(write, caplog):
    text = "a\tX\nb\n\nc\tX\nd\tY\n\ne\tX\n\nf\tZ\ng\tX\n\n"
    found = read_columns(write(text), bad="skip", labels=TWO)
    assert found == [(("c", "d"), ("X", "Y")), (("e",), ("X",))]
    assert "skipped 2 of 4 sentences; the first: " in caplog.text
    assert "line 2: expected 2 columns" in caplog.text


def test_parallel_lines_are_paired_by_their_number(write, caplog):
    german = write("Zwei Männer.\n Ein Hund \n", "train.de")
    english = write("Two men.\nA dog\n", "train.en")
    assert read_parallel(german, english) == [("Zwei Männer.", "Two men."), ("Ein Hund", "A dog")]
    german, english = write("a\nb\n\nd\n", "train.de"), write("w\n \ny\nz\n", "train.en")
    for files in ((german, english), (english, german)):
        with pytest.raises(ValueError, match=r"train\.en, line 2: the line is empty; expected"):
            read_parallel(*files)
    assert read_parallel(german, english, bad="skip") == [("a", "w"), ("d", "z")]
    assert "train.de: skipped 2 of 4 pairs; the first: " in caplog.text
    for bad in ("refuse", "skip"):
        with pytest.raises(ValueError, match=r"\.de has 4 lines but .*train\.en has 1; expected"):
            read_parallel(german, write("x\n", "train.en"), bad=bad)


# Tables ---------------------------------------------------------------------------------------------


YX = {"columns": ("y", "x")}


@pytest.mark.parametrize(
    ("text", "options", "names", "rows", "dates"),
    [
        ("Date,x,z,y\n1,1.5,a,-2\n2,2e1,,3\n", YX, "yx", [[-2, 1.5], [3, 20]], "12"),
        ("a,day,b\n1,M,2\n3,T,4\n", {"dates": "day"}, "ab", [[1, 2], [3, 4]], "MT"),
        ("a,b\n1,2\n", {}, "ab", [[1, 2]], ""),
        ('date,"x, in m"\n"Monday, 1","7"\n', {}, ["x, in m"], [[7]], ["Monday, 1"]),
        ("a;b\n1\n2\n", {}, ["a;b"], [[1], [2]], ""),
        ("x,y\n1,2\n,4\n5\n7,8\n\n", {"bad": "skip"}, "xy", [[1, 2], [7, 8]], ""),
    ],
    ids=["chosen columns in their order", "dates", "no dates", "quotes", "semicolon", "skip"],
)
def test_tables(text, options, names, rows, dates, write):
    series = read_csv(write(text), **options)
    assert (series.names, series.dates) == (tuple(names), tuple(dates))
    assert (series.values.tolist(), series.values.dtype) == (rows, np.float64)


@pytest.mark.parametrize("cell", ["", "NA", "nan", "-inf", "1,5", "1_000", "1e999"])
def test_a_cell_without_a_finite_number_is_an_error_filled_or_skipped(cell, write):
    file = write(f'date,x,y\nd1,1,10\nd2,"{cell}",20\nd3,4,30\n')
    with pytest.raises(ValueError, match=r"/data, line 3: column 'x': expected a finite number"):
        read_csv(file)
    filled, skipped = read_csv(file, bad="interpolate"), read_csv(file, bad="skip")
    assert filled.values.tolist() == [[1, 10], [2.5, 20], [4, 30]]
    assert skipped.values.tolist() == [[1, 10], [4, 30]]
    assert (filled.dates, skipped.dates) == (("d1", "d2", "d3"), ("d1", "d3"))


def test_interpolation_is_a_line_between_good_values_and_constant_at_the_ends(write, caplog):
    series = read_csv(write("x,y\n,1\n2,\n,\n,\n8,9\n,10\n"), bad="interpolate")
    expected = [[2, 1], [2, 3], [4, 5], [6, 7], [8, 9], [8, 10]]
    np.testing.assert_allclose(series.values, expected, rtol=1e-15)
    assert "interpolated 7 of 12 values; the first: line 2, column 'x'" in caplog.text


@settings(max_examples=20)
@given(
    hnp.arrays(np.float64, st.tuples(st.integers(1, 9), st.integers(1, 4)), elements=st.floats())
)
def test_numbers_that_were_written_are_read_to_the_last_bit(tmp_path_factory, values):
    values = np.where(np.isfinite(values), values, 0)
    file = tmp_path_factory.mktemp("csv") / "series.csv"
    names = [f"column {i}" for i in range(values.shape[1])]
    rows = [names, *[[repr(float(value)) for value in row] for row in values]]
    file.write_text("\n".join(",".join(row) for row in rows) + "\n")
    found = read_csv(file)
    assert found.names == tuple(names)
    np.testing.assert_array_equal(found.values, values)


# Images ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "code", "numbers", "dtype"),
    [
        (0x08, "B", [0, 1, 253, 255], np.uint8),
        (0x09, "b", [-128, 127, 0, 1], np.int8),
        (0x0B, "h", [-2, 300, 0, 1], np.int16),
        (0x0C, "i", [-2, 70_000, 0, 1], np.int32),
        (0x0D, "f", [-0.5, 3.25, 0, 1], np.float32),
        (0x0E, "d", [-0.1, 1e300, 0, 1], np.float64),
    ],
)
def test_idx_numbers_have_their_highest_byte_first_and_the_last_axis_is_the_fastest(
    kind, code, numbers, dtype, write
):
    array = read_idx(write(idx(kind, (2, 1, 2), struct.pack(f">4{code}", *numbers))))
    assert array.tolist() == [[numbers[:2]], [numbers[2:]]]
    assert array.dtype == dtype
    assert array.dtype.isnative
    assert array.flags.writeable


def test_images_are_grey_from_0_to_1_beside_their_labels(write):
    images = write(idx(0x08, (3, 1, 2), bytes([0, 51, 102, 153, 204, 255])), "images")
    grey, labels = read_labelled_images(images, write(idx(8, (3,), b"\2\0\1")), classes=3)
    np.testing.assert_allclose(grey, [[[0, 0.2]], [[0.4, 0.6]], [[0.8, 1]]], rtol=1e-6)
    assert (grey.dtype, labels.dtype, labels.tolist()) == (np.float32, np.int32, [2, 0, 1])
    for images, labels, message in (
        (idx(0x08, (2, 3), bytes(6)), idx(0x08, (2,), bytes(2)), r"images holds uint8\[2, 3\]"),
        (idx(0x0D, (1, 1, 1), bytes(4)), idx(0x08, (1,), bytes(1)), r"images holds float32"),
        (idx(0x08, (2, 1, 1), bytes(2)), idx(0x08, (3,), bytes(3)), r"label for each of 2 images"),
        (idx(0x08, (1, 1, 1), bytes(1)), idx(0x0D, (1,), bytes(4)), r"labels holds float32\[1\]"),
        (idx(0x08, (2, 1, 1), bytes(2)), idx(0x08, (2,), b"\1\5"), r"label 2: .* 0 to 4, got 5"),
        (idx(0x08, (1, 1, 1), bytes(1)), idx(0x09, (1,), b"\xff"), r"label 1: .*, got -1"),
    ):
        with pytest.raises(ValueError, match=message):
            read_labelled_images(write(images, "images"), write(labels, "labels"), classes=5)


MNIST = {
    "train-images-idx3": idx(0x08, (3, 1, 2), bytes([0, 51, 102, 153, 204, 255])),
    "train-labels-idx1": idx(0x08, (3,), bytes([2, 0, 9])),
    "t10k-images-idx3": idx(0x08, (2, 1, 2), bytes([255, 0, 51, 0])),
    "t10k-labels-idx1": idx(0x08, (2,), bytes([7, 1])),
}


@pytest.mark.parametrize("packed", [False, True])
def test_mnist_is_what_to_train_on_and_then_what_to_test_on(packed, write, tmp_path):
    def write_all(files: dict[str, bytes]) -> None:
        for name, raw in files.items():
            write(gzip.compress(raw) if packed else raw, f"{name}-ubyte{'.gz' * packed}")

    write_all(dict(list(MNIST.items())[:3]))
    with pytest.raises(FileNotFoundError, match="t10k-labels-idx1-ubyte does not exist"):
        read_mnist(tmp_path)
    write_all(MNIST)
    (grey, digits), (others, their_digits) = read_mnist(str(tmp_path))
    np.testing.assert_allclose(grey, [[[0, 0.2]], [[0.4, 0.6]], [[0.8, 1]]], rtol=1e-6)
    np.testing.assert_allclose(others, [[[1, 0]], [[0.2, 0]]], rtol=1e-6)
    assert (digits.tolist(), their_digits.tolist()) == ([2, 0, 9], [7, 1])
    no_image = idx(0x08, (0, 28, 28), b"")
    for changed, message in (
        ({"train-images-idx3": no_image, "train-labels-idx1": idx(8, (0,), b"")}, r"\[0, 28, 28\]"),
        ({"t10k-images-idx3": idx(0x08, (2, 0, 28), b"")}, r"images \[2, 0, 28\]; .*, with pixels"),
        ({"t10k-images-idx3": idx(0x08, (2, 2, 1), bytes(4))}, r"images \[2, 2, 1\]; .* one size"),
        ({"t10k-labels-idx1": idx(0x08, (2,), b"\1\n")}, ", label 2: expected from 0 to 9, got 10"),
    ):
        write_all(MNIST | changed)
        name = next(iter(changed)) + "-ubyte" + "[.]gz" * packed
        with pytest.raises(ValueError, match=f"/{name}.*{message}"):
            read_mnist(tmp_path)


# Music ----------------------------------------------------------------------------------------------


def test_key_k_of_a_roll_is_note_21_plus_k_and_voices_keep_their_order_and_silence(write):
    rolls = read_piano_rolls(write({"train": [[[21, 108], [], [60]]], "valid": [[[22]], [[23]]]}))
    assert {part: len(pieces) for part, pieces in rolls.items()} == {"train": 1, "valid": 2}
    assert (rolls["train"][0].dtype, rolls["train"][0].shape) == (bool, (3, 88))
    assert np.argwhere(rolls["train"][0]).tolist() == [[0, 0], [0, 87], [2, 39]]
    assert np.flatnonzero(rolls["valid"][1]).tolist() == [2]
    piece = [[74, 70, 65, 58], [-1, 70, 65, 21]]
    (found,) = read_voices(write({"test": [piece]}))["test"]
    assert (found.tolist(), found.dtype) == (piece, np.int32)
    assert read_voices(write({"a": [[[60]]]}), voices=1)["a"][0].tolist() == [[60]]


@pytest.mark.parametrize("note", [20, 109, -1, 60.0, True, None, "60"])
def test_a_note_outside_the_piano_is_named_with_piece_and_step(note, write, caplog):
    file = write({"train": [[[60]], [[61], [62, note]], [[63]]]})
    expected = re.escape(
        "data, train[1], step 1 (both counted from 0): expected a list of MIDI notes in 21 … 108, got "
        f"[62, {note!r}]"
    )
    with pytest.raises(ValueError, match=expected):
        read_piano_rolls(file)
    rolls = read_piano_rolls(file, bad="skip")
    assert [np.flatnonzero(roll).tolist() for roll in rolls["train"]] == [[39], [42]]
    assert "skipped 1 of 3 pieces; the first: " in caplog.text


@pytest.fixture
def written(tmp_path):
    """Write a roll; return ticks and µs of a quarter, [(tick, note, on)] and the last tick."""
    mido = pytest.importorskip("mido", reason="mido is not installed")

    def written(roll, **options):
        write_midi(tmp_path / "piece.mid", roll, **options)
        midi = mido.MidiFile(tmp_path / "piece.mid")
        ((first, *track),) = midi.tracks
        assert (midi.type, first.type, first.time) == (0, "set_tempo", 0)
        ticks = np.cumsum([message.time for message in track]).tolist()
        played = zip(ticks, track[:-1], strict=False)
        notes = [(tick, m.note, m.type == "note_on" and m.velocity > 0) for tick, m in played]
        return midi.ticks_per_beat, first.tempo, notes, ticks[-1]

    return written


@pytest.mark.parametrize("density", [0.05, 0.5, 1.0])
def test_the_midi_file_holds_the_keys_of_every_step_and_nothing_else(written, density):
    roll = np.random.default_rng(0).random((40, 88)) < density
    roll[-3:] = False  # silence at the end lasts as long
    division, _, notes, end = written(roll)
    assert end == 40 * division
    now, struck = np.zeros(128, bool), 0
    for t in range(40):
        for tick, note, on in notes:
            if tick == t * division:
                assert now[note] != on  # no key goes down twice, or up without having been down
                now[note] = on
                struck += on
        assert np.flatnonzero(now).tolist() == (21 + np.flatnonzero(roll[t])).tolist()
    # What sounds at neighbouring steps is held: a key is struck where it did not sound before.
    assert struck == roll[0].sum() + (roll[1:] & ~roll[:-1]).sum()


def test_a_key_goes_up_before_another_goes_down_and_a_roll_may_be_empty_or_of_numbers(written):
    roll = np.zeros((2, 88), bool)
    roll[0, 50] = roll[1, 10] = True
    for dtype in (bool, np.int32, np.float32):
        notes = [(note, on) for _, note, on in written(roll.astype(dtype))[2]]
        assert notes == [(71, True), (71, False), (31, True), (31, False)]
    assert written(np.zeros((0, 88), bool))[2:] == ([], 0)


@pytest.mark.parametrize("tempo", [4, 90.0, np.float32(120), 6000])
def test_a_step_is_a_quarter_note_of_the_tempo(unchecked, written, tempo):
    assert written(np.ones((1, 88)), tempo=tempo)[1] == round(60_000_000 / float(tempo))


def test_without_the_package_it_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "mido", None)
    with pytest.raises(ImportError, match="write_midi needs the mido package: pip install "):
        write_midi(tmp_path / "piece.mid", np.zeros((2, 88), bool))


# Errors ---------------------------------------------------------------------------------------------

ERRORS: dict[Callable[..., Any], list[tuple[Any, dict[str, Any], str]]] = {
    read_tsv: [
        ("a\t1\n  \t1\n", {}, r"line 2: the sentence \(column 0\) is empty; expected one"),
        ("a\t1\nb\t\n", {}, r"line 2: the label \(column 1\) is empty; expected one"),
        ("a\t1\nb\n", {}, r"line 2: expected 2 columns, separated by '\\t', got 1 in 'b'$"),
        ("a\t1\n \nb\t0\n", {}, "line 2: expected 2 columns, .* got an empty line$"),
        ("\t\n", {"columns": 3}, r"line 1: expected 3 columns, .*, got 2 in '\\t'$"),
        ("\na\t1\n", {"header": True}, "line 1: expected a first line with the names of .* empty"),
        ("s\tl\tx\na\t1\tx\nb\t1\n", {"header": True}, "line 3: expected 3 columns.*, got 2"),
        ("a\tX\nb\tZ\n", {"labels": TWO}, "line 2: label 'Z' is not known; .* 'X', 'Y'"),
        ("s\tl\n", {"header": True}, "holds no lines; expected at least one"),
        ("a\t1\n", {"sentence": "text"}, "sentence: 'text' is a name; expected header=True"),
        ("s\tl\n", {"header": True, "label": "y"}, "label: expected one of 's', 'l', got 'y'"),
        ("a\t1\n", {"label": -1}, "read_tsv: label: expected an integer of at least 0, got -1"),
        ("s\ta\n", {"header": True, "label": 2}, "lines have 2 columns; expected at least 3"),
        ("a\t1\n", {"columns": 1}, "lines have 1 columns; expected at least 2"),
    ],
    read_columns: [
        ("a\tX\n\nb\tX\tY\n", {}, "line 3: expected 2 columns, .*, got 3"),
        ("a\tX\n\tX\n", {}, r"line 2: the form \(column 0\) is empty; expected one"),
        ("a\tX\nb\t \n", {}, r"line 2: the tag \(column 1\) is empty; expected one"),
        ("a\tX\nb\tZ\n", {"labels": TWO}, "line 2: label 'Z' is not known; .* 'X', 'Y'"),
        ("1\ta\tX\nx\tb\tX\n", IDS, "line 2: the id is 'x'; expected"),
        ("1-2\ta\tX\n", IDS, "line 1: the sentence .* has no word"),
        ("# only\n\n", {}, "holds no sentences; expected at least one"),
        ("a\tX\n", {"tag": -1}, "read_columns: tag: expected an integer of at least 0, got -1"),
    ],
    read_csv: [
        ("x,y\n1,2\n3\n", {}, "line 3: expected 2 columns, separated by ',', got 1 in '3'$"),
        ("x,y,z\n \n", {}, "line 2: expected 3 columns, separated by ',', got an empty line$"),
        ("x,y\n,,\n", {}, "line 2: expected 2 columns, .*, got 3 in ',,'$"),
        ("date;x\nd1;1.5\n", {}, "line 2: column 'date;x': expected a finite .*, got 'd1;1.5'$"),
        ("date\tx\nd1\t1\n", {"columns": ("x",)}, r"columns: expected one of 'date\\tx', got 'x'"),
        ("x,y\r1,2\r", {}, r"line 1: .*new-line character .*; expected .* lines that end with LF"),
        ('x\n1\n"2\n', {}, "line 3: .*expected commas"),
        ("\nx,y\n1,2\n", {}, "line 1: expected a first line with the names of .* got an empty"),
        (" \r\nx\r\n", {}, "line 1: expected a first line with the names"),
        ("date\nz\n", {}, r"columns: expected names of columns of numbers, each once, got \[\]"),
        ("x,y\n1,2\n3\n", {"bad": "interpolate"}, "line 3: expected 2 columns"),
        ("1,2\n3,4\n", {}, "line 1: expected distinct names of columns, and no numbers, got .'1'"),
        ("x,x\n3,4\n", {}, "line 1: expected distinct names of columns"),
        ("x,y\n", {}, "holds no rows; expected at least one"),
        ("x,y\n,1\nz,2\n", {"bad": "interpolate"}, "column 'x': expected a number to interpolate"),
        ("x\nz\n", {"bad": "skip"}, "none of the 1 rows can be read; the first: .*line 2"),
        ("x\n1\n", {"columns": ()}, r"columns: expected names .*, each once, got \(\)"),
        ("a,b\n1,2\n", {"columns": ["a", "a"]}, r"^read_csv: columns: .* got \['a', 'a'\]$"),
        ("x\n1\n", {"columns": ("y",)}, "read_csv: columns: expected one of 'x', got 'y'"),
        ("x\n1\n", {"columns": "x"}, "columns: expected names .*, each once, got 'x'"),
        ("x\n1\n", {"dates": "day"}, "read_csv: dates: expected one of 'x', got 'day'"),
    ],
    read_idx: [
        (b"\x89PNG\r\n", {}, "magic number 89 50 4e 47; expected 00 00, one of 08, 09, "),
        (idx(0x07, (1,), b"\0"), {}, "magic number 00 00 07 01"),
        (b"\0\0\x08\0", {}, "magic number 00 00 08 00"),
        (b"\0\0", {}, "magic number 00 00; expected"),
        (b"\0\0\x08\x03\0\0\0\x01", {}, "is cut off .* it has 8 bytes; expected 16 for"),
        (idx(0x08, (2, 3), b"12345"), {}, r"it has 17 bytes; expected 18 for uint8\[2, 3\]"),
        (idx(0x0C, (2,), bytes(9)), {}, r"too long: it has 17 bytes; expected 16 for int32\[2\]"),
    ],
    read_piano_rolls: [
        ({"train": [[]]}, {}, r"train\[0\]: expected a list of steps, got \[\]"),
        ({"train": [[60]]}, {}, r"train\[0\], step 0 .*: expected a list of MIDI notes .* got 60"),
        ({"train": [7]}, {}, r"train\[0\]: expected a list of steps, got 7"),
        ({"train": {}}, {}, "expected a JSON object of lists of pieces"),
        ([[[60]]], {}, "expected a JSON object of lists of pieces"),
        ({"train": []}, {}, "holds no pieces; expected at least one"),
        ('{"train":\n [[[60]]}', {}, r"data is not JSON \(.* line 2 column 9"),
        (b"\xff", {}, "data, line 1: .* byte 0xff"),
        ("[" * 100_000, {}, "data is not JSON .*; expected {part: pieces}"),
    ],
    read_voices: [
        ({"train": [[[60, 61]]]}, {}, r"train\[0\], step 0 .*: .* list of 4 MIDI notes"),
        ({"a": [[[60, 60, 60, -2]]]}, {}, r"in 21 … 108 or -1 for silence, got .*-2\]"),
        ({}, {"voices": 0}, "voices: expected a positive integer"),
    ],
}


@pytest.mark.parametrize("read", ERRORS)
def test_what_cannot_be_read_is_named(read, write):
    for content, options, message in ERRORS[read]:
        with pytest.raises(ValueError, match=message):
            read(write(content), **options)


@pytest.mark.parametrize(
    ("roll", "tempo", "message"),
    [
        (np.zeros((5, 87)), 90, r"roll is float64\[5, 87\]; expected \[time, 88\] of 0 and 1"),
        (np.zeros((5, 1, 88)), 90, r"roll is float64\[5, 1, 88\]; expected \[time, 88\]"),
        (np.full((5, 88), 0.5), 90, r"expected \[time, 88\] of 0 and 1"),
        (np.full((5, 88), np.nan), 90, r"expected \[time, 88\] of 0 and 1"),
        *((np.zeros((5, 88)), t, f"tempo: expected 4 .* got {t!r}") for t in (3.9, np.nan, "fast")),
    ],
)
def test_another_roll_and_another_tempo_are_errors(unchecked, tmp_path, roll, tempo, message):
    with pytest.raises(ValueError, match=message):
        write_midi(tmp_path / "piece.mid", roll, tempo=tempo)
    assert not (tmp_path / "piece.mid").exists()
