"""Time series, music and images: the numbers that are read, and what is refused by its place."""

import gzip
import json
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from seqjax.data import (
    read_csv,
    read_idx,
    read_labelled_images,
    read_mnist,
    read_piano_rolls,
    read_voices,
)

TABLE = "Date,x,weather,y\n2012-01-01,1.5,rain,-2\n2012-01-02,2e1,sun,3\n2012-01-03,0,,4\n"


@pytest.fixture
def write(tmp_path: Path):
    """A file with the text, the bytes, or the JSON of what is given to it."""

    def write(content: Any) -> Path:
        if not isinstance(content, str | bytes):
            content = json.dumps(content)
        raw = content.encode() if isinstance(content, str) else content
        (tmp_path / "data").write_bytes(raw)
        return tmp_path / "data"

    return write


# Time series --------------------------------------------------------------------------------------


def test_chosen_columns_are_read_in_the_order_asked_for_with_their_dates(write):
    series = read_csv(write(TABLE), ("y", "x"))
    assert series.names == ("y", "x")
    np.testing.assert_array_equal(series.values, [[-2, 1.5], [3, 20], [4, 0]])
    assert series.values.dtype == np.float64
    assert series.dates == ("2012-01-01", "2012-01-02", "2012-01-03")


def test_all_columns_but_the_dates_are_read_and_the_dates_may_have_another_name(write):
    rows = "1,Monday,2\n3,Tuesday,4\n"
    series = read_csv(write("a,day,b\n" + rows), dates="day")
    assert (series.names, series.dates) == (("a", "b"), ("Monday", "Tuesday"))
    np.testing.assert_array_equal(series.values, [[1, 2], [3, 4]])
    assert read_csv(write("a,b\n1,2\n")).dates == ()


def test_quoted_cells_may_hold_commas(write):
    series = read_csv(write('date,"x, in m"\n"Monday, 1","7"\n'))
    assert (series.names, series.dates, series.values.tolist()) == (
        ("x, in m",),
        ("Monday, 1",),
        [[7.0]],
    )


@pytest.mark.parametrize("cell", ["", "NA", "nan", "NaN", "inf", "-inf", "1,5", "1_000", "1e999"])
@pytest.mark.parametrize("bad", ["refuse", "interpolate", "skip"])
def test_what_is_no_finite_number_is_refused_filled_or_skipped(cell, bad, write):
    text = f'date,x,y\nd1,1,10\nd2,"{cell}",20\nd3,4,30\n'
    if bad == "refuse":
        with pytest.raises(ValueError, match="data, line 3: column 'x': expected a finite number"):
            read_csv(write(text))
        return
    series = read_csv(write(text), bad=bad)
    filled = [[1, 10], [2.5, 20], [4, 30]] if bad == "interpolate" else [[1, 10], [4, 30]]
    assert series.values.tolist() == filled
    assert series.dates == (("d1", "d2", "d3") if bad == "interpolate" else ("d1", "d3"))


def test_interpolation_is_a_line_between_good_values_and_constant_at_the_ends(write, caplog):
    text = "x,y\n,1\n2,\n,\n,\n8,9\n,10\n"
    series = read_csv(write(text), bad="interpolate")
    np.testing.assert_allclose(
        series.values, [[2, 1], [2, 3], [4, 5], [6, 7], [8, 9], [8, 10]], rtol=1e-15
    )
    assert "interpolated 7 of 12 values; the first: " in caplog.text
    assert "line 2: column 'x'" in caplog.text


