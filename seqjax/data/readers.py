"""Readers of labelled and tagged sentences, of parallel text, and of tables of numbers.

They raise a ValueError for a file that is empty or has no good line, and FileNotFoundError or
IsADirectoryError if there is no such file.
"""

import csv
import itertools
import logging
import math
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64

from seqjax import checks
from seqjax.data.lines import Line, collect, read_lines
from seqjax.data.text import FilePath, stored
from seqjax.data.vocabulary import Labels

logger = logging.getLogger(__name__)

NO_WORD = re.compile(r"\d+[-.]\d+")


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
        path: UTF-8, packed by gzip or not; if only `path` + ".gz" exists, it is read.
        sentence: the column of the sentence, by number from 0, or by name if there is a header.
        label: the column of the label, likewise.
        header: whether the first line names the columns.
        columns: how many a line has; None is as many as the header names, or as the two need.
        labels: the known labels, for parts that are not trained on.
        bad: what to do with an empty sentence, an empty or unknown label, another number of columns, or
            bytes that are not UTF-8. "refuse" raises a ValueError with the file and the line; "skip"
            leaves the line out and logs how many of how many.

    As examples: `[Example(vocabulary.encode(words), labels.encode(label)) for words, label in found]`.
    """
    path = stored(path)
    lines = read_lines(path)
    names = lines.pop(0).header().split("\t") if header else None
    at = [
        _column(f"read_tsv: {n}", c, names) for n, c in (("sentence", sentence), ("label", label))
    ]
    width = _width("read_tsv", len(names) if names and columns is None else columns, at)

    def read(line: Line) -> tuple[tuple[str, ...], str]:
        cells = line.check(line.text.split("\t"), width, "TAB")
        words, label = tuple(cells[at[0]].split()), cells[at[1]]
        if not words:
            raise line.bad(f"the sentence (column {at[0]}) is empty; expected words")
        return words, _known(line, f"the label (column {at[1]})", label, labels)

    return collect("read_tsv", path, lines, read, bad)


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
    """Read (words, tags) of each sentence, one word a line "FORM TAB TAG", as CoNLL files have them.

    A sentence ends at an empty line or at the end of the file. A form may hold spaces. A line that
    begins with "#" is a comment; without an `id`, "#" may be a word, so only a line without TAB is a
    comment, and their number is logged.

    Args:
        path: UTF-8, packed by gzip or not; if only `path` + ".gz" exists, it is read.
        form: the column of the words, by number from 0.
        tag: the column of the tags.
        id: the column that numbers the words, if there is one. Lines with an id such as 1-2 (a range of
            words) or 8.1 (an empty node) are not words and are left out.
        columns: how many a line has; None is as many as the others need.
        labels: the known tags, for parts that are not trained on.
        bad: what to do with an empty form, an empty or unknown tag, another number of columns, or bytes
            that are not UTF-8, as in `read_tsv`; "skip" leaves out the whole sentence, since without one
            word it would be another.

    Files of Universal Dependencies: `read_columns(path, id=0, form=1, tag=3, columns=10)`.
    As examples: `[Example(vocabulary.encode(words), [labels.encode(tag) for tag in tags]) …]`.
    """
    path = stored(path)
    named = (("form", form), ("tag", tag), *([] if id is None else [("id", id)]))
    at = [_column(f"read_columns: {name}", column, None) for name, column in named]
    width = _width("read_columns", columns, at)
    is_comment = lambda line: line.raw.startswith(b"#") and not (id is None and b"\t" in line.raw)
    lines = read_lines(path)
    comments = [line for line in lines if is_comment(line)]
    if comments and id is None:
        # A hashtag that lost its tag would be taken for a comment, and nothing else would show it.
        message = '%s: took %d of %d lines for comments ("#", and no TAB); the first: line %d'
        logger.warning(message, path, len(comments), len(lines), comments[0].number)

    def tagged(line: Line) -> tuple[str, str] | None:
        cells = line.check(line.text.split("\t"), width, "TAB")
        form, tag, *rest = (cells[column] for column in at)
        if rest and NO_WORD.fullmatch(rest[0]):
            return None
        if rest and not rest[0].isdecimal():
            raise line.bad(f"the id is {rest[0]!r}; expected one such as 3, 1-2 or 8.1")
        if not form:
            raise line.bad(f"the form (column {at[0]}) is empty; expected a word")
        return form, _known(line, f"the tag (column {at[1]})", tag, labels)

    def read(sentence: list[Line]) -> Any:
        pairs = [pair for pair in map(tagged, sentence) if pair is not None]
        if not pairs:
            raise sentence[0].bad("the sentence that begins here has no word")
        return tuple(zip(*pairs, strict=True))

    blocks = itertools.groupby(lines, key=lambda line: not line.raw.strip())
    sentences = [[x for x in block if not is_comment(x)] for empty, block in blocks if not empty]
    return collect("read_columns", path, [*filter(None, sentences)], read, bad, unit="sentences")


def read_parallel(
    source: FilePath, target: FilePath, *, bad: str = "refuse"
) -> list[tuple[str, str]]:
    """Read (source, target) of each pair of lines, without white space at their ends.

    Args:
        source: one sentence a line, UTF-8, packed by gzip or not; if only `source` + ".gz" exists, it is
            read.
        target: a file whose line i translates line i of `source`.
        bad: what to do with a pair in which a line is empty or not UTF-8, as in `read_tsv`.

    Raises a ValueError too for files of unequal numbers of lines, for any `bad`.

    As examples, once cut into tokens:
    `Example(source.encode(words, stop=True), target.encode(others, start=True, stop=True))`.
    """
    source, target = stored(source), stored(target)
    left, right = read_lines(source), read_lines(target)
    if len(left) != len(right):
        raise ValueError(
            f"read_parallel: {source} has {len(left)} lines but {target} has {len(right)}; "
            "expected equal numbers, line i of one beside line i of the other"
        )

    def sentence(line: Line) -> str:
        if not (text := line.text.strip()):
            raise line.bad("the line is empty; expected a sentence")
        return text

    pairs = list(zip(left, right, strict=True))
    read = lambda pair: (sentence(pair[0]), sentence(pair[1]))
    return collect("read_parallel", source, pairs, read, bad, unit="pairs")


class TimeSeries(NamedTuple):
    """Rows of numbers, one per step of time.

    names: of the columns. dates: of the rows, as they are written; empty if the file has none.
    """

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

    Args:
        path: UTF-8, packed by gzip or not; if only `path` + ".gz" exists, it is read. The first line
            names the columns. Cells are separated by commas, and may be quoted.
        columns: the names of those to read, in this order, each once; None is all but the dates.
        dates: the column of dates, which are kept as strings and not interpreted; None is a column
            called "date", in upper or lower case, if there is one.
        bad: what to do with a value that is not a number, NaN, or infinite. "refuse" raises a ValueError
            with the file, the line and the column. "interpolate" replaces it by linear interpolation
            between the nearest good values of its column, and by the nearest one at either end; the
            value then depends on a later one, which helps a forecast that is scored there. "skip" leaves
            out the row, so steps are no longer equally far apart. The last two log how many of how many.
            A line with another number of cells, or that is not UTF-8, is skipped or raises an error.

    Raises a ValueError too for a header that has numbers for names, repeats a name, or lacks one of
    `columns`, for a file without a good row, and FileNotFoundError or IsADirectoryError if there is no
    such file.
    """
    checks.one_of("read_csv: bad", bad, ("refuse", "interpolate", "skip"))
    path = stored(path)
    header, *lines = read_lines(path)
    names = _names(header)
    dated = [i for i, name in enumerate(names) if name.lower() == "date"][:1]
    if dates is not None:
        checks.one_of("read_csv: dates", dates, names)
        dated = [names.index(dates)]
    chosen = _chosen(header, names, columns, dated)
    number = lambda cell: _number(*cell)

    def row(line: Line) -> tuple[list[tuple[Line, str, str]], list[str]]:
        cells = line.check(_cells(line), len(names), "commas")
        return [(line, names[c], cells[c]) for c in chosen], [cells[c] for c in dated]

    def numbers(line: Line) -> tuple[list[float], list[str]]:
        cells, dates = row(line)
        return [number(cell) for cell in cells], dates

    if bad == "interpolate":
        rows = collect("read_csv", path, lines, row, "refuse", unit="rows")
        cells = [cell for row, _ in rows for cell in row]
        fill = {"done": "interpolated", "fill": math.nan}
        values = collect("read_csv", path, cells, number, "skip", unit="values", **fill)
    else:
        rows = collect("read_csv", path, lines, numbers, bad, unit="rows")
        values = [row for row, _ in rows]
    table = np.array(values, np.float64).reshape(len(rows), len(chosen))
    for k, c in enumerate(chosen):
        good = np.isfinite(table[:, k])
        if not good.any():
            raise ValueError(
                f"{path}, column {names[c]!r} has no number to interpolate from; expected at least one"
            )
        at = np.flatnonzero(good)
        table[~good, k] = np.interp(np.flatnonzero(~good), at, table[good, k])
    return TimeSeries(
        tuple(names[c] for c in chosen), table, tuple(d for _, ds in rows for d in ds)
    )


