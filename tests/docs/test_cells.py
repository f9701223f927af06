"""The catalogue of cells: it is what the code says now, and it is whole."""

import inspect
import re

import numpy as np
import pytest

import seqjax as sj
from docs import cells

ENTRIES = cells.entries()
DEFINED = {entry.defined.__name__: entry.defined for entry in ENTRIES}
TOLD = DEFINED | cells.wrappers()


def test_the_page_is_what_the_command_writes():
    written = (cells.FOLDER / "cells.md").read_text("utf-8")
    assert written == cells.document(), "docs/cells.md is old: python -m docs.cells"


def test_every_public_cell_and_wrapper_has_its_place():
    public = {
        name
        for name, thing in vars(sj).items()
        if inspect.isclass(thing) and issubclass(thing, sj.Cell) and not inspect.isabstract(thing)
    } | {"IRNN"}
    assert public == set(TOLD)


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.made)
@pytest.mark.parametrize("features", [8, 24])
def test_the_formula_gives_the_true_number_of_parameters(entry, features):
    cell = entry.build(features)
    for in_features in [features, *([5] if cells.takes(cell, 5) else [])]:
        shapes = cells.shapes_of(cell, in_features)
        count = cells.parameter_count(cell, shapes)
        assert cells.evaluate(count, cell, in_features) == sj.summary(cell, shapes).size


@pytest.mark.parametrize("name", list(TOLD))
def test_each_has_equations_a_source_and_a_word_on_when_to_choose_it(name):
    defined = TOLD[name]
    assert re.search(r"_\{?[t0].* = ", cells.paragraphs(defined)[0])
    assert re.match(r"References?: .*\d{4}", cells.sentence(defined, "References?: "))
    advice = cells.sentence(defined, "Choose it ")
    assert advice.endswith(".")
    assert len(advice) > 30


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.made)
def test_the_picture_shows_what_the_promise_of_mixing_says(entry):
    cell = entry.build(8)
    matrix, leaves = cells.jacobian(cell, 8)
    sizes = [size for _, size in leaves]
    assert matrix.shape == (sum(sizes), sum(sizes))
    assert np.all(np.isfinite(matrix))
    assert np.any(matrix > 0)
    if cell.mixing == "elementwise":
        units = np.concatenate([np.arange(size) for size in sizes])
        assert np.all(matrix[units[:, None] != units[None]] == 0)
