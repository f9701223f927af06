"""Readers of sentences, tables, images and music, and a writer of MIDI files.

They share these arguments:

    path: a file in UTF-8, packed by gzip or not; if only `path` + ".gz" exists, it is read.
    bad: what to do with an item that cannot be read. "refuse" raises a ValueError with the file and the
        line; "skip" leaves the item out and logs how many of how many, and the first.
    labels: the known `Labels`, for parts that are not trained on; another label cannot be read.

They raise FileNotFoundError or IsADirectoryError if there is no such file, and a ValueError for a file
that is empty, damaged, or without an item that can be read.
"""

import csv
import itertools
import json
import logging
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
from jaxtyping import Bool, Float, Float64, Int, Int32

from seqjax import checks
from seqjax.data.text import FilePath, Line, read_lines, read_text, stored, unpacked
from seqjax.data.vocabulary import Labels

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Found = TypeVar("Found")

NO_WORD = re.compile(r"\d+[-.]\d+")
DTYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
LOWEST, HIGHEST, SILENT = 21, 108, -1  # MIDI numbers of the keys of a piano, A0 to C8
KEYS = HIGHEST - LOWEST + 1
TICKS = 480  # per step: the usual resolution of a quarter note in sequencers
VELOCITY = 80  # of 127: mezzo forte
SLOWEST, FASTEST = 4, 6000  # steps a minute: the file holds the microseconds of one in 24 bits


def collect(
    name: str,
    path: str,
    items: Sequence[Item],
    read: Callable[[Item], Found],
    bad: str,
    unit: str = "lines",
) -> list[Found]:
    """Return `read(item)` of each item; with "skip" for `bad`, leave out and count ValueErrors.

    name: the reader, for errors. unit: what the items are called in errors and in the log.

    >>> collect("read_numbers", "numbers.txt", ["1", "x", "3"], int, "skip")
    [1, 3]
    """
    checks.one_of(f"{name}: bad", bad, ("refuse", "skip"))
    if not items:
        raise ValueError(f"{path} holds no {unit}; expected at least one")
    found, wrong = [], []
    for item in items:
        try:
            found.append(read(item))
        except ValueError as error:
            if bad == "refuse":
                raise
            wrong.append(str(error))
    if not found:
        raise ValueError(
            f"{path}: none of the {len(items)} {unit} can be read; the first: {wrong[0]}"
        )
    if wrong:
        message = "%s: skipped %d of %d %s; the first: %s"
        logger.warning(message, path, len(wrong), len(items), unit, wrong[0])
    return found


# Sentences


def read_tsv(
    path: FilePath,
    *,
    sentence: int | str = 0,
    label: int | str = 1,
    header: bool = False,
    columns: int | None = None,
    labels: Labels | None = None,
    bad: str = "refuse",
) -> list[tuple[tuple[str, ...], str]]:
    """Read (words, label) of each line "sentence TAB label".

    Words are separated by white space. Quotes have no meaning: a cell ends at a TAB.

    Args:
        path: see `seqjax.data.readers`.
        sentence: the column of the sentence, by number from 0, or by name if there is a header.
        label: the column of the label, likewise.
        header: whether the first line names the columns.
        columns: how many a line has; None is as many as the header names, or as the two need.
        labels: the known labels.
        bad: "refuse" or "skip".

    As examples: `[Example(vocabulary.encode(words), labels.encode(label)) for words, label in found]`.
    """
    lines = read_lines(path)
    names = lines.pop(0).parse(lambda text: _cells(text, "\t")) if header else None
    cut = _cutter("read_tsv", {"sentence": sentence, "label": label}, names, columns)

    def read(text: str) -> tuple[tuple[str, ...], str]:
        words, label = cut(text)
        if labels is not None:
            labels.encode(label)
        return tuple(words.split()), label

    return collect("read_tsv", stored(path), lines, lambda line: line.parse(read), bad)


