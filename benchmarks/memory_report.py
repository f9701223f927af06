"""docs/memory.md, written from results/memory.json: every measured number comes from there."""

from typing import Any

import seqjax as sj
from benchmarks.memory_run import CELLS, Shape
from benchmarks.shakespeare_report import fenced, table

INTRODUCTION = """\
# Memory: what reverse mode keeps

<!-- Written by `python -m benchmarks.memory`: change benchmarks/memory_report.py instead. -->

Backpropagation through T steps needs what each step computed. `sj.unroll(..., remat=...)` says how much
of it waits in memory, and how much is computed a second time:

| remat | what is kept | what is computed twice |
|---|---|---|
| `"auto"` | of most gated cells on a CPU the states and the gates; else as `None` | nothing |
| `None` | what autodiff keeps of each step: inputs of every product, every gate | nothing |
| `"state"` | the states s_t | z, r and the gates; of a gated cell for a chunk of steps side by side |
| `"sqrt"` | one state in ⌈√T⌉ steps | the run, one segment after another, and what `"state"` does |
| an integer | one state in so many steps | the same |

Values and gradients are the same. `sj.unroll_fold` folds the loss into the run, so
that the outputs, and what is made of them, exist for one segment (or 64 steps) at a time.
`sj.plan_memory(cell, time, batch)` says beforehand what each choice takes:
"""

PICTURE = "![Bytes against the number of steps](../benchmarks/results/memory.png)\n"

HOW = """\
## How it is made

Bytes are those that XLA sets aside for the compiled gradient with respect to the parameters
(`compiled.memory_analysis().temp_size_in_bytes`), so inputs, parameters and the gradient itself are not
among them; nothing has to be run for them. The loss is a mean of squares of every output, of the last
state, or, folded, of every output by `sj.unroll_fold`. "Planned" is `kept + working` of
`sj.plan_memory`, and twice the outputs where the loss looks at all of them.

Times are of the same gradient, in one process, the choices in turn, round after round after one that is
not counted, each blocked until it is ready. A ratio is the median over rounds of the time to that of the
plain scan in the same round.
"""

TARGETS = (
    ("every output", "state", 0.6e9, 1.1),
    ("last state", "state", 0.35e9, 1.1),
    ("folded", "state", 0.35e9, 1.1),
    ("last state", "sqrt", 0.06e9, 1.5),
    ("folded", "sqrt", 0.06e9, 1.5),
)
"""Loss, remat, bytes and ratio of time to the plain scan: what is to be reached by the LSTM."""
LONGEST = 0.3e9


def page(results: dict[str, Any]) -> str:
    """The whole page."""
    long, longest = Shape._make(results["long"]), Shape._make(results["longest"])
    plan = sj.plan_memory(
        CELLS["LSTM"](long.features), long.time, long.batch, in_features=long.inputs
    )
    parts = [
        INTRODUCTION,
        fenced("text", str(plan)),
        PICTURE,
        f"## Goals\n\nLSTM, {long}. Time is in units of the plain scan's, with a loss of every output, "
        "or of the last state where the loss is that.\n",
        *goals(results, longest),
        f"\n## Every cell, {long}\n",
        *every_cell(results),
        "",
        HOW,
        f"{ran_on(results)}\n",
    ]
    return "\n".join(parts)


def goals(results: dict[str, Any], longest: Shape) -> list[str]:
    """Each goal beside what was measured."""
    rows = []
    for loss, remat, most, slowest in TARGETS:
        size = one(results["bytes"], "LSTM", results["long"], loss, remat)["temporary_bytes"]
        ratio = one(results["times"], "LSTM", results["long"], loss, remat)["ratio"]
        rows.append(
            [
                loss,
                f'`"{remat}"`',
                f"≤ {most / 1e6:,.0f} MB",
                verdict(f"{size / 1e6:,.1f} MB", size <= most),
                f"≤ {slowest}",
                verdict(f"{ratio:.2f}", ratio <= slowest),
            ]
        )
    for loss in ("last state", "folded"):
        size = one(results["bytes"], "LSTM", list(longest), loss, "sqrt")["temporary_bytes"]
        reached = verdict(f"{size / 1e6:,.1f} MB", size <= LONGEST)
        where = f"{loss}, {longest}"
        rows.append([where, '`"sqrt"`', f"≤ {LONGEST / 1e6:,.0f} MB", reached, "", ""])
    return table(["loss", "remat", "goal", "bytes", "goal", "time"], rows)


def every_cell(results: dict[str, Any]) -> list[str]:
    """Bytes by XLA and by the plan."""
    rows = []
    for entry in results["bytes"]:
        if entry["shape"] != results["long"]:
            continue
        remat = "None" if entry["remat"] is None else f'"{entry["remat"]}"'
        rows.append(
            [
                entry["cell"],
                entry["loss"],
                f"`{remat}`",
                f"{entry['temporary_bytes'] / 1e6:,.1f}",
                f"{entry['planned_bytes'] / 1e6:,.1f}",
            ]
        )
    return table(["cell", "loss", "remat", "MB by XLA", "MB planned"], rows)


def one(
    entries: list[dict[str, Any]], cell: str, shape: list[int], loss: str, remat: str | None
) -> dict[str, Any]:
    """The one entry of a case."""
    wanted = [cell, shape, loss, remat]
    (found,) = [e for e in entries if [e[n] for n in ("cell", "shape", "loss", "remat")] == wanted]
    return found


def verdict(text: str, reached: bool) -> str:
    """What was measured, and whether it reaches the goal."""
    return f"**{text}**" if reached else f"{text} (not reached)"


def ran_on(results: dict[str, Any]) -> str:
    """The machine and the versions."""
    machine = results["machine"]
    packages = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    return (
        f"Measured on {results['made']}: {machine['processor']}, {machine['cores_usable']} cores, "
        f"{machine['system']}, load {machine['load_average']} at the start, {results['rounds']} rounds; "
        f"{packages}."
    )