def test_skipping_leaves_out_whole_rows_and_says_how_many(write, caplog):
    series = read_csv(write("x,y\n1,2\n,4\n5\n7,8\n\n"), bad="skip")
    np.testing.assert_array_equal(series.values, [[1, 2], [7, 8]])
    assert "skipped 3 of 5 rows; the first: " in caplog.text


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("x,y\n1,2\n3\n", {}, "line 3: expected 2 cells, parted by commas, got 1"),
        ("x,y\n1,2\n3,4,5\n", {}, "line 3: expected 2 cells, parted by commas, got 3"),
        ("x\n1\n\n", {}, "line 3: the line is empty; expected 1 cells, parted by commas$"),
        ("x,y,z\n \n", {}, "line 2: the line is empty; expected 3 cells, parted by commas$"),
        ("x,y\n,,\n", {}, "line 2: expected 2 cells, parted by commas, got 3$"),
        ("\nx,y\n1,2\n", {}, "line 1: the line is empty; expected a first line of the columns' "),
        ("\ufeff\nx\n1\n", {}, "line 1: the line is empty; expected a first line"),
        (" \r\nx\r\n", {}, "line 1: the line is empty; expected a first line"),
        ("date\nz\n", {}, "line 1: expected a column of numbers beside the dates, got"),
        ("x,y\n1,2\n3\n", {"bad": "interpolate"}, "line 3: expected 2 cells"),
        ('x\n1\n"2\n', {}, "line 3: the cells cannot be parted"),
        ("1,2\n3,4\n", {}, "line 1: '1' is a number; expected a first line of .* names"),
        ("x,x\n3,4\n", {}, "line 1: expected distinct names of columns"),
        ("x,y\n", {}, "holds no rows; expected at least one"),
        ("x,y\n,1\nz,2\n", {"bad": "interpolate"}, "column 'x' has no number to interpolate"),
        ("x\nz\n", {"bad": "interpolate"}, "none of the 1 values can be read"),
        ("x\nz\n", {"bad": "skip"}, "none of the 1 rows can be read; the first: .*line 2"),
        ("x\n1\n", {"columns": ()}, r"columns: expected one name or more, each once, got \(\)"),
        (
            "a,b\n1,2\n",
            {"columns": ["a", "b", "a"]},
            r"^read_csv: columns: expected one name or more, each once, got \('a', 'b', 'a'\)$",
        ),
        ("x\n1\n", {"columns": ("y",)}, "read_csv: columns: expected one of 'x', got 'y'"),
        ("x\n1\n", {"columns": "x"}, r"columns: expected names, such as \('x',\), got one"),
        ("x\n1\n", {"dates": "day"}, "read_csv: dates: expected one of 'x', got 'day'"),
        ("x\n1\n", {"bad": "ignore"}, "'refuse', 'interpolate', 'skip', got 'ignore'"),
    ],
)
def test_a_bad_table_is_named_by_line_and_column(text, options, message, write):
    with pytest.raises(ValueError, match=message):
        read_csv(write(text), **options)


@pytest.mark.parametrize("text", ["x,y\r1,2\r", "x,y\n1,2\r3,4\n"])
def test_a_carriage_return_alone_ends_no_line_of_a_table(text, write):
    file = write(text)
    expected = (
        f"{file}, line {1 + text.count(chr(10)) // 2}: a carriage return (CR) stands inside the line; "
        "expected lines that end with LF or CR LF: convert the line ends"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(expected)}$"):
        read_csv(file)


@pytest.mark.parametrize(("sign", "word"), [(";", "semicolons"), ("\t", "TABs")])
@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({}, 2),
        ({"bad": "interpolate"}, 2),
        ({"columns": ("x",)}, 1),
        ({"dates": "date"}, 1),
    ],
)
@pytest.mark.parametrize("number", ["1.5", "1,5"])
def test_a_table_without_commas_is_told_what_parts_the_cells(
    sign, word, options, line, number, write
):
    rows = ["date;x".replace(";", sign), f"d1;{number}".replace(";", sign)]
    file = write("\n".join(rows) + "\n")
    expected = (
        f"{file}, line {line}: expected cells parted by commas, got {rows[line - 1]!r}, with {word}"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(expected)}$"):
        read_csv(file, **options)


def test_one_column_may_have_a_semicolon_in_its_name(write):
    series = read_csv(write("a;b\n1\n2\n"))
    assert (series.names, series.values.tolist()) == (("a;b",), [[1], [2]])


