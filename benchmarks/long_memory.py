"""Long memory: which cells learn the adding problem, the copy task and parity, by one small recipe.

python -m benchmarks.long_memory --processes 2            measure what is missing, draw, write the page
python -m benchmarks.long_memory --report-only            draw and write again from the JSON
python -m benchmarks.long_memory --cells LSTM --tasks adding --lengths 100 200      only these
"""

import dataclasses
import threading
from collections.abc import Sequence
from typing import Any

import tyro

from benchmarks import long_memory_report
from benchmarks.long_memory_recipe import CELLS, TASKS, Recipe, Run
from benchmarks.long_memory_run import command as run_command
from benchmarks.long_memory_trainings import (
    Asked,
    begin,
    check,
    in_a_process,
    measure_into,
    read,
    write_report,
)

NAME = "long_memory"


@dataclasses.dataclass(frozen=True)
class Options(Asked, Recipe):
    """Train each cell on each task and length, and report.

    Each training runs in a fresh process on one core. Its result is written when it has ended: Ctrl-C
    loses only the trainings that are under way, and the next call goes on from there. What is measured
    unless asked otherwise stands in benchmarks/long_memory_recipe.py.
    """

    @property
    def recipe(self) -> Recipe:
        """What is the same for all trainings."""
        return Recipe(**{f.name: getattr(self, f.name) for f in dataclasses.fields(Recipe)})


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is missing, unless only the report is asked for; then draw and write."""
    options = tyro.cli(Options, args=arguments, prog="python -m benchmarks.long_memory")
    file = options.results(NAME)
    check(options, options.recipe, file, {"cells": CELLS, "tasks": TASKS})
    if not options.report_only:
        results = begin(NAME, options.recipe, options.again, read(file))

        def training(run: Run, number: str, core: int, stop: threading.Event) -> dict[str, Any]:
            return train(run, options, core, number, stop)

        measure_into(file, results, units(options), training, options)
    from benchmarks.long_memory_picture import picture  # matplotlib: not for --help

    write_report(NAME, options, long_memory_report.document, picture)


def units(options: Options) -> list[tuple[Run, ...]]:
    """All that is asked for, short sequences first; in each unit one training for each learning rate."""
    found = [
        tuple(
            Run(cell, task, length, seed, rate)
            for rate in options.learning_rates or TASKS[task].learning_rates
        )
        for task in options.tasks or TASKS
        for length in options.lengths or TASKS[task].lengths
        for cell in options.cells or CELLS
        for seed in options.seeds
    ]
    return sorted(found, key=lambda unit: unit[0].length)


def train(
    run: Run, options: Options, core: int, number: str, stop: threading.Event
) -> dict[str, Any]:
    """The result of one training, in a process of its own."""
    return in_a_process(run, run_command(run, options.recipe, core), number, options, stop)


if __name__ == "__main__":
    main()