def _cells(line: Line) -> list[str]:
    try:
        return next(csv.reader([line.text], strict=True), [])
    except csv.Error as error:
        raise line.bad(
            f"the cells cannot be separated ({error}); expected commas, and lines that end with LF"
        ) from None


def _names(header: Line) -> list[str]:
    header.header()
    names = [name.strip() for name in _cells(header)]
    for name in names:
        if _parsed(name) is not None:
            raise header.bad(f"{name!r} is a number; expected a first line of the columns' names")
    if len(set(names)) != len(names):
        raise header.bad(f"expected distinct names of columns, got {names!r}")
    return names


def _chosen(
    header: Line, names: list[str], columns: Sequence[str] | None, dated: list[int]
) -> list[int]:
    """Return the numbers of the columns to read."""
    if columns is None:
        chosen = [i for i in range(len(names)) if i not in dated]
        if not chosen:
            raise header.bad(f"expected a column of numbers beside the dates, got {names!r}")
        return chosen
    if isinstance(columns, str):
        raise ValueError(f"read_csv: columns: expected names, such as ({columns!r},), got one")
    if not columns or len(set(columns)) != len(columns):
        raise ValueError(
            f"read_csv: columns: expected one name or more, each once, got {tuple(columns)!r}"
        )
    for name in columns:
        checks.one_of("read_csv: columns", name, names)
    return [names.index(name) for name in columns]