@given(
    hnp.arrays(np.float64, st.tuples(st.integers(1, 9), st.integers(1, 4)), elements=st.floats()),
    st.data(),
)
def test_numbers_that_were_written_are_read_to_the_last_bit(tmp_path_factory, values, data):
    values = np.where(np.isfinite(values), values, 0)
    file = tmp_path_factory.mktemp("csv") / "series.csv"
    names = [f"column {i}" for i in range(values.shape[1])]
    rows = [names, *[[repr(float(value)) for value in row] for row in values]]
    file.write_text("\n".join(",".join(row) for row in rows) + "\n")
    found = read_csv(file)
    assert found.names == tuple(names)
    np.testing.assert_array_equal(found.values, values)


# Music --------------------------------------------------------------------------------------------


def test_key_k_of_a_roll_is_note_21_plus_k(write):
    rolls = read_piano_rolls(write({"train": [[[21, 108], [], [60]]], "valid": [[[22]], [[23]]]}))
    assert {part: len(pieces) for part, pieces in rolls.items()} == {"train": 1, "valid": 2}
    expected = np.zeros((3, 88), bool)
    expected[0, 0] = expected[0, 87] = expected[2, 39] = True
    np.testing.assert_array_equal(rolls["train"][0], expected)
    assert rolls["train"][0].dtype == bool
    assert np.flatnonzero(rolls["valid"][1]).tolist() == [2]


def test_voices_keep_their_order_and_their_silence(write):
    voices = read_voices(write({"test": [[[74, 70, 65, 58], [-1, 70, 65, 21]]]}))
    assert voices["test"][0].tolist() == [[74, 70, 65, 58], [-1, 70, 65, 21]]
    assert voices["test"][0].dtype == np.int32
    assert read_voices(write({"a": [[[60]]]}), voices=1)["a"][0].tolist() == [[60]]


@pytest.mark.parametrize("note", [20, 109, -1, 60.0, True, None, "60"])
def test_a_note_outside_the_piano_is_named_with_piece_and_step(note, write, caplog):
    file = write({"train": [[[60]], [[61], [62, note]], [[63]]]})
    expected = (
        rf"data, train\[1\], step 1 \(both counted from 0\): expected MIDI notes in 21 … 108, got "
        rf"{note!r}"
    )
    with pytest.raises(ValueError, match=expected):
        read_piano_rolls(file)
    rolls = read_piano_rolls(file, bad="skip")
    assert [np.flatnonzero(roll).tolist() for roll in rolls["train"]] == [[39], [42]]
    assert "skipped 1 of 3 pieces; the first: " in caplog.text


@pytest.mark.parametrize(
    ("read", "content", "message"),
    [
        (read_piano_rolls, {"train": [[]]}, r"train\[0\]: expected a list of steps, got \[\]"),
        (read_piano_rolls, {"train": [[60]]}, r"train\[0\], step 0 .*: expected a list of notes"),
        (read_piano_rolls, {"train": [7]}, r"train\[0\]: expected a list of steps, got 7"),
        (read_piano_rolls, {"train": {}}, "expected a JSON object of lists of pieces"),
        (read_piano_rolls, [[[60]]], "expected a JSON object of lists of pieces"),
        (read_piano_rolls, {"train": []}, "holds no pieces; expected at least one"),
        (read_piano_rolls, '{"train":\n [[[60]]}', r"data, line 2: no JSON \(.*, column 9\)"),
        (read_piano_rolls, b"\xff", r"data is not UTF-8 \(offset 0\)"),
        (read_voices, {"train": [[[60, 61]]]}, r"train\[0\], step 0 .*: expected 4 voices, got 2"),
        (
            read_voices,
            {"train": [[[60, 60, 60, -2]]]},
            "in 21 … 108 or -1 for silence, got -2",
        ),
        (lambda path: read_voices(path, voices=0), {}, "voices: expected a positive integer"),
    ],
)
def test_what_is_no_music_is_refused(read, content, message, write):
    with pytest.raises(ValueError, match=message):
        read(write(content))


@pytest.mark.parametrize("read", [read_piano_rolls, read_voices])
def test_json_that_is_nested_too_deeply_is_refused_with_its_file(read, write):
    file = write("[" * 100_000)
    expected = f"{file}: JSON that is nested too deeply to be read; expected {{part: pieces}}"
    with pytest.raises(ValueError, match=f"^{re.escape(expected)}$"):
        read(file)


