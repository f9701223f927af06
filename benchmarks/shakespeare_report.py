"""docs/shakespeare.md, written from results/shakespeare.json: every number in it comes from there."""

import statistics
from collections.abc import Sequence
from typing import Any

NEEDED = (
    "made",
    "command",
    "goal",
    "machine",
    "versions",
    "options",
    "departures",
    "order",
    "peer",
    "seeds",
    "sample",
    "generation",
    "import",
)

INTRODUCTION = """\
# Characters of Shakespeare

<!-- Written by `python -m benchmarks.shakespeare`: change benchmarks/shakespeare_report.py instead. -->

`examples/char_lm.py` trains a recurrent model on the first 90 % of tiny Shakespeare and is then asked
about the last 10 %. This page is what came of it, beside nanoGPT's CPU recipe for the same text, both
on one machine, one after the other. How each number is made: [benchmarks](../benchmarks/README.md).
"""

PICTURE = "![Validation loss against wall time](../benchmarks/results/shakespeare.png)"


def document(results: dict[str, Any]) -> str:
    """The whole page, in Markdown.

    Raises a ValueError for results that lack a part.
    """
    missing = [name for name in NEEDED if name not in results]
    if missing:
        raise ValueError(
            f"the results hold no {', '.join(missing)}; expected what python -m benchmarks.shakespeare "
            "writes: measure again"
        )
    parts = [INTRODUCTION]
    if results["departures"]:
        parts.append(departures(results["departures"]))
    parts += [
        PICTURE + "\n",
        runs_table(results),
        "## Against the goals\n",
        against_goals(results),
        "## Other times\n",
        other_times(results),
        f"## What seed {results['seeds'][0]['seed']} wrote\n",
        f"{len(results['sample'])} characters, at temperature {results['options']['temperature']}:\n",
        fenced("text", results["sample"]),
        "## Where and how\n",
        machine(results),
        f"Made on {results['made']} by\n",
        fenced("sh", results["command"]),
    ]
    return "\n".join(parts)


def departures(changes: Sequence[str]) -> str:
    """A warning that comes first."""
    return (
        f"> **Not the default settings**: {'; '.join(changes)}. These numbers say nothing about the "
        "goals.\n"
    )


def runs_table(results: dict[str, Any]) -> str:
    """One row for each run."""
    goal, peer = results["goal"]["nats"], results["peer"]
    parameters = results["generation"]["parameters"]
    rows = [
        (
            f"seqjax, seed {run['seed']}",
            f"{run['nats']:.4f}",
            difference(run["nats"], goal),
            f"{run['wall_seconds']:.1f} s",
            percent(run["wall_seconds"] / peer["budget_seconds"]),
            f"{parameters:,}",
        )
        for run in results["seeds"]
    ]
    rows += [
        (
            f"nanoGPT's CPU recipe, run {number}",
            f"{run['nats']:.4f}",
            difference(run["nats"], goal),
            f"{run['seconds']:.1f} s",
            percent(run["seconds"] / peer["budget_seconds"]),
            f"{run['parameters']:,}",
        )
        for number, run in enumerate(peer["runs"], 1)
    ]
    of_what = "the peer's mean" if peer["runs"] else "the budget"
    head = (
        "run",
        "validation loss, nats per character",
        f"against {goal:.2f}",
        "wall time",
        f"of {of_what}",
        "parameters",
    )
    notes = (
        "The wall time of seqjax is that of the whole process: start, imports, compilation, training, "
        "evaluations, samples and the end. That of the peer is its training and its evaluations "
        "alone; its import is not in it."
    )
    order = f"They ran in the order {', '.join(results['order'])}."
    return "\n".join([*table(head, rows, numbers=True), "", f"{notes} {order}", ""])


def against_goals(results: dict[str, Any]) -> str:
    """How far above or below, in words."""
    lines = [loss_line(results), time_line(results), *peer_lines(results)]
    return "\n".join(f"- {line}" for line in lines) + "\n"


def loss_line(results: dict[str, Any]) -> str:
    """The loss of all seeds against the goal."""
    goal, seeds = results["goal"]["nats"], results["seeds"]
    losses = [run["nats"] for run in seeds]
    reached = sum(loss <= goal for loss in losses)
    return (
        f"**Loss, at most {goal:.2f} nats per character**: {met(reached, len(seeds))}. "
        f"Mean {statistics.mean(losses):.4f}, which is {difference(statistics.mean(losses), goal)}; "
        f"the best seed is {difference(min(losses), goal)}, the worst {difference(max(losses), goal)}."
    )


