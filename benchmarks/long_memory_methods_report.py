"""docs/long_memory_methods.md, written from the JSON: every measured number comes from there."""

import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

from benchmarks.long_memory_methods_recipe import CELLS, METHODS, MethodRecipe
from benchmarks.long_memory_recipe import TASKS
from benchmarks.long_memory_report import (
    MEANINGS,
    NEEDED,
    TITLES,
    Outcome,
    departures,
    in_words,
    machine,
    outcome,
    rates_of,
    tasks,
)
from benchmarks.shakespeare_report import table

INTRODUCTION = """\
# Long memory by gradient method

<!-- Written by `python -m benchmarks.long_memory_methods`: change its long_memory_methods_report.py. -->

The tasks and the networks of [long memory](long_memory.md), trained by other gradients than that of BPTT
through the whole sequence: truncated in several ways, and forward in time. How much of a dependency does
each of them see, and is that enough to learn it? Not solved means: not by this recipe, within these
updates.
"""

PICTURE = (
    "![How far each method came on each task](../benchmarks/results/long_memory_methods.png)\n"
)

EXPECTED = """\
The one loss of the adding problem comes at the last step, and of the copy task only the last ten losses
need memory: what a method cannot carry from there back to the inputs, it cannot credit. Parity has a
loss at each step, whose first few teach the rule to a method of any reach.
"""

LEFT_OUT = """\
In the default plan is measured where BPTT has something to teach within this budget, and where
a training ends soon enough:

- `LRU` on the copy task alone: a linear network can do neither the adding problem nor parity.
- Adding at T = 100 without the Elman networks, and the copy task without them and the `LSTM`: by BPTT
  they learn little or nothing there.
- Parity without the leaky network, whose units move by a tenth of their range in a step at most, and
  without `MinLSTM`, which cannot flip a state.
- `MinLSTM` at T = 100, copy on the other cells and at the longer delays on most, T = 50 on parity, and
  all beyond T = 100, to save time.
- RTRL on dense cells, SnAp-1 where it is RTRL (`DiagonalGRU`, `MinLSTM`, `LRU`), e-prop on Elman
  networks, where it is RFLO; truncation where k2 reaches over the whole sequence, which then is BPTT.
"""

COSINES = """\
The cosine between the gradient of the method and that of BPTT on the same batch, over all weights before
the head (the gradient of the head is exact by every method), in the mean over 8 batches: before the
first update → after the last. At the start much of a gradient only moves the network to the best answer
without memory, on which most methods agree; what is learned after that depends on where they differ.
"""


class Problem(NamedTuple):
    """What is to be learned, by whatever method."""

    cell: str
    task: str
    length: int


class Record(NamedTuple):
    """How a method did beside BPTT.

    problems: those on which both were measured. solvable: of them those that BPTT solves. solved: of
    those the ones that the method solves. more: those that it solves and BPTT does not. slower: the
    median ratio of the updates needed, where both solve. before, after: medians of the cosines.
    """

    problems: list[Problem]
    solvable: list[Problem]
    solved: list[Problem]
    more: list[Problem]
    slower: float | None
    before: float | None
    after: float | None


def document(results: dict[str, Any]) -> str:
    """The whole page, in Markdown.

    Raises a ValueError for results that lack a part.
    """
    missing = [name for name in NEEDED if not results.get(name)]
    if missing:
        raise ValueError(
            f"the results hold no {', '.join(missing)}; expected what "
            "python -m benchmarks.long_memory_methods writes: measure again"
        )
    parts = [INTRODUCTION]
    if changes := departures(results, MethodRecipe()):
        parts.append(changes)
    parts += [PICTURE, "## The recipe\n", recipe(results)]
    parts += ["## The methods\n", EXPECTED, summary(results), sentences(results)]
    for task in tasks(results):
        parts += [f"## {TITLES[task]}\n", MEANINGS[task] + "\n", outcomes_table(results, task)]
    parts += ["## The direction of the gradients\n", COSINES]
    for task in tasks(results):
        parts += [f"### {TITLES[task]}\n", cosines_table(results, task)]
    parts += ["## What was left out\n", LEFT_OUT, "## Where and how\n", machine(results)]
    return "\n".join(parts)