def test_a_byte_order_mark_is_no_json(write):
    assert list(read_voices(write('\ufeff{"a": [[[60]]]}'), voices=1)) == ["a"]


# Images -------------------------------------------------------------------------------------------


def idx(kind: int, shape: tuple[int, ...], numbers: bytes) -> bytes:
    """An idx file, byte by byte from its description."""
    return struct.pack(f">BBBB{len(shape)}I", 0, 0, kind, len(shape), *shape) + numbers


def test_the_last_axis_of_an_idx_file_is_the_fastest(write):
    array = read_idx(write(idx(0x08, (2, 1, 3), bytes([1, 2, 3, 253, 254, 255]))))
    np.testing.assert_array_equal(array, [[[1, 2, 3]], [[253, 254, 255]]])
    assert array.dtype == np.uint8
    assert array.flags.writeable


@pytest.mark.parametrize(
    ("kind", "code", "numbers", "dtype"),
    [
        (0x09, "b", [-128, 127], np.int8),
        (0x0B, "h", [-2, 300], np.int16),
        (0x0C, "i", [-2, 70_000], np.int32),
        (0x0D, "f", [-0.5, 3.25], np.float32),
        (0x0E, "d", [-0.1, 1e300], np.float64),
    ],
)
def test_numbers_of_each_kind_have_their_highest_byte_first(kind, code, numbers, dtype, write):
    array = read_idx(write(idx(kind, (2,), struct.pack(f">2{code}", *numbers))))
    assert array.tolist() == numbers
    assert array.dtype == dtype
    assert array.dtype.isnative


@given(hnp.arrays(np.uint8, hnp.array_shapes(max_dims=4)))
def test_an_array_that_was_written_is_read(tmp_path_factory, array):
    file = tmp_path_factory.mktemp("idx") / "images"
    file.write_bytes(idx(0x08, array.shape, array.tobytes()))
    np.testing.assert_array_equal(read_idx(file), array)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x89PNG\r\n", "magic number 89 50 4e 47; expected 00 00, one of 08, 09, "),
        (idx(0x07, (1,), b"\0"), "magic number 00 00 07 01"),
        (b"\0\0\x08\0", "magic number 00 00 08 00"),
        (b"\0\0", "magic number 00 00; expected"),
        (b"\0\0\x08\x03\0\0\0\x01", "is cut off: 8 bytes, but the sizes of 3 axes end at 16"),
        (idx(0x08, (2, 3), b"12345"), r"is cut off: 17 bytes; expected 18 for uint8\[2, 3\]"),
        (idx(0x0C, (2,), bytes(9)), r"is too long: 17 bytes; expected 16 for int32\[2\]"),
    ],
)
def test_what_is_no_idx_file_is_refused(content, message, write):
    with pytest.raises(ValueError, match=message):
        read_idx(write(content))


def write_images(folder: Path, images: bytes, labels: bytes) -> tuple[Path, Path]:
    """An idx file of each."""
    (folder / "images").write_bytes(images)
    (folder / "labels").write_bytes(labels)
    return folder / "images", folder / "labels"


