"""A time series from a table of comma-separated values."""

import csv
import math
import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

from seqjax import checks
from seqjax.data.bad_lines import BadLines
from seqjax.data.files import Line, read_lines, stored

OTHER_SIGNS = {";": "semicolons", "\t": "TABs"}


class TimeSeries(NamedTuple):
    """Rows of numbers, one a step of time.

    names: of the columns. dates: of the rows, as they are written; empty where the file has none.
    """

    names: tuple[str, ...]
    values: Float64[np.ndarray, "time columns"]
    dates: tuple[str, ...]


def read_csv(
    path: str | os.PathLike[str],
    columns: Sequence[str] | None = None,
    *,
    dates: str | None = None,
    bad: str = "refuse",
) -> TimeSeries:
    """The columns of a table, each row one step; rows are taken to be equally far apart in time.

    path: UTF-8, packed by gzip or not; where it is not there, the same name with ".gz" after it.
        The first line names the columns. Cells are parted by commas, and may be quoted.
    columns: the names of those to read, in this order, each once; None is all but the dates.
    dates: the name of the column of dates, which are kept as strings and mean nothing to us; None is a
        column called "date", in small letters or large, if there is one.
    bad: what to do with a value that is no number, NaN, or infinite.
        "refuse" raises a ValueError with the file, the line and the column. Time stays as it is.
        "interpolate" puts the straight line between the nearest good values of its column there, and
            the nearest one at either end. Time stays as it is, but the value at a step then tells of a
            later one: a forecast that is scored across such steps is helped.
        "skip" leaves out the whole row. Time closes up over it: what follows comes one step too early,
            and steps are no longer equally far apart.
        The last two log how many of how many. A line with another number of cells, or that is not
        UTF-8, is bad as well; "interpolate" refuses it, as nobody knows which step it was.

    Raises a ValueError too for a header that has numbers for names, repeats one, or lacks one that is
    asked for, for a file without a good row, and FileNotFoundError or IsADirectoryError where there is
    no file.
    """
    checks.one_of("read_csv: bad", bad, ("refuse", "interpolate", "skip"))
    path = stored(path)
    fill = bad == "interpolate"
    rows = BadLines("read_csv", path, "refuse" if fill else bad, unit="rows")
    cells_filled = BadLines(
        "read_csv", path, "skip" if fill else "refuse", unit="values", done="interpolated"
    )
    header, *lines = read_lines(path)
    names = _names(header)
    date = _date_column(header, names, dates)
    chosen = _chosen(header, names, columns, date)
    values, stamps = [], []
    for line in lines:
        with rows:
            cells = _row(line, names)
            row = [math.nan] * len(chosen)
            for k, column in enumerate(chosen):
                with cells_filled:
                    row[k] = _number(line, names[column], cells[column])
            values.append(row)
            stamps += [] if date is None else [cells[date]]
    rows.report()
    if fill:
        cells_filled.report()
    table = np.array(values, np.float64)
    for k, column in enumerate(chosen):
        _interpolate(table[:, k], f"{path}, column {names[column]!r}")
    return TimeSeries(tuple(names[column] for column in chosen), table, tuple(stamps))


def _cells(line: Line) -> list[str]:
    text = line.text
    try:
        cells = next(csv.reader([text], strict=True), [])
    except csv.Error as error:
        if "\r" in text:
            raise line.bad(
                "a carriage return (CR) stands inside the line; expected lines that end with LF or "
                "CR LF: convert the line ends"
            ) from None
        raise line.bad(f"the cells cannot be parted ({error}); expected commas") from None
    return [cell.strip() for cell in cells]


def _row(line: Line, names: list[str]) -> list[str]:
    _refuse_other_signs(line, names)
    cells = _cells(line)
    if len(cells) != len(names):
        expected = f"expected {len(names)} cells, parted by commas"
        if not line.text.strip():
            raise line.bad(f"the line is empty; {expected}")
        raise line.bad(f"{expected}, got {len(cells)}")
    return cells


def _refuse_other_signs(line: Line, names: list[str]) -> None:
    """Refuse a line of a table whose one name shows that something else parts its cells."""
    for sign, word in OTHER_SIGNS.items():
        if len(names) == 1 and sign in names[0] and sign in line.text:
            raise line.bad(f"expected cells parted by commas, got {line.text!r:.60}, with {word}")


def _number(line: Line, name: str, cell: str) -> float:
    try:
        number = float(cell)
    except ValueError:
        number = math.nan
    # Python reads 1_000 as a number, and no table writes it so.
    if not math.isfinite(number) or "_" in cell:
        raise line.bad(f"column {name!r}: expected a finite number, got {cell!r}")
    return number


def _interpolate(column: np.ndarray, name: str) -> None:
    """Fill what is NaN, in place."""
    good = np.isfinite(column)
    if not good.any():
        raise ValueError(f"{name} has no number to interpolate from; expected at least one")
    if not good.all():
        column[~good] = np.interp(np.flatnonzero(~good), np.flatnonzero(good), column[good])


def _names(header: Line) -> list[str]:
    names = _cells(header)
    if not header.text.strip():
        raise header.bad("the line is empty; expected a first line of the columns' names")
    for name in names:
        if _is_number(name):
            raise header.bad(f"{name!r} is a number; expected a first line of the columns' names")
    if len(set(names)) != len(names):
        raise header.bad(f"expected distinct names of columns, got {names!r}")
    return names


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _date_column(header: Line, names: list[str], dates: str | None) -> int | None:
    if dates is not None:
        return _index(header, "read_csv: dates", names, dates)
    found = [i for i, name in enumerate(names) if name.lower() == "date"]
    return found[0] if found else None


def _chosen(
    header: Line, names: list[str], columns: Sequence[str] | None, date: int | None
) -> list[int]:
    if columns is None:
        chosen = [i for i in range(len(names)) if i != date]
        if not chosen:
            raise header.bad(f"expected a column of numbers beside the dates, got {names!r}")
        return chosen
    if isinstance(columns, str):
        raise ValueError(f"read_csv: columns: expected names, such as ({columns!r},), got one")
    if not columns or len(set(columns)) != len(columns):
        raise ValueError(
            f"read_csv: columns: expected one name or more, each once, got {tuple(columns)!r}"
        )
    return [_index(header, "read_csv: columns", names, name) for name in columns]


def _index(header: Line, argument: str, names: list[str], name: str) -> int:
    if name not in names:
        _refuse_other_signs(header, names)
    checks.one_of(argument, name, names)
    return names.index(name)
