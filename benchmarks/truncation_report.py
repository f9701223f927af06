"""docs/truncation.md, written from results/truncation.json: every measured number comes from there."""

import statistics
from typing import Any

from benchmarks.shakespeare_report import table

NEEDED = ("made", "machine", "versions", "options", "biases", "costs")

INTRODUCTION = """\
# Truncated backpropagation

<!-- Written by `python -m benchmarks.truncation`: change benchmarks/truncation_report.py instead. -->

BPTT carries gradients back over a whole sequence. Truncated backpropagation takes one every k1 steps and
carries it back over k2: less time until an update, less memory, and a gradient that leaves out whatever
lies further back. How much is left out, and what is saved?

```python
update = sj.tbptt(16).update(loss, optimizer)       # every 16 steps an update, gradients over 16 steps
update = sj.tbptt(16, 64).update(loss, optimizer)   # the same updates, gradients over the last 64 steps
once = sj.tbptt(16, 64, accumulate=True).update(loss, optimizer)  # one update a batch, from their sum
gradient = sj.tbptt(16, 1024)(loss)                 # 1024 steps with fixed params: BPTT in little memory
```

These are two algorithms. An update in every window changes the params between windows, so that later
windows of a batch have better ones already. `sj.tbptt(k1, k2)(loss)`, and the update with `accumulate`,
take the truncated gradient of the mean loss over the batch; where k2 is the whole length it is that of
BPTT.
"""

CHOICES = (
    (
        "k2 = k1",
        "The usual form, and the default: each block of k1 steps by itself. A loss at the start of a "
        "block reaches back one step, one at its end k1.",
    ),
    (
        "k2 > k1",
        "Every loss reaches back at least k2 - k1 + 1 steps. A window runs the older blocks again, one "
        "at a time, from the carries that they started from.",
    ),
    ("k2 < k1", "The first k1 - k2 steps of a block run forward only; the last k2 count."),
    ('`losses="new"`', "A window counts the losses of its new steps: each loss once."),
    (
        '`losses="window"`',
        "It counts all losses that it reaches, as the mean over the window: each about k2 / k1 times, "
        "every time with another reach.",
    ),
    (
        '`weight="nats"`',
        "Blocks are weighed by the tokens that this metric counted, not by their steps: right where "
        "masks leave blocks with unequal numbers of real tokens.",
    ),
)

REMARKS = """\
When params change between windows (an update in each, with k2 > k1), the carries that older blocks start
from were made by older params. They stay as they were; the blocks are run again with the current params.
The gradient of a window is then the chain of exact derivatives of its blocks, each taken at the current
params and at the old carry. With fixed params there is no such mixture.

Resets and lengths travel inside the batch: a gradient stops where a document begins, and windows never
reach back beyond the start of the batch. Each block has one key, also when it is run again.

A window longer than the batch raises an error, unless `short_batches=True` says that the last batch of
a pass may be short (`sj.data.Windows` gives it so). `tbptt(k1)` alone takes a short batch as one short
window.
"""

PICTURE = "![Bias, cosine, time and memory against k2](../benchmarks/results/truncation.png)\n"


def document(results: dict[str, Any]) -> str:
    """The whole page, in Markdown.

    Raises a ValueError for results that lack a part.
    """
    missing = [name for name in NEEDED if not results.get(name)]
    if missing:
        raise ValueError(
            f"the results hold no {', '.join(missing)}; expected what python -m benchmarks.truncation "
            "writes: measure again"
        )
    parts = [INTRODUCTION, "## What the choices mean\n"]
    parts += [*table(("choice", "meaning"), CHOICES), "", REMARKS]
    parts += [
        "## How far from the exact gradient\n",
        setting(results),
        PICTURE,
    ]
    for form, words in FORMS.items():
        parts += [f"### {words}\n", biases_table(results, form)]
    parts += ["## Time and memory\n", costs_words(results), costs_table(results)]
    parts += ["## How it is made\n", making(results), "## Where\n", machine(results)]
    return "\n".join(parts)


FORMS = {
    "k1 = 1": "k1 = 1: every loss reaches back exactly k2 steps",
    "k1 = k2": "k1 = k2: the usual blocks, in which losses reach back 1 … k2 steps",
}