def test_images_are_grey_from_0_to_1_beside_their_labels(tmp_path):
    pixels, numbers = bytes([0, 51, 102, 153, 204, 255]), bytes([2, 0, 1])
    files = write_images(tmp_path, idx(0x08, (3, 1, 2), pixels), idx(0x08, (3,), numbers))
    images, labels = read_labelled_images(*files, classes=3)
    np.testing.assert_allclose(images, [[[0, 0.2]], [[0.4, 0.6]], [[0.8, 1]]], rtol=1e-6)
    assert (images.dtype, labels.dtype) == (np.float32, np.int32)
    assert labels.tolist() == [2, 0, 1]


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (idx(0x08, (2, 3), bytes(6)), idx(0x08, (2,), bytes(2)), r"images holds uint8\[2, 3\]"),
        (idx(0x0D, (1, 1, 1), bytes(4)), idx(0x08, (1,), bytes(1)), r"images holds float32"),
        (idx(0x08, (2, 1, 1), bytes(2)), idx(0x08, (3,), bytes(3)), r"label for each of 2 images"),
        (idx(0x08, (1, 1, 1), bytes(1)), idx(0x0D, (1,), bytes(4)), r"labels holds float32\[1\]"),
        (idx(0x08, (2, 1, 1), bytes(2)), idx(0x08, (2,), b"\1\5"), r"label 2: .* 0 to 4, got 5"),
        (idx(0x08, (1, 1, 1), bytes(1)), idx(0x09, (1,), b"\xff"), r"label 1: .*, got -1"),
    ],
    ids=["shape", "grey", "count", "kind", "large", "negative"],
)
def test_images_and_labels_that_do_not_fit_are_refused(images, labels, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        read_labelled_images(*write_images(tmp_path, images, labels), classes=5)


MNIST = {
    "train-images-idx3-ubyte": idx(0x08, (3, 1, 2), bytes([0, 51, 102, 153, 204, 255])),
    "train-labels-idx1-ubyte": idx(0x08, (3,), bytes([2, 0, 9])),
    "t10k-images-idx3-ubyte": idx(0x08, (2, 1, 2), bytes([255, 0, 51, 0])),
    "t10k-labels-idx1-ubyte": idx(0x08, (2,), bytes([7, 1])),
}


@pytest.fixture
def write_mnist(tmp_path: Path):
    """A folder of tiny parts, where what is given stands in place of a file; None takes it away."""

    def write_mnist(packed: bool = False, **changed: bytes | None) -> Path:
        named = {f"{name.replace('_', '-')}-ubyte": content for name, content in changed.items()}
        for name, content in (MNIST | named).items():
            if content is not None:
                raw = gzip.compress(content) if packed else content
                (tmp_path / f"{name}{'.gz' * packed}").write_bytes(raw)
        return tmp_path

    return write_mnist


@pytest.mark.parametrize("packed", [False, True])
def test_mnist_is_what_to_train_on_and_then_what_to_test_on(packed, write_mnist):
    (grey, digits), (others, their_digits) = read_mnist(str(write_mnist(packed)))
    np.testing.assert_allclose(grey, [[[0, 0.2]], [[0.4, 0.6]], [[0.8, 1]]], rtol=1e-6)
    np.testing.assert_allclose(others, [[[1, 0]], [[0.2, 0]]], rtol=1e-6)
    assert (digits.tolist(), their_digits.tolist()) == ([2, 0, 9], [7, 1])
    assert (grey.dtype, others.dtype, digits.dtype) == (np.float32, np.float32, np.int32)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {
                "train_images_idx3": idx(0x08, (0, 28, 28), b""),
                "train_labels_idx1": idx(0x08, (0,), b""),
            },
            "{0}/train-images-idx3-ubyte{1} holds 0 images of 28 × 28; expected at least one, with "
            "pixels in it",
        ),
        (
            {"t10k_images_idx3": idx(0x08, (2, 0, 28), b"")},
            "{0}/t10k-images-idx3-ubyte{1} holds 2 images of 0 × 28; expected at least one, with "
            "pixels in it",
        ),
        (
            {"t10k_images_idx3": idx(0x08, (2, 2, 1), bytes(4))},
            "{0}/train-images-idx3-ubyte{1} holds images of 1 × 2 but {0}/t10k-images-idx3-ubyte{1} "
            "of 2 × 1; expected one size",
        ),
        (
            {"t10k_labels_idx1": idx(0x08, (2,), bytes([1, 10]))},
            "{0}/t10k-labels-idx1-ubyte{1}, label 2: expected from 0 to 9, got 10",
        ),
    ],
    ids=["no image", "no pixel", "sizes", "label"],
)
@pytest.mark.parametrize("packed", [False, True])
def test_parts_of_mnist_that_do_not_fit_are_refused(packed, changed, message, write_mnist):
    folder = write_mnist(packed, **changed)
    expected = message.format(folder, ".gz" * packed)
    with pytest.raises(ValueError, match=f"^{re.escape(expected)}$"):
        read_mnist(folder)


def test_a_file_of_mnist_that_is_not_there_is_named(write_mnist):
    folder = write_mnist(t10k_labels_idx1=None)
    with pytest.raises(FileNotFoundError, match="t10k-labels-idx1-ubyte does not exist"):
        read_mnist(folder)
