"""docs/long_memory.md, written from results/long_memory.json: every measured number comes from there."""

import dataclasses
import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

from benchmarks.long_memory_recipe import CELLS, TASKS, Recipe
from benchmarks.shakespeare_report import table

NEEDED = ("made", "machine", "versions", "recipe", "runs")

INTRODUCTION = """\
# Long memory

<!-- Written by `python -m benchmarks.long_memory`: change benchmarks/long_memory_report.py instead. -->

Three tasks whose answer depends on inputs that lie up to T steps back, and the cells of the library, all
trained by one small recipe. Not solved means: not by this recipe, within these updates. It does not mean
that the cell cannot learn the task. All are trained by BPTT through the whole sequence; what other
gradients learn is [a page of its own](long_memory_methods.md).
"""

PICTURE = "![How far each cell came on each task](../benchmarks/results/long_memory.png)\n"

TITLES = {
    "adding": "Adding problem",
    "copy": "Copy task",
    "parity": "Parity",
}

MEANINGS = {
    "adding": (
        "T numbers in [0, 1], two of them marked, one in each half; the sum of these two is asked for "
        "at the last step. The value is the mean squared error. To answer 1 always gives 1/6 ≈ 0.1667; "
        "solved is below 0.01."
    ),
    "copy": (
        "Ten symbols out of eight, a wait, a sign, and then the ten symbols are asked for, each T + 10 "
        "steps after it was shown; a sequence has T + 20 steps. The value is the cross entropy a step, "
        "in nats, over all steps. The best without memory is 10 log 8 / (T + 20); solved is below 10 % "
        "of it."
    ),
    "parity": (
        "T random bits; the parity of the bits so far is asked for at each step. The value is the share "
        "of wrong answers at the last step, 50 % without memory; solved is below 1 %."
    ),
}

PUBLISHED = (
    (
        "adding",
        "A plain tanh network fails beyond T ≈ 150; IRNN and LSTM solve T = 300",
        "Le, Jaitly, Hinton 2015, [arXiv:1504.00941](https://arxiv.org/abs/1504.00941)",
    ),
    (
        "copy",
        "LSTM and tanh networks stay at the value without memory for long delays; unitary ones do not",
        "Arjovsky, Shah, Bengio 2016, [arXiv:1511.06464](https://arxiv.org/abs/1511.06464)",
    ),
    (
        "copy, adding",
        "Chrono initialisation of the gates' biases greatly improves an LSTM on long dependencies",
        "Tallec, Ollivier 2018, [arXiv:1804.11188](https://arxiv.org/abs/1804.11188)",
    ),
    (
        "parity",
        "Linear recurrences whose transition has only positive eigenvalues cannot do parity at all "
        "lengths in finite precision; nonlinear recurrent networks can",
        "Sarrof, Veitsman, Hahn 2024, [arXiv:2405.17394](https://arxiv.org/abs/2405.17394); "
        "Grazzi et al. 2024, [arXiv:2411.12537](https://arxiv.org/abs/2411.12537)",
    ),
)


class Outcome(NamedTuple):
    """How a cell did on a task of one length, over all seeds.

    solved, seeds: seeds that were solved, and all. updates: the median of the updates needed by the
    solved ones. value: the median of the best final values; None where it is not finite.
    """

    solved: int
    seeds: int
    updates: float | None
    value: float | None


def document(results: dict[str, Any]) -> str:
    """The whole page, in Markdown.

    Raises a ValueError for results that lack a part.
    """
    missing = [name for name in NEEDED if not results.get(name)]
    if missing:
        raise ValueError(
            f"the results hold no {', '.join(missing)}; expected what python -m benchmarks.long_memory "
            "writes: measure again"
        )
    parts = [INTRODUCTION]
    if changes := departures(results, Recipe()):
        parts.append(changes)
    parts += [PICTURE, "## The recipe\n", recipe(results)]
    for task in tasks(results):
        parts += [f"## {TITLES[task]}\n", MEANINGS[task] + "\n", outcomes_table(results, task)]
    parts += ["## What others published\n", published(results)]
    parts += ["## Where and how\n", machine(results)]
    return "\n".join(parts)