def recipe(results: dict[str, Any]) -> str:
    """The recipe in words."""
    r, runs = results["recipe"], results["runs"]
    seeds = ", ".join(map(str, sorted({run["seed"] for run in runs})))
    rates = "; ".join(
        f"{task}: {', then '.join(f'{rate:g}' for rate in rates_of(runs, task))}"
        for task in tasks(results)
    )
    return "\n\n".join(
        [
            "The recipe is that of [long memory](long_memory.md#the-recipe), and only the gradient "
            f"differs: one layer of {r['features']} features between a linear embedding and a linear "
            f"head, {r['batch']} new sequences an update, `sj.optim.clipped_adamw` with gradients "
            f"clipped at norm {r['clip_norm']:g}, at most {r['updates']:,} updates. All methods have "
            "the same initial values and see the same sequences in the same order.",
            "**Every method makes one update a batch**, by the sum of its gradients over the whole "
            "sequence at the same params. In practice TBPTT and online rules are also used to update on "
            "the way, every few steps; that is another algorithm, which this does not measure.",
            f"One learning rate for all methods ({rates}); rules whose gradients are noisy might do "
            f"better with a smaller one. On every task a training is given up after {r['patience']:,} "
            "updates, or later, where the mean of its last ten values is not 5 % below that without "
            "memory. Values, thresholds and the end of a training are otherwise the same. "
            f"Seeds: {seeds}.",
            "`TBPTT a, b` is `sj.tbptt(a, b)`; `TBPTT k` has k1 = k2 = k. Its last window "
            "holds the steps that are left over, so that a loss at the very last of T steps reaches "
            "back T mod k steps (k, where that is 0).",
        ]
    ) + "\n"  # fmt: skip


def summary(results: dict[str, Any]) -> str:
    """One row for each method."""
    rows = []
    for method in methods(results):
        found = record(results, method)
        rows.append(
            (
                method,
                str(len(found.problems)),
                f"{len(found.solved)} of {len(found.solvable)}",
                "" if found.slower is None else f"{found.slower:.1f} ×",
                number(found.before),
                number(found.after),
            )
        )
    head = ("method", "problems", "solved, of those that BPTT solves", "updates, against BPTT")
    head = (*head, "cosine before training", "and after")
    note = (
        "A problem is a cell on a task of one length. Updates are compared where both solve it; these "
        "and the cosines are medians."
    )
    return "\n".join([*table(head, rows, numbers=True), "", note, ""])


def sentences(results: dict[str, Any]) -> str:
    """What theory expects of each method, and what was seen."""
    lines = [
        f"- **{name}**. {METHODS[name].theory} {seen(results, name)}"
        for name in methods(results)
        if name in METHODS
    ]
    return "\n".join([*lines, ""])


def seen(results: dict[str, Any], method: str) -> str:
    """A method beside BPTT in a sentence, by the numbers alone."""
    found = record(results, method)
    if method == "BPTT":
        return f"*Seen*: it solves {len(found.solved)} of {len(found.problems)} problems."
    if not found.solvable:
        return "*Seen*: BPTT solves none of its problems, so that nothing can be said."
    each = ", ".join(
        f"{task} {sum(p.task == task for p in found.solved)} of {total}"
        for task in TASKS
        if (total := sum(p.task == task for p in found.solvable))
    )
    count, total = len(found.solved), len(found.solvable)
    amount = "all" if count == total else "none" if count == 0 else str(count)
    text = f"*Seen*: of the {total} problems that BPTT solves it solves {amount} ({each})"
    if found.slower is not None:
        text += f", in {found.slower:.1f} times the updates"
    if found.more:
        text += f", and {len(found.more)} that BPTT does not"
    return f"{text}; cosine {number(found.before)} before training and {number(found.after)} after."


