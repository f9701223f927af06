"""Lines of a file with their numbers, and the loop of every reader, which skips and counts bad lines."""

import logging
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

from seqjax import checks
from seqjax.data.text import FilePath, stored, unmarked

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Found = TypeVar("Found")


class BadLine(ValueError):
    """Names the file and the line, what is wrong there, and what was expected."""


class Line(NamedTuple):
    """One line of a file, without its end; numbers count from 1."""

    path: str
    number: int
    raw: bytes

    @property
    def text(self) -> str:
        """The line as text. Raises a `BadLine` if it is not UTF-8."""
        try:
            return self.raw.decode("utf-8")
        except UnicodeDecodeError as error:
            byte = self.raw[error.start]
            raise self.bad(
                f"byte 0x{byte:02x} at offset {error.start} of the line is not UTF-8; "
                "expected a file in UTF-8: convert it"
            ) from None

    def bad(self, reason: str) -> BadLine:
        """Return the error to raise if the line cannot be read."""
        return BadLine(f"{self.path}, line {self.number}: {reason}")

    def check(self, cells: list[str], columns: int, separator: str) -> list[str]:
        """Return the cells of the line, without white space at their ends, if there are `columns`."""
        if len(cells) != columns:
            came = f"{len(cells)} in {self.text!r:.60}" if self.text.strip(" ") else "an empty line"
            raise self.bad(f"expected {columns} columns, separated by {separator}, got {came}")
        return [cell.strip() for cell in cells]

    def header(self) -> str:
        """Return the text of a first line with the names of the columns."""
        if not self.text.strip():
            raise self.bad("the line is empty; expected a first line with the names of the columns")
        return self.text


def read_lines(path: FilePath) -> list[Line]:
    r"""Read the lines of a file, at least one, cut at "\n" or "\r\n" alone."""
    # Other line ends of Unicode, such as U+2028, occur inside sentences.
    name, raws = stored(path), unmarked(path).split(b"\n")
    if not raws[-1]:
        raws.pop()
    return [Line(name, n, raw.removesuffix(b"\r")) for n, raw in enumerate(raws, start=1)]


def collect(
    name: str,
    path: str,
    items: Sequence[Item],
    read: Callable[[Item], Found],
    bad: str,
    *,
    unit: str = "lines",
    done: str = "skipped",
    fill: Found | None = None,
) -> list[Found]:
    """Return `read(item)` of each item, and skip and count those that raise a `BadLine`.

    Args:
        name: the reader, for errors about its arguments.
        path: the file that the items come from.
        items: lines, or what else a file is made of.
        read: converts one item, or raises a `BadLine`.
        bad: "refuse" lets the `BadLine` out, "skip" leaves the item out.
        unit: what the items are called in the log.
        done: what is done with a bad item, for the log.
        fill: the value for a bad item that is skipped; None leaves it out.

    >>> lines = [Line("numbers.txt", n, raw) for n, raw in enumerate([b"1", b"x", b"3"], start=1)]
    >>> def number(line):
    ...     if not line.text.isdecimal():
    ...         raise line.bad(f"expected a number, got {line.text!r}")
    ...     return int(line.text)
    >>> collect("read_numbers", "numbers.txt", lines, number, "skip")
    [1, 3]
    """
    checks.one_of(f"{name}: bad", bad, ("refuse", "skip"))
    found, count, first = [], 0, None
    for item in items:
        try:
            found.append(read(item))
        except BadLine as error:
            if bad == "refuse":
                raise
            count, first = count + 1, first or str(error)
            if fill is not None:
                found.append(fill)
    if not items:
        raise ValueError(f"{path} holds no {unit}; expected at least one")
    if count == len(items):
        raise ValueError(f"{path}: none of the {count} {unit} can be read; the first: {first}")
    if count:
        message = "%s: %s %d of %d %s; the first: %s"
        logger.warning(message, path, done, count, len(items), unit, first)
    return found