def setting(results: dict[str, Any]) -> str:
    """What is measured, in words."""
    o, seeds = results["options"], len({row["seed"] for row in results["biases"]})
    return (
        f"Networks of {o['features']} features at their initial values, {o['time']} steps, "
        f"{o['lanes']} sequences side by side; inputs and the targets of a linear readout at every "
        "step are random numbers. g is the gradient `tbptt(k1, k2)(loss)`, g* is `bptt(loss)`, over all "
        f"weights, readout included. In float64; medians over {seeds} seed{'s' * (seeds > 1)}. The "
        "first number is the relative bias ‖g - g*‖ / ‖g*‖, the second the cosine between the two.\n"
    )


def biases_table(results: dict[str, Any], form: str) -> str:
    """A row for each k2, a column for each network."""
    names = networks(results)
    rows = []
    for k2 in lengths(results):
        found = [
            (bias(results, n, form, k2, "bias"), bias(results, n, form, k2, "cosine"))
            for n in names
        ]
        rows.append((str(k2), *(f"{shown(a)}, {b:.3f}" for a, b in found)))
    return "\n".join([*table(("k2", *names), rows, numbers=True), ""])


def bias(results: dict[str, Any], network: str, form: str, k2: int, what: str) -> float:
    """The median over the seeds of "bias" or "cosine"."""
    k1 = 1 if form == "k1 = 1" else k2
    return statistics.median(
        row[what]
        for row in results["biases"]
        if (row["network"], row["k1"], row["k2"]) == (network, k1, k2) and row[what] is not None
    )


def shown(value: float) -> str:
    """Two digits."""
    return f"{value:.2f}" if value >= 0.095 else f"{value:.1e}" if value else "0"


def networks(results: dict[str, Any]) -> list[str]:
    """In the order in which they were measured."""
    return list(dict.fromkeys(row["network"] for row in results["biases"]))


def lengths(results: dict[str, Any]) -> list[int]:
    """Every k2."""
    return sorted({row["k2"] for row in results["biases"]})


def costs_words(results: dict[str, Any]) -> str:
    """What the columns of the next table are."""
    return (
        "One gradient over the whole batch by the LSTM, in float32, per k2 (per k1 in the last two "
        "columns, where k2 = T and the gradient is that of BPTT). Memory is what the compiled program "
        "holds beside its arguments and results.\n"
    )


def costs_table(results: dict[str, Any]) -> str:
    """A row for each length: seconds and memory of the three forms; the last row is BPTT."""
    head = ["length"]
    for form in ("k1 = 1, k2 = length", "k1 = k2 = length", "k1 = length, k2 = T"):
        head += [form, "memory"]
    rows = []
    for length in lengths(results):
        pairs = [cost(results, form, length) for form in ("k1 = 1", "k1 = k2", "k2 = T")]
        rows.append((str(length), *(entry for pair in pairs for entry in pair)))
    exact = cost(results, "bptt", max(lengths(results)))
    rows.append(("*BPTT*", *exact * 3))
    return "\n".join([*table(head, rows, numbers=True), ""])


def cost(results: dict[str, Any], form: str, length: int) -> tuple[str, str]:
    """Milliseconds and KiB."""
    of = "k1" if form == "k2 = T" else "k2"
    (row,) = (r for r in results["costs"] if (r["form"], r[of]) == (form, length))
    return f"{1000 * row['seconds']:.1f} ms", f"{row['temporary_bytes'] / 1024:,.0f} KiB"


def making(results: dict[str, Any]) -> str:
    """How the numbers come about."""
    return (
        "`python -m benchmarks.truncation` measures and writes the JSON, the picture and this page; "
        "`--report-only` draws and writes again. The `Elman` network has tanh and a random U of "
        "spectral radius 0.9, and forgets; the `IRNN` has relu and U = I, and forgets nothing; the "
        "forget gate of the LSTM starts near σ(1) = 0.73. A trained network may remember for longer "
        "than it did at first: these are the biases of untrained ones. Seconds are those of the "
        f"quickest of {results['options']['repeats']} calls after one that is not counted, each waited "
        "for; memory is `memory_analysis().temp_size_in_bytes` of the compiled program.\n"
    )


def machine(results: dict[str, Any]) -> str:
    """The machine, the versions, the day."""
    here = results["machine"]
    environment = ", ".join(f"{k}={v}" for k, v in here["environment"].items())
    rows = [
        (
            "processor",
            f"{here['processor']}, {here['cores_usable']} of {here['cores']} cores usable",
        ),
        ("system", f"{here['system']}, load average {here['load_average']} before the start"),
        ("environment", environment or "no variable that sets threads or devices"),
        ("versions", ", ".join(f"{k} {v}" for k, v in results["versions"].items())),
        ("measured", results["made"]),
    ]
    return "\n".join([*table(("", ""), rows), ""])