def outcomes_table(results: dict[str, Any], task: str) -> str:
    """One row for each cell and length, one column for each method."""
    names = methods(results, task)
    rows = [
        (
            problem.cell,
            str(problem.length),
            *(in_words(reached(results, problem, m), task, problem.length) for m in names),
        )
        for problem in problems(results, task)
    ]
    note = (
        "Bold: solved, after so many updates. Else the value, and what share it is of that without "
        "memory."
    )
    return "\n".join([*table(("cell", "T", *names), rows, numbers=True), "", note, ""])


def cosines_table(results: dict[str, Any], task: str) -> str:
    """One row for each cell and length, one column for each method but BPTT, whose cosine is 1."""
    names = [name for name in methods(results, task) if name != "BPTT"]
    rows = []
    for problem in problems(results, task):
        pairs = [cosines(results, problem, name) for name in names]
        shown = ["" if pair is None else " → ".join(map(number, pair)) for pair in pairs]
        rows.append((problem.cell, str(problem.length), *shown))
    return "\n".join([*table(("cell", "T", *names), rows, numbers=True), ""])


def record(results: dict[str, Any], method: str) -> Record:
    """A method beside BPTT, over all problems."""
    everything = [p for task in tasks(results) for p in problems(results, task)]
    both = [
        (p, mine, exact)
        for p in everything
        if (mine := reached(results, p, method)) and (exact := reached(results, p, "BPTT"))
    ]
    ratios = [
        mine.updates / exact.updates
        for _, mine, exact in both
        if is_solved(mine) and is_solved(exact) and mine.updates and exact.updates
    ]
    pairs = [pair for p in everything if (pair := cosines(results, p, method))]
    return Record(
        problems=[p for p, _, _ in both],
        solvable=[p for p, _, exact in both if is_solved(exact)],
        solved=[p for p, mine, exact in both if is_solved(exact) and is_solved(mine)],
        more=[p for p, mine, exact in both if is_solved(mine) and not is_solved(exact)],
        slower=statistics.median(ratios) if ratios else None,
        before=median([pair[0] for pair in pairs]),
        after=median([pair[1] for pair in pairs]),
    )


def is_solved(found: Outcome) -> bool:
    """By more than half of the seeds."""
    return 2 * found.solved > found.seeds


def reached(results: dict[str, Any], problem: Problem, method: str) -> Outcome | None:
    """How far a method came; None where it was not measured."""
    runs = [run for run in results["runs"] if run["method"] == method]
    return outcome({"runs": runs}, *problem)


def cosines(
    results: dict[str, Any], problem: Problem, method: str
) -> tuple[float | None, float | None] | None:
    """The medians over all trainings, before and after; None where there was no training."""
    pairs = [
        run["cosines"]
        for run in results["runs"]
        if (run["cell"], run["task"], run["length"], run["method"]) == (*problem, method)
    ]
    return (median([a for a, _ in pairs]), median([b for _, b in pairs])) if pairs else None


def median(values: Sequence[float | None]) -> float | None:
    """The median of those that are numbers."""
    numbers = [value for value in values if value is not None]
    return statistics.median(numbers) if numbers else None


def number(value: float | None) -> str:
    """Two digits; a cosine with a gradient that is zero or not finite is none."""
    return "none" if value is None else f"{value:.2f}"


def methods(results: dict[str, Any], task: str | None = None) -> list[str]:
    """The methods that were measured, on one task or on any, in the order of the recipe."""
    measured = {run["method"] for run in results["runs"] if task in (None, run["task"])}
    return [name for name in METHODS if name in measured] + sorted(measured - set(METHODS))


def problems(results: dict[str, Any], task: str) -> list[Problem]:
    """What was measured of a task: short sequences first, cells in the order of the recipe."""
    measured = {(run["length"], run["cell"]) for run in results["runs"] if run["task"] == task}
    order = list(CELLS)
    place = lambda cell: order.index(cell) if cell in order else len(order)
    found = sorted(measured, key=lambda pair: (pair[0], place(pair[1]), pair[1]))
    return [Problem(cell, task, length) for length, cell in found]