def _number(line: Line, name: str, cell: str) -> float:
    number = _parsed(cell)
    # Python reads 1_000 as a number, and no table writes it so.
    if number is None or not math.isfinite(number) or "_" in cell:
        raise line.bad(f"column {name!r}: expected a finite number, got {cell!r}")
    return number


def _parsed(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None


def _column(name: str, column: int | str, names: list[str] | None) -> int:
    """Return the number of a column that is given by number or by name."""
    if not isinstance(column, str):
        checks.size(name, column)
        return column
    if names is None:
        raise ValueError(f"{name}: {column!r} is a name; expected header=True, or a number")
    if column not in names:
        raise ValueError(f"{name}: expected one of the header's {names!r}, got {column!r}")
    return names.index(column)


def _width(name: str, columns: int | None, chosen: list[int]) -> int:
    """Return how many columns a line has, enough for the chosen ones."""
    needed = max(chosen) + 1
    columns = needed if columns is None else columns
    checks.positive(f"{name}: columns", columns)
    if columns < needed:
        raise ValueError(
            f"{name}: lines have {columns} columns; expected at least {needed}, "
            f"since column {max(chosen)} is asked for, counted from 0"
        )
    return columns


def _known(line: Line, what: str, label: str, labels: Labels | None) -> str:
    """Return `label` if it is not empty and one of `labels`, where there are any."""
    if not label:
        raise line.bad(f"{what} is empty; expected one")
    try:
        if labels is not None:
            labels.encode(label)
    except ValueError as error:
        raise line.bad(str(error)) from None
    return label
