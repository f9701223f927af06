"""Gradient methods: which of them learn the adding problem, the copy task and parity.

python -m benchmarks.long_memory_methods --processes 2      measure what is missing, draw, write the page
python -m benchmarks.long_memory_methods --report-only      draw and write again from the JSON
python -m benchmarks.long_memory_methods --methods UORO --cells GRU        only these
"""

import dataclasses
import sys
import threading
from collections.abc import Sequence
from typing import Any

import tyro

from benchmarks import long_memory_methods_report
from benchmarks.long_memory_methods_recipe import (
    CELLS,
    METHODS,
    PLAN,
    MethodRecipe,
    MethodRun,
    serves,
)
from benchmarks.long_memory_methods_run import command as run_command
from benchmarks.long_memory_recipe import TASKS
from benchmarks.long_memory_trainings import (
    Asked,
    begin,
    check,
    in_a_process,
    measure_into,
    read,
    write_report,
)

NAME = "long_memory_methods"


@dataclasses.dataclass(frozen=True)
class Options(Asked, MethodRecipe):
    """Train cells by each gradient method that serves them, and report.

    Each training runs in a fresh process on one core. Its result is written when it has ended: Ctrl-C
    loses only the trainings that are under way, and the next call goes on from there. What is measured
    unless asked otherwise stands in benchmarks/long_memory_methods_recipe.py.
    """

    methods: tuple[str, ...] = ()
    """The methods, by their names in the table; all unless given."""

    @property
    def recipe(self) -> MethodRecipe:
        """What is the same for all trainings."""
        names = [f.name for f in dataclasses.fields(MethodRecipe)]
        return MethodRecipe(**{name: getattr(self, name) for name in names})


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is missing, unless only the report is asked for; then draw and write."""
    options = tyro.cli(Options, args=arguments, prog="python -m benchmarks.long_memory_methods")
    file = options.results(NAME)
    known = {"cells": CELLS, "tasks": TASKS, "methods": METHODS}
    check(options, options.recipe, file, known)
    if not options.report_only:
        asked = units(options)
        if not asked:
            sys.exit(
                "none of the methods that are asked for serves any of these cells at these lengths; "
                "expected one that does, as benchmarks/long_memory_methods_recipe.py says"
            )
        results = begin(NAME, options.recipe, options.again, read(file))

        def training(
            run: MethodRun, number: str, core: int, stop: threading.Event
        ) -> dict[str, Any]:
            return train(run, options, core, number, stop)

        measure_into(file, results, asked, training, options)
    from benchmarks.long_memory_methods_picture import picture  # matplotlib: not for --help

    write_report(NAME, options, long_memory_methods_report.document, picture)


def units(options: Options) -> list[tuple[MethodRun, ...]]:
    """All that is asked for, short sequences first; in each unit one training for each learning rate.

    One rate for all methods unless more are asked for: the first of each task.
    """
    found = [
        tuple(
            MethodRun(cell, task, length, seed, rate, method)
            for rate in options.learning_rates or TASKS[task].learning_rates[:1]
        )
        for task in options.tasks or PLAN
        for length in options.lengths or PLAN[task]
        for cell in options.cells or PLAN[task].get(length, tuple(CELLS))
        for method in options.methods or METHODS
        if serves(method, cell, task, length)
        for seed in options.seeds
    ]
    return sorted(found, key=lambda unit: unit[0].length)


def train(
    run: MethodRun, options: Options, core: int, number: str, stop: threading.Event
) -> dict[str, Any]:
    """The result of one training, in a process of its own."""
    return in_a_process(run, run_command(run, options.recipe, core), number, options, stop)


if __name__ == "__main__":
    main()
