"""The page on diagnostics runs from top to bottom and prints what it says."""

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "diagnostics.md"
BLOCK = re.compile(r"```(python|text)\n(.*?)```", re.DOTALL)

NUMBER = re.compile(r"(?<![\w.])-?\d+\.?\d*(?:e-?\d+)?")


@pytest.fixture(scope="module")
def printed():
    """Each block of code of the page with what it printed, and the blocks of text."""
    names: dict = {}
    code, texts = [], []
    for kind, block in BLOCK.findall(PAGE.read_text("utf-8")):
        if kind == "text":
            texts.append(block)
            continue
        lines: list[str] = []
        names["print"] = lambda *values, lines=lines: lines.append(" ".join(map(str, values)))
        exec(compile(block, PAGE.name, "exec"), names)
        code.append((block, lines))
    return code, texts, names


@pytest.mark.usefixtures("standard_promotion")
def test_the_code_prints_what_its_comments_say(printed):
    code, _, _ = printed
    for block, lines in code:
        said = re.findall(r"print\(.*\)  # (.*)$", block, re.MULTILINE)
        if len(said) == len(lines):
            assert lines == said
        elif said:  # one comment for all turns of a loop, with dots between
            (comment,) = said
            numbers = [float(n) for n in NUMBER.findall(comment)]
            of_loop = [float(NUMBER.findall(line)[0]) for line in lines]
            assert of_loop == numbers[: len(of_loop)]


def words(text):
    """The text without its digits, which may differ in the last one from machine to machine."""
    return NUMBER.sub("#", text).split()


def test_the_tables_and_sentences_are_those_that_the_code_gives(printed):
    code, (table, report, broken), names = printed
    assert words(str(names["flow"])) == words(table)
    assert words("\n".join(code[-2][1])) == words(report)
    assert code[-1][1] == [broken.strip()]
    ours, theirs = ([float(n) for n in NUMBER.findall(t)] for t in (str(names["flow"]), table))
    # Rounded to what is shown; float32 sums may differ in the last digit that is.
    assert ours == pytest.approx(theirs, rel=0.02, abs=0.02)