def departures(results: dict[str, Any], recipe: Recipe) -> str:
    """A warning that comes first, where the recipe is not the usual one."""
    usual = dataclasses.asdict(recipe)
    changes = [
        f"{name} {value} instead of {usual.get(name)}"
        for name, value in results["recipe"].items()
        if value != usual.get(name)
    ]
    return f"> **Not the default recipe**: {', '.join(changes)}.\n" if changes else ""


def recipe(results: dict[str, Any]) -> str:
    """The recipe in words."""
    r, runs = results["recipe"], results["runs"]
    tried = "; ".join(
        f"{task}: {', then '.join(f'{rate:g}' for rate in rates_of(runs, task))}"
        for task in tasks(results)
    )
    seeds = ", ".join(map(str, sorted({run["seed"] for run in runs})))
    paragraphs = [
        f"One layer of {r['features']} features behind a linear embedding of the inputs into as many, "
        "and a linear head. `sj.optim.clipped_adamw`: AdamW without weight decay, gradients clipped at "
        f"norm {r['clip_norm']:g}, a constant learning rate. {r['batch']} new sequences an update, at "
        f"most {r['updates']:,} updates.",
        f"Every {r['evaluate_every']} updates the value is taken on {r['tested']} new sequences. A task "
        "is solved, and training stops, when two such values in a row (or the very last one) and then "
        f"the final value, on {8 * r['tested']:,} new sequences, lie below the threshold. The updates "
        "needed are those at the first of the two. The copy task and parity are given up after "
        f"{TASKS['copy'].patience:,} updates, or later, where the mean of the last ten values is not "
        "5 % below that without memory; the adding problem, whose plateau many leave late, never is.",
        "Learning rates are tried in a fixed order until one solves the task, each from the start "
        f"({tried}); where none does, the best final value counts. Seeds: {seeds}. Initial values are "
        "each cell's own default; a cell with others says so by its name.",
    ]
    if any(run["cell"] == "LRU" for run in runs):
        paragraphs.append(
            "An `LRU` is linear in its inputs, and so is the whole network around it here: it cannot "
            "multiply a value by its marker, nor flip a parity. It is made for stacks with activations "
            "between the layers, and stands here alone."
        )
    return "\n\n".join(paragraphs) + "\n"


def outcomes_table(results: dict[str, Any], task: str) -> str:
    """One row for each cell: the updates needed at each length, or the value that was reached."""
    lengths, runs = lengths_of(results, task), results["runs"]
    head = ("cell", "parameters", *(f"T = {length}" for length in lengths))
    rows = [
        (
            cell,
            f"{next(r['parameters'] for r in runs if (r['cell'], r['task']) == (cell, task)):,}",
            *(in_words(outcome(results, cell, task, length), task, length) for length in lengths),
        )
        for cell in cells(results, task)
    ]
    without = ["*without memory*", "", *(shown(task, TASKS[task].baseline(t)) for t in lengths)]
    note = (
        "Bold: solved, after so many updates. Else the value, and what share it is of that without "
        "memory."
    )
    return "\n".join([*table(head, [*rows, without], numbers=True), "", note, ""])


def in_words(found: Outcome | None, task: str, length: int) -> str:
    """An outcome as an entry of the table."""
    if found is None:
        return ""
    among = f" ({found.solved} of {found.seeds} seeds)" if found.seeds > 1 else ""
    if found.updates is not None and 2 * found.solved > found.seeds:
        return f"**{found.updates:,.0f}**{among}"
    if found.value is None:
        return f"not finite{among}"
    share = found.value / TASKS[task].baseline(length)
    return f"{shown(task, found.value)} ({100 * share:.0f} %){among}"