def time_line(results: dict[str, Any]) -> str:
    """The wall time of all seeds against that of the peer."""
    budget, seeds = results["peer"]["budget_seconds"], results["seeds"]
    times = [run["wall_seconds"] for run in seeds]
    within = sum(seconds <= budget for seconds in times)
    whose = "the mean of the peer's runs" if results["peer"]["runs"] else "the budget given"
    longest = max(times) - budget
    return (
        f"**Time, at most {budget:.1f} s** ({whose}): {met(within, len(seeds))}. "
        f"Mean {statistics.mean(times):.1f} s; the slowest seed took {max(times):.1f} s, "
        f"{abs(longest):.1f} s {'less' if longest <= 0 else 'more'}."
    )


def peer_lines(results: dict[str, Any]) -> list[str]:
    """What the peer reached here, or why it did not run."""
    peer, published = results["peer"], results["goal"]["published_peer_nats"]
    if not peer["runs"]:
        return [f"The peer was not run: {peer['why_not_run']}."]
    ends = ", ".join(f"{run['nats']:.4f}" for run in peer["runs"])
    by_recipe = ", ".join(f"{run['recipe_nats']:.3f}" for run in peer["runs"])
    imports = ", ".join(f"{run['import_seconds']:.1f} s" for run in peer["runs"])
    return [
        f"The peer publishes {published:.2f}. Here it ends at {ends} over the whole of the held-out "
        f"text, and at {by_recipe} by its own estimate from random batches. Importing it took {imports}."
    ]


def other_times(results: dict[str, Any]) -> str:
    """First signs of life, generation, import."""
    seeds, generation, imports = results["seeds"], results["generation"], results["import"]
    length, calls = generation["characters"], generation["calls"]
    rows = [
        ("first loss on the screen, from the start", listed(seeds, "first_loss_seconds")),
        ("first sample on the screen, from the start", listed(seeds, "first_sample_seconds")),
        (
            f"`sj.generate`, one text at a time (median of {calls} × {length:,} characters)",
            f"{generation['generate']['characters_per_second']:,.0f} characters/s",
        ),
        (
            f"`sj.stream`, one character at a time (median of {calls} × {length:,})",
            f"{generation['stream']['characters_per_second']:,.0f} characters/s",
        ),
        (
            f"`import seqjax` beyond `import jax` (median of {imports['repeats']} processes)",
            f"{imports['seqjax_seconds']:.2f} s (jax itself: {imports['jax_seconds']:.2f} s)",
        ),
    ]
    return "\n".join([*table(("what", "measured"), rows), ""])


def machine(results: dict[str, Any]) -> str:
    """The machine, the threads, the versions and the options."""
    here, device = results["machine"], results["generation"]["device"]
    peer = results["peer"]["runs"]
    threads = f"; PyTorch with {peer[0]['threads']} threads" if peer else ""
    environment = ", ".join(f"{k}={v}" for k, v in here["environment"].items())
    rows = [
        (
            "processor",
            f"{here['processor']}, {here['cores_usable']} of {here['cores']} cores usable",
        ),
        ("system", f"{here['system']}, load average {here['load_average']} before the start"),
        ("JAX runs on", f"{device['count']} × {device['platform']} ({device['kind']}){threads}"),
        ("environment", environment or "no variable that sets threads or devices"),
        ("versions", ", ".join(f"{k} {v}" for k, v in results["versions"].items())),
        ("options of char_lm", ", ".join(f"{k} {v}" for k, v in results["options"].items())),
    ]
    return "\n".join([*table(("", ""), rows), ""])


def table(
    head: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: bool = False
) -> list[str]:
    """The lines of a Markdown table; columns of numbers, all but the first, are set to the right."""
    rules = ["---", *["---:" if numbers else "---"] * (len(head) - 1)]
    return [f"| {' | '.join(row)} |" for row in (head, rules, *rows)]


def fenced(kind: str, text: str) -> str:
    """A block of text as it is, but for spaces at the ends of lines and empty lines around it."""
    lines = [line.rstrip() for line in text.strip("\n").split("\n")]
    return "\n".join([f"```{kind}", *lines, "```", ""])


def listed(seeds: Sequence[dict[str, Any]], name: str) -> str:
    """The median of all seeds, and each."""
    values = [run[name] for run in seeds]
    each = ", ".join(f"{value:.1f}" for value in values)
    return f"{statistics.median(values):.1f} s (seeds: {each})"


def percent(share: float) -> str:
    """A share of one, in percent."""
    return f"{100 * share:.0f} %"


def difference(value: float, goal: float) -> str:
    """How far `value` is from the goal, and on which side."""
    return f"{abs(value - goal):.4f} {'below' if value <= goal else 'above'}"


def met(count: int, total: int) -> str:
    """How many seeds reached a goal."""
    if count == total:
        return f"reached by all {total} seeds" if total > 1 else "reached"
    return f"**missed** by {total - count} of {total} seeds" if total > 1 else "**missed**"
