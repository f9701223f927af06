"""Tagged sentences: one word a line, an empty line after each sentence."""

import itertools
import logging
import os
import re

from seqjax import checks
from seqjax.data.bad_lines import BadLines
from seqjax.data.files import Line, read_lines, stored
from seqjax.data.tsv import known, width_of
from seqjax.data.vocabulary import Labels

logger = logging.getLogger(__name__)

NO_WORD = re.compile(r"\d+[-.]\d+")


def read_columns(
    path: str | os.PathLike[str],
    *,
    form: int = 0,
    tag: int = 1,
    id: int | None = None,
    columns: int | None = None,
    labels: Labels | None = None,
    bad: str = "refuse",
) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    """(words, tags) of each sentence, in their order. Each line is "FORM TAB TAG".

    Sentences end at an empty line or at the end of the file. A form may hold spaces. A line that begins
    with "#" is a comment; where no `id` is given, only if it has no TAB, since "#" may be a word, and
    then how many were taken for comments is logged.

    path: UTF-8, packed by gzip or not; where it is not there, the same name with ".gz" after it.
    form, tag: the column of each, by number from 0.
    id: the column that numbers the words, if there is one: lines with an id such as 1-2, which spans
        two words, or 8.1, an empty node, are left out, as they are no words.
    columns: how many each line has; None is as many as the others need.
    labels: refuse a tag that is not one of these; for parts that are not trained on.
    bad: what to do with an empty form, an empty or unknown tag, another number of columns, or bytes
        that are not UTF-8. "refuse" raises a ValueError with the file and the line; "skip" leaves out
        the whole sentence, since without one word it is another, and logs how many of how many.

    Raises a ValueError too for a file that is empty or has no good sentence, and FileNotFoundError or
    IsADirectoryError where there is none.

    Files of Universal Dependencies: `read_columns(path, id=0, form=1, tag=3, columns=10)`.
    As examples: `[Example(vocabulary.encode(words), [labels.encode(tag) for tag in tags]) …]`.
    """
    path = stored(path)
    handled = BadLines("read_columns", path, bad, unit="sentences")
    at = [form, tag] if id is None else [form, tag, id]
    for name, column in zip(("form", "tag", "id"), at, strict=False):
        checks.size(f"read_columns: {name}", column)
    width = width_of("read_columns", columns, at)
    lines = read_lines(path)
    if id is None:
        _report_comments(path, lines)
    found = []
    for empty, block in itertools.groupby(lines, key=lambda line: not line.raw.strip()):
        words = [] if empty else [line for line in block if not _is_comment(line, id)]
        if words:
            with handled:
                pairs = [_tagged(line, width, at, labels) for line in words]
                pairs = [pair for pair in pairs if pair is not None]
                if not pairs:
                    raise words[0].bad("the sentence that begins here has no word")
                found.append(tuple(zip(*pairs, strict=True)))
    handled.report()
    return found


def _report_comments(path: str, lines: list[Line]) -> None:
    comments = [line for line in lines if _is_comment(line, None)]
    if comments:
        # A warning, as for lines that are skipped: where words are hashtags, and one lost its tag or
        # is parted from it by a space, it is such a line, and nothing else would tell.
        message = '%s: took %d of %d lines for comments ("#", and no TAB); the first: line %d'
        logger.warning(message, path, len(comments), len(lines), comments[0].number)


def _is_comment(line: Line, id: int | None) -> bool:
    return line.raw.startswith(b"#") and (id is not None or b"\t" not in line.raw)


def _tagged(line: Line, width: int, at: list[int], labels: Labels | None) -> tuple[str, str] | None:
    """The word and its tag; None where the id says that it is no word."""
    cells = [cell.strip() for cell in line.cells(width)]
    form, tag, *rest = (cells[column] for column in at)
    if rest and NO_WORD.fullmatch(rest[0]):
        return None
    if rest and not rest[0].isdecimal():
        raise line.bad(f"the id is {rest[0]!r}; expected one such as 3, 1-2 or 8.1")
    if not form:
        raise line.bad(f"the form (column {at[0]}) is empty; expected a word")
    if not tag:
        raise line.bad(f"the tag (column {at[1]}) is empty; expected one")
    return form, known(line, tag, labels)
