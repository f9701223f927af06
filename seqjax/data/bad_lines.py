"""What a reader does with a line that it cannot read: refuse the file, or skip the line and count it."""

import logging
import os
from types import TracebackType

from seqjax import checks

logger = logging.getLogger(__name__)


class BadLine(ValueError):
    """The file and the line, what is wrong there, and what was expected."""


class BadLines:
    """A context for each line, or each sentence, that a reader goes through; and their count.

    bad: "refuse" lets the `BadLine` out that is raised inside; "skip" swallows it and counts it.
    unit: what is counted. done: what was done with it, for the log.

    >>> rows, handled = [], BadLines("read_numbers", "numbers.txt", "skip")
    >>> for number, text in enumerate(["1", "x", "3"], start=1):
    ...     with handled:
    ...         if not text.isdecimal():
    ...             raise BadLine(f"numbers.txt, line {number}: {text!r} is no number")
    ...         rows.append(int(text))
    >>> rows, handled.found, handled.seen
    ([1, 3], 1, 3)
    """

    def __init__(
        self,
        reader: str,
        path: str | os.PathLike[str],
        bad: str,
        *,
        unit: str = "lines",
        done: str = "skipped",
    ) -> None:
        """Nothing seen yet. Raises a ValueError for another `bad`."""
        checks.one_of(f"{reader}: bad", bad, ("refuse", "skip"))
        self._path, self._bad, self._unit, self._done = os.fspath(path), bad, unit, done
        self.seen = self.found = 0
        self._first = ""

    def __enter__(self) -> None:
        self.seen += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        if not isinstance(error, BadLine) or self._bad == "refuse":
            return False
        self.found += 1
        self._first = self._first or str(error)
        return True

    def report(self) -> None:
        """Log how many were bad, and the first of them; a ValueError where nothing good is left."""
        if not self.seen:
            raise ValueError(f"{self._path} holds no {self._unit}; expected at least one")
        if self.found == self.seen:
            raise ValueError(
                f"{self._path}: none of the {self.seen} {self._unit} can be read; "
                f"the first: {self._first}"
            )
        if self.found:
            message = "%s: %s %d of %d %s; the first: %s"
            logger.warning(
                message, self._path, self._done, self.found, self.seen, self._unit, self._first
            )
