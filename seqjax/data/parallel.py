"""Sentences in two languages: line i of one file says what line i of the other says."""

import os

from seqjax.data.bad_lines import BadLines
from seqjax.data.files import Line, read_lines, stored


def read_parallel(
    source: str | os.PathLike[str], target: str | os.PathLike[str], *, bad: str = "refuse"
) -> list[tuple[str, str]]:
    """(source, target) of each pair of lines, in their order, without white space at the ends.

    source, target: UTF-8, packed by gzip or not; where one is not there, the same name with ".gz" after
        it.
    bad: what to do with a line that is empty, or not UTF-8, on either side. "refuse" raises a ValueError
        with its file and line; "skip" leaves the pair out, and logs how many of how many.

    Raises a ValueError too for files of unequal numbers of lines, whatever `bad` is, for one that is
    empty or leaves no good pair, and FileNotFoundError or IsADirectoryError where there is none.

    As examples, once tokens are cut:
    `Example(source.encode(words, stop=True), target.encode(others, start=True, stop=True))`.
    """
    source, target = stored(source), stored(target)
    handled = BadLines("read_parallel", source, bad, unit="pairs")
    sides = read_lines(source), read_lines(target)
    if len(sides[0]) != len(sides[1]):
        raise ValueError(
            f"read_parallel: {source} has {len(sides[0])} lines but {target} has {len(sides[1])}; "
            "expected as many, line i of one beside line i of the other"
        )
    found = []
    for left, right in zip(*sides, strict=True):
        with handled:
            found.append((_sentence(left), _sentence(right)))
    handled.report()
    return found


def _sentence(line: Line) -> str:
    sentence = line.text.strip()
    if not sentence:
        raise line.bad("the line is empty; expected a sentence")
    return sentence