def shown(task: str, value: float) -> str:
    """A value in the unit of its task."""
    return f"{100 * value:.1f} %" if task == "parity" else f"{value:.4f}"


def outcome(results: dict[str, Any], cell: str, task: str, length: int) -> Outcome | None:
    """How `cell` did, each seed by its best learning rate; None where it was not measured."""
    by_seed: dict[int, list[dict[str, Any]]] = {}
    for run in results["runs"]:
        if (run["cell"], run["task"], run["length"]) == (cell, task, length):
            by_seed.setdefault(run["seed"], []).append(run)
    if not by_seed:
        return None
    best = [min(runs, key=rank) for runs in by_seed.values()]
    needed = [run["updates_needed"] for run in best if run["solved"]]
    values = [run["value"] for run in best if run["value"] is not None]
    return Outcome(
        solved=len(needed),
        seeds=len(best),
        updates=statistics.median(needed) if needed else None,
        value=statistics.median(values) if values else None,
    )


def rank(run: dict[str, Any]) -> tuple[bool, float, float]:
    """Less is better: solved, in few updates, else a small value."""
    value = float("inf") if run["value"] is None else run["value"]
    return not run["solved"], run["updates_needed"] or 0, value


def published(results: dict[str, Any]) -> str:
    """What is known of these tasks, and how this measurement differs."""
    r = results["recipe"]
    rows = [row for row in PUBLISHED if any(task in row[0] for task in tasks(results))]
    return "\n".join(
        [
            *table(("task", "outcome", "source"), rows),
            "",
            f"The networks here are small ({r['features']} features) and are trained briefly (at most "
            f"{r['updates']:,} updates of {r['batch']} sequences, one or two learning rates), less than "
            "in these papers; optimisers and initial values differ too. A task that is not solved here "
            "contradicts none of them.",
            "",
        ]
    )


def machine(results: dict[str, Any]) -> str:
    """The machine, the versions, the time that it took."""
    here, runs = results["machine"], results["runs"]
    hours = sum(run["seconds"] + run["compile_seconds"] for run in runs) / 3600
    side_by_side = sorted({run["processes"] for run in runs})
    environment = ", ".join(f"{k}={v}" for k, v in here["environment"].items())
    rows = [
        (
            "processor",
            f"{here['processor']}, {here['cores_usable']} of {here['cores']} cores usable",
        ),
        ("system", f"{here['system']}, load average {here['load_average']} before the last start"),
        ("environment", environment or "no variable that sets threads or devices"),
        ("versions", ", ".join(f"{k} {v}" for k, v in results["versions"].items())),
        (
            "time",
            f"{len(runs)} trainings, {hours:.1f} hours of one core with compilation; each on a core of "
            f"its own, {' or '.join(map(str, side_by_side))} side by side",
        ),
        ("last training", results["made"]),
    ]
    return "\n".join([*table(("", ""), rows), ""])


def tasks(results: dict[str, Any]) -> list[str]:
    """The tasks that were measured, in the order of the recipe."""
    return [task for task in TASKS if any(run["task"] == task for run in results["runs"])]


def cells(results: dict[str, Any], task: str) -> list[str]:
    """The cells that were measured on a task, in the order of the recipe."""
    measured = {run["cell"] for run in results["runs"] if run["task"] == task}
    return [cell for cell in CELLS if cell in measured] + sorted(measured - set(CELLS))


def lengths_of(results: dict[str, Any], task: str) -> list[int]:
    """The lengths at which a task was measured."""
    return sorted({run["length"] for run in results["runs"] if run["task"] == task})


def rates_of(runs: Sequence[dict[str, Any]], task: str) -> list[float]:
    """The learning rates of a task, in the order in which they came."""
    return list(dict.fromkeys(run["learning_rate"] for run in runs if run["task"] == task))
