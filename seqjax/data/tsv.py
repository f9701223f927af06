"""Labelled sentences: one a line, the label in a column of its own."""

import os

from seqjax import checks
from seqjax.data.bad_lines import BadLines
from seqjax.data.files import Line, read_lines, stored
from seqjax.data.vocabulary import Labels


def read_tsv(
    path: str | os.PathLike[str],
    *,
    sentence: int | str = 0,
    label: int | str = 1,
    header: bool = False,
    columns: int | None = None,
    labels: Labels | None = None,
    bad: str = "refuse",
) -> list[tuple[tuple[str, ...], str]]:
    """(words, label) of each line "sentence TAB label", in their order.

    Words are what stands between white space. Quotes mean nothing: a cell ends at a TAB.

    path: UTF-8, packed by gzip or not; where it is not there, the same name with ".gz" after it.
    sentence, label: the column of each, by number from 0, or by name where the file has a `header`,
        a first line of names.
    columns: how many each line has; None is as many as the header names, or as the two need.
    labels: refuse a label that is not one of these; for parts that are not trained on.
    bad: what to do with an empty sentence, an empty or unknown label, another number of columns, or
        bytes that are not UTF-8. "refuse" raises a ValueError with the file and the line; "skip" leaves
        the line out, and logs how many of how many.

    Raises a ValueError too for a file that is empty or has no good line, and FileNotFoundError or
    IsADirectoryError where there is none.

    As examples: `[Example(vocabulary.encode(words), labels.encode(label)) for words, label in found]`.
    """
    path = stored(path)
    handled = BadLines("read_tsv", path, bad)
    lines = read_lines(path)
    names = _names(lines.pop(0)) if header else None
    at = [
        _column("read_tsv: sentence", sentence, names),
        _column("read_tsv: label", label, names),
    ]
    if columns is None and names is not None:
        columns = len(names)
    width = width_of("read_tsv", columns, at)
    found = []
    for line in lines:
        with handled:
            found.append(_labelled(line, width, at, labels))
    handled.report()
    return found


def _names(header: Line) -> list[str]:
    if not header.text.strip(" "):
        raise header.bad("the line is empty; expected a first line of the columns' names")
    return header.text.split("\t")


def width_of(reader: str, columns: int | None, chosen: list[int]) -> int:
    """How many columns a line has, so that the `chosen` ones are there."""
    needed = max(chosen) + 1
    if columns is None:
        return needed
    checks.positive(f"{reader}: columns", columns)
    if columns < needed:
        raise ValueError(
            f"{reader}: lines have {columns} columns; expected at least {needed}, "
            f"since column {max(chosen)} is asked for, counted from 0"
        )
    return columns


def known(line: Line, label: str, labels: Labels | None) -> str:
    """`label`, one of `labels` where there are any; a `BadLine` where it is none."""
    if labels is None:
        return label
    try:
        labels.encode(label)
    except ValueError as error:
        raise line.bad(str(error)) from None
    return label


def _labelled(
    line: Line, width: int, at: list[int], labels: Labels | None
) -> tuple[tuple[str, ...], str]:
    cells = line.cells(width)
    words, label = tuple(cells[at[0]].split()), cells[at[1]].strip()
    if not words:
        raise line.bad(f"the sentence (column {at[0]}) is empty; expected words")
    if not label:
        raise line.bad(f"the label (column {at[1]}) is empty; expected one")
    return words, known(line, label, labels)


def _column(name: str, column: int | str, names: list[str] | None) -> int:
    """The number of a column."""
    if isinstance(column, str):
        if names is None:
            raise ValueError(f"{name}: {column!r} is a name; expected header=True, or a number")
        if column not in names:
            raise ValueError(f"{name}: expected one of the header's {names!r}, got {column!r}")
        return names.index(column)
    checks.size(name, column)
    return column