def read_columns(
    path: FilePath,
    *,
    form: int = 0,
    tag: int = 1,
    id: int | None = None,
    columns: int | None = None,
    labels: Labels | None = None,
    bad: str = "refuse",
) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Read (words, tags) of each sentence of a CoNLL file, one word "FORM TAB TAG" a line.

    A sentence ends at an empty line or at the end of the file. A form may hold spaces. A line that
    begins with "#" is a comment; without an `id`, "#" may be a word, so only a line without TAB is a
    comment, and their number is logged.

    Args:
        path: see `seqjax.data.readers`.
        form: the column of the words, by number from 0.
        tag: the column of the tags.
        id: the column that numbers the words, if there is one. Lines with an id such as 1-2 (a range of
            words) or 8.1 (an empty node) are not words and are left out.
        columns: how many a line has; None is as many as the others need.
        labels: the known tags.
        bad: "refuse" or "skip", which leaves out the whole sentence of a bad word.

    Files of Universal Dependencies: `read_columns(path, id=0, form=1, tag=3, columns=10)`.
    As examples: `[Example(vocabulary.encode(words), [labels.encode(tag) for tag in tags]) …]`.
    """
    wanted = {"form": form, "tag": tag} | ({} if id is None else {"id": id})
    cut = _cutter("read_columns", wanted, None, columns)
    lines = read_lines(path)
    hashed = [line for line in lines if line.raw.startswith(b"#")]
    comments = {line.number for line in hashed if id is not None or b"\t" not in line.raw}
    if comments and id is None:
        # A hashtag that lost its tag would be taken for a comment, and nothing else would show it.
        message = '%s: took %d of %d lines for comments ("#", and no TAB); the first: line %d'
        logger.warning(message, stored(path), len(comments), len(lines), min(comments))

    def word(text: str) -> tuple[str, str] | None:
        form, tag, *number = cut(text)
        if number and NO_WORD.fullmatch(number[0]):
            return None
        if number and not number[0].isdecimal():
            raise ValueError(f"the id is {number[0]!r}; expected one such as 3, 1-2 or 8.1")
        if labels is not None:
            labels.encode(tag)
        return form, tag

    def sentence(lines: list[Line]) -> Any:
        pairs = [pair for line in lines if (pair := line.parse(word))]
        if not pairs:
            place = f"{lines[0].path}, line {lines[0].number}"
            raise ValueError(f"{place}: the sentence that begins here has no word")
        return tuple(zip(*pairs, strict=True))

    blocks = itertools.groupby(lines, key=lambda line: not line.raw.strip())
    found = [[x for x in block if x.number not in comments] for e, block in blocks if not e]
    return collect("read_columns", stored(path), [*filter(None, found)], sentence, bad, "sentences")


def read_parallel(
    source: FilePath, target: FilePath, *, bad: str = "refuse"
) -> list[tuple[str, str]]:
    """Read (source, target) of each pair of lines, without white space at their ends.

    source, target, bad: see `seqjax.data.readers`. Line i of `target` translates line i of `source`. An
    empty line cannot be read. Unequal numbers of lines raise a ValueError for any `bad`.

    As examples, once cut into tokens:
    `Example(source.encode(words, stop=True), target.encode(others, start=True, stop=True))`.
    """
    left, right = read_lines(source), read_lines(target)
    if len(left) != len(right):
        raise ValueError(
            f"read_parallel: {stored(source)} has {len(left)} lines but {stored(target)} has "
            f"{len(right)}; expected equal numbers, line i of one beside line i of the other"
        )

    def sentence(text: str) -> str:
        if not text.strip():
            raise ValueError("the line is empty; expected a sentence")
        return text.strip()

    read = lambda pair: (pair[0].parse(sentence), pair[1].parse(sentence))
    pairs = list(zip(left, right, strict=True))
    return collect("read_parallel", stored(source), pairs, read, bad, "pairs")


def _cells(text: str, separator: str, columns: int | None = None) -> list[str]:
    """Cut a line into cells, without white space at their ends: `columns` of them, or names."""
    try:
        row = next(csv.reader([text], strict=True), []) if separator == "," else text.split("\t")
    except csv.Error as error:
        raise ValueError(f"{error}; expected commas, and lines that end with LF") from None
    if columns is None and not text.strip():
        raise ValueError("expected a first line with the names of the columns, got an empty line")
    if columns not in (None, len(row)):
        came = f"{len(row)} in {text!r:.60}" if text.strip(" ") else "an empty line"
        raise ValueError(f"expected {columns} columns, separated by {separator!r}, got {came}")
    return [cell.strip() for cell in row]


def _cutter(
    name: str, wanted: Mapping[str, int | str], names: list[str] | None, columns: int | None
) -> Callable[[str], list[str]]:
    """Return a function that cuts a line at its TABs and returns the `wanted` cells, none empty."""
    at: dict[str, int] = {}
    for argument, column in wanted.items():
        if isinstance(column, str):
            if names is None:
                raise ValueError(
                    f"{name}: {argument}: {column!r} is a name; expected header=True, or a number"
                )
            checks.one_of(f"{name}: {argument}", column, names)
            column = names.index(column)
        checks.size(f"{name}: {argument}", column)
        at[argument] = column
    needed = max(at.values()) + 1
    width = columns if columns is not None else len(names) if names else needed
    if width < needed:
        raise ValueError(
            f"{name}: lines have {width} columns; expected at least {needed}, "
            f"as column {needed - 1} is asked for, counted from 0"
        )

    def cut(text: str) -> list[str]:
        cells = _cells(text, "\t", width)
        for argument, column in at.items():
            if not cells[column]:
                raise ValueError(f"the {argument} (column {column}) is empty; expected one")
        return [cells[column] for column in at.values()]

    return cut


# Tables of numbers


class TimeSeries(NamedTuple):
    """Rows of numbers, one per step, the names of the columns, and the dates if the file has any."""

    names: tuple[str, ...]
    values: Float64[np.ndarray, "time columns"]
    dates: tuple[str, ...]


def read_csv(
    path: FilePath,
    columns: Sequence[str] | None = None,
    *,
    dates: str | None = None,
    bad: str = "refuse",
) -> TimeSeries:
    """Read columns of a table, each row one step; rows are taken to be equally far apart in time.

    The first line names the columns. Cells are separated by commas, and may be quoted.

    Args:
        path: see `seqjax.data.readers`.
        columns: the names of those to read, in this order, each once; None is all but the dates.
        dates: the column of dates, which are kept as strings and not interpreted; None is a column
            called "date", in upper or lower case, if there is one.
        bad: what to do with a row whose value is not a number, NaN, or infinite: "refuse", "skip" (steps
            are then no longer equally far apart), or "interpolate", which takes a line between the
            nearest good values of the column, the nearest one at either end, and logs how many. The
            value then depends on a later one, which helps a forecast that is scored there.

    Raises a ValueError too for a header that repeats a name, or has numbers for names.
    """
    checks.one_of("read_csv: bad", bad, ("refuse", "interpolate", "skip"))
    header, *lines = read_lines(path)
    names = header.parse(lambda text: _cells(text, ","))
    if len(set(names)) != len(names) or not all(math.isnan(_number(name)) for name in names):
        raise ValueError(
            f"{header.path}, line 1: expected distinct names of columns, and no numbers, got {names!r}"
        )
    if dates is not None:
        checks.one_of("read_csv: dates", dates, names)
    dated = [n for n in names if (n.lower() == "date" if dates is None else n == dates)][:1]
    chosen = [name for name in names if name not in dated] if columns is None else columns
    if isinstance(chosen, str) or not chosen or len(set(chosen)) != len(chosen):
        raise ValueError(
            f"read_csv: columns: expected names of columns of numbers, each once, got {chosen!r}"
        )
    for name in chosen:
        checks.one_of("read_csv: columns", name, names)

    def row(text: str) -> tuple[list[float], list[str]]:
        cells = dict(zip(names, _cells(text, ",", len(names)), strict=True))
        values = [_number(cells[name]) for name in chosen]
        for name, value in zip(chosen, values, strict=True):
            if math.isnan(value) and bad != "interpolate":
                raise ValueError(f"column {name!r}: expected a finite number, got {cells[name]!r}")
        return values, [cells[name] for name in dated]

    mode = "refuse" if bad == "interpolate" else bad
    rows = collect("read_csv", header.path, lines, lambda line: line.parse(row), mode, "rows")
    table = np.array([values for values, _ in rows], np.float64)
    missing = np.isnan(table)
    for name, values, hole in zip(chosen, table.T, missing.T, strict=True):
        if hole.all():
            raise ValueError(
                f"{header.path}, column {name!r}: expected a number to interpolate from"
            )
        values[hole] = np.interp(np.flatnonzero(hole), np.flatnonzero(~hole), values[~hole])
    if missing.any():
        first, column = np.argwhere(missing)[0]
        message = "%s: interpolated %d of %d values; the first: line %d, column %r"
        where = lines[first].number, chosen[column]
        logger.warning(message, header.path, missing.sum(), missing.size, *where)
    return TimeSeries(tuple(chosen), table, tuple(date for _, found in rows for date in found))


def _number(cell: str) -> float:
    """Return the number in a cell, or NaN if it holds no finite number."""
    try:
        number = float(cell)
    except ValueError:
        return math.nan
    # Python reads 1_000 as a number, and no table writes it so.
    return number if math.isfinite(number) and "_" not in cell else math.nan


# Images


def read_idx(path: FilePath) -> npt.NDArray[np.generic]:
    """Read the array of an idx file, packed by gzip or not, in its shape and dtype.

    The file is: two bytes 0, one for the dtype, one for the number of axes; the size of each axis in
    four bytes; the numbers, the last axis fastest. All are big-endian. See `seqjax.data.readers` for the
    path and the errors; another length than the axes say is one.
    Reference: LeCun, Cortes, Burges, the MNIST database.
    """
    raw = unpacked(path)
    if len(raw) < 4 or raw[:2] != b"\0\0" or raw[2] not in DTYPES or not raw[3]:
        kinds = ", ".join(f"{kind:02x}" for kind in DTYPES)
        raise ValueError(
            f"{stored(path)} has the magic number {raw[:4].hex(' ')}; expected 00 00, one of {kinds}, "
            "and the number of axes, as idx files begin"
        )
    dtype, start = np.dtype(DTYPES[raw[2]]), 4 + 4 * raw[3]
    # A file that ends before the numbers begin is too short with any sizes.
    shape = np.frombuffer(raw[4:start].ljust(start - 4, b"\0"), ">u4").tolist()
    expected = start + math.prod(shape) * dtype.itemsize
    if len(raw) != expected:
        raise ValueError(
            f"{stored(path)} is cut off or too long: it has {len(raw)} bytes; expected {expected} "
            f"for {dtype.name}{shape}"
        )
    return np.frombuffer(raw, dtype, offset=start).reshape(shape).astype(dtype.newbyteorder("="))


def read_labelled_images(
    images: FilePath, labels: FilePath, *, classes: int = 10
) -> tuple[Float[np.ndarray, "images rows columns"], Int[np.ndarray, " images"]]:
    """Read grey values from 0 to 1, and a class for each image, from an idx file of each.

    Raises the errors of `read_idx`, and a ValueError if the images are not bytes in rows and columns,
    and for another number of labels or a label outside [0, classes).
    """
    grey, found = read_idx(images), read_idx(labels)
    if grey.ndim != 3 or grey.dtype != np.uint8:
        raise ValueError(
            f"{stored(images)} holds {grey.dtype}{list(grey.shape)}; "
            "expected images, uint8[images, rows, columns]"
        )
    if found.shape != grey.shape[:1] or not np.issubdtype(found.dtype, np.integer):
        raise ValueError(
            f"{stored(labels)} holds {found.dtype}{list(found.shape)}; "
            f"expected a label for each of {len(grey)} images"
        )
    found = found.astype(np.int32)
    wrong = np.flatnonzero((found < 0) | (found >= classes))
    if wrong.size:
        raise ValueError(
            f"{stored(labels)}, label {wrong[0] + 1}: expected from 0 to {classes - 1}, "
            f"got {found[wrong[0]]}"
        )
    return grey.astype(np.float32) / 255, found


def read_mnist(
    folder: FilePath,
) -> tuple[
    tuple[Float[np.ndarray, "train rows columns"], Int[np.ndarray, " train"]],
    tuple[Float[np.ndarray, "test rows columns"], Int[np.ndarray, " test"]],
]:
    """Read ((images, digits), (images, digits)) of MNIST, for training and for testing.

    `folder` holds train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and
    t10k-labels-idx1-ubyte, or the same names with ".gz" appended. Grey values are from 0 to 1.

    Raises the errors of `read_labelled_images`, and a ValueError for no images or different sizes.
    """
    found = []
    for part in ("train", "t10k"):
        file = Path(folder, f"{part}-images-idx3-ubyte")
        found.append(read_labelled_images(file, Path(folder, f"{part}-labels-idx1-ubyte")))
        images = found[-1][0]
        if not images.size or images.shape[1:] != found[0][0].shape[1:]:
            raise ValueError(
                f"{stored(file)} holds images {list(images.shape)}; expected at least one, with pixels "
                "in it, of one size in both parts"
            )
    return found[0], found[1]


# Music


def read_piano_rolls(
    path: FilePath, *, bad: str = "refuse"
) -> dict[str, list[Bool[np.ndarray, "_time 88"]]]:
    """Read {part: pieces}; True where key k sounds at a step. Key k is MIDI note 21 + k.

    path, bad: see `seqjax.data.readers`. The file is JSON: {"train": [piece, …], "valid": …}. A piece is
    a list of steps, at least one; a step is the list of the notes that sound, [] for silence.

    To predict each step from those before: `Example(roll[:-1], roll[1:])`.
    Reference: Boulanger-Lewandowski, Bengio, Vincent 2012.
    """

    def roll(piece: list[list[int]]) -> np.ndarray:
        keys = np.zeros((len(piece), KEYS), bool)
        for t, step in enumerate(piece):
            keys[t, np.array(step, int) - LOWEST] = True
        return keys

    return _pieces("read_piano_rolls", path, bad, roll, None)


def read_voices(
    path: FilePath, *, voices: int = 4, bad: str = "refuse"
) -> dict[str, list[Int32[np.ndarray, "_time voices"]]]:
    """Read {part: pieces}, the MIDI note of each voice at each step; -1 where the voice is silent.

    The file is as for `read_piano_rolls`, but a step has one note for each of `voices`, in a fixed
    order: soprano, alto, tenor, bass for the chorales.
    """
    checks.positive("read_voices: voices", voices)
    return _pieces("read_voices", path, bad, lambda piece: np.array(piece, np.int32), voices)


def _pieces(
    name: str, path: FilePath, bad: str, read: Callable[[Any], np.ndarray], voices: int | None
) -> dict[str, list[np.ndarray]]:
    """Read the pieces of each part; only `voices` may be silent."""
    path = stored(path)
    try:
        parts = json.loads(read_text(path))
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON ({error}); expected {{part: pieces}}") from None
    if not isinstance(parts, dict) or not all(isinstance(p, list) for p in parts.values()):
        raise ValueError(
            f'{path}: expected a JSON object of lists of pieces, such as {{"train": [[[60, 64], [62]]]}}'
        )
    expected = f"MIDI notes in {LOWEST} … {HIGHEST}"
    allowed = set(range(LOWEST, HIGHEST + 1))
    if voices is not None:
        expected = f"{voices} {expected} or {SILENT} for silence"
        allowed.add(SILENT)

    def piece(item: tuple[str, int, Any]) -> tuple[str, np.ndarray]:
        part, number, steps = item
        place = f"{path}, {part}[{number}]"
        if not isinstance(steps, list) or not steps:
            raise ValueError(f"{place}: expected a list of steps, got {steps!r:.60}")
        for t, step in enumerate(steps):
            notes = isinstance(step, list) and all(type(n) is int and n in allowed for n in step)
            if not notes or voices not in (None, len(step)):
                place = f"{place}, step {t} (both counted from 0)"
                raise ValueError(f"{place}: expected a list of {expected}, got {step!r:.60}")
        return part, read(steps)

    items = [(part, i, steps) for part in parts for i, steps in enumerate(parts[part])]
    found = collect(name, path, items, piece, bad, "pieces")
    return {part: [steps for p, steps in found if p == part] for part in parts}


def write_midi(path: FilePath, roll: npt.ArrayLike, *, tempo: float = 90.0) -> None:
    """Write a piano roll as a Standard MIDI File of format 0, one track of a piano.

    Args:
        path: the file to write.
        roll: [time, 88] of bool, or of 0 and 1; key k is MIDI note 21 + k, as in `read_piano_rolls`. A
            key that sounds at neighbouring steps is one held note, since a roll does not say where it is
            struck again. Silence at the end is kept.
        tempo: steps a minute, from 4 (the slowest that the format can hold) to 6000; a step is a quarter
            note in the file.

    Needs the `mido` package: pip install 'seqjax[music]'.
    Reference: MIDI Manufacturers Association, Standard MIDI Files 1.0.

    """
    keys = np.asarray(roll)
    if keys.ndim != 2 or keys.shape[1] != KEYS or not np.isin(keys, (0, 1)).all():
        raise ValueError(
            f"write_midi: roll is {keys.dtype}{list(keys.shape)}; expected [time, {KEYS}] of 0 and 1"
        )
    if not checks.is_number(tempo) or not SLOWEST <= tempo <= FASTEST:
        raise ValueError(
            f"write_midi: tempo: expected {SLOWEST} to {FASTEST} steps a minute, got {tempo!r}"
        )
    mido = checks.package("write_midi", "mido", "music")
    changes = np.diff(np.pad(keys.astype(np.int8), ((1, 1), (0, 0))), axis=0)
    steps, found = np.nonzero(changes)
    order = np.lexsort((found, changes[steps, found], steps))  # notes end before others begin
    track = mido.MidiTrack([mido.MetaMessage("set_tempo", tempo=mido.bpm2tempo(tempo))])
    now = 0  # a message holds the ticks since the one before
    for t, key in zip(steps[order].tolist(), found[order].tolist(), strict=True):
        kind, wait = "note_on" if changes[t, key] > 0 else "note_off", TICKS * (t - now)
        track.append(mido.Message(kind, note=LOWEST + key, velocity=VELOCITY, time=wait))
        now = t
    track.append(mido.MetaMessage("end_of_track", time=TICKS * (len(keys) - now)))
    mido.MidiFile(type=0, ticks_per_beat=TICKS, tracks=[track]).save(os.fspath(path))
