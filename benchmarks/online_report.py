"""docs/online.md, written from results/online.json: every measured number comes from there."""

from typing import Any

from benchmarks.shakespeare_report import table

INTRODUCTION = """\
# Online gradient rules

<!-- Written by `python -m benchmarks.online`: change benchmarks/online_report.py instead. -->

A rule is a method, as `sj.bptt` and `sj.tbptt(k1)` are, made for one cell. It needs no past: at each
step it has the gradient of the loss of that step. Its loss is `step_loss(head, y, target) -> scalar`,
its params are those of the cell and those of the loss:

```python
params = sj.OnlineParams(cell.init(key, in_features), head)
rule = sj.rtrl(cell, every=8)
gradient = rule(step_loss)                         # of the sum over all steps, with params held constant
update = rule.update(step_loss, optimizer)         # every 8 steps an update, from their summed gradients
online = rule.online(step_loss)                    # one step at a time: online.init and online.update
state = online.init(params, (batch,), key=key)     # also the carry of the two above
state, grads, loss, y = online.update(params, state, x, target, reset=begins)
```

`sj.training.fit(step_loss, ..., method=rule)` trains with it.

## What each rule costs in theory

For one row of the batch and one step, with n entries of the state and P params: for a dense cell of k
units P grows as k², n as k. The step of the cell itself takes time O(P). BPTT over T steps takes time
O(P) a step too, and memory O(T n).
"""

THEORY = (
    ("rule", "carries", "memory", "time", "gradient", "cells"),
    (
        "`sj.rtrl`, units mix",
        "∂s_t/∂θ",
        "O(n P)",
        "O(n² P)",
        "exact",
        "every causal cell, stacks included",
    ),
    (
        "`sj.rtrl`, units do not mix",
        "its entries that can differ from zero",
        "O(P)",
        "O(P)",
        "exact",
        "diagonal, element-wise and linear cells, one layer",
    ),
    (
        "`sj.snap(cell, n)`",
        "the entries reached within n steps, d for each param",
        "O(d P)",
        "O(d² P), and n VJPs by the state where units mix",
        "biased, less so for larger n",
        "every causal cell, stacks included",
    ),
    (
        "`sj.uoro`",
        "two random vectors whose product is ∂s_t/∂θ on the mean",
        "O(n + P)",
        "O(P)",
        "unbiased, noisy",
        "every causal cell, stacks included",
    ),
    (
        "`sj.eprop`",
        "an eligibility trace for each param",
        "O(P)",
        "O(P)",
        "biased: what goes round through the recurrent kernel is cut",
        "gated cells",
    ),
    (
        "`sj.rflo`",
        "an eligibility trace for each param",
        "O(P)",
        "O(P)",
        "biased, as e-prop",
        "(leaky) `sj.Elman`",
    ),
)

AFTERWARDS = """\
A rule reads off the program of `cell.step`, never off values, which entries of ∂s_t/∂θ can ever differ
from zero, and keeps no others. In a stack of cells whose units do not mix, a lower layer reaches every
unit above it, so only the last layer is cheap. A readout that reaches no state is not carried at all.
"""


def document(results: dict[str, Any]) -> str:
    """The page."""
    machine, settings = results["machine"], results["settings"]
    load = machine["load_average"]
    busy = "" if load is None else f", load average {load} at the start"
    measured = (
        "## What each rule costs here\n\n"
        "Time of one step with its gradient in µs, in brackets as a multiple of BPTT's in the same run, "
        f"and the memory that the rule carries. Batch {settings['batch']}, inputs as wide as the cell, "
        f"float32; scans over {settings['steps']} steps, the median of {settings['rounds']} rounds in "
        "which all rules of a cell take turns.\n"
    )
    where = (
        f"Made on {results['made']}: {machine['processor']}, {machine['cores_usable']} cores{busy}, "
        f"jax {results['versions']['jax']}.\n"
    )
    theory, lines = ("\n".join(table(head, body)) for head, *body in (THEORY, rows(results)))
    parts = [INTRODUCTION, theory, AFTERWARDS, measured, lines, where]
    return "\n".join(part.rstrip("\n") + "\n" for part in parts)


def rows(results: dict[str, Any]) -> list[tuple[str, ...]]:
    """One line for each cell and size."""
    cells = list(dict.fromkeys((m["cell"], m["size"]) for m in results["measured"]))
    rules = [r for r in dict.fromkeys(m["rule"] for m in results["measured"]) if r != "bptt"]
    found = {(m["cell"], m["size"], m["rule"]): m for m in results["measured"]}
    lines = [("cell", "H", "BPTT", *(f"`sj.{rule}`" for rule in rules))]
    for cell, size in cells:
        base = found[cell, size, "bptt"]["microseconds"]
        entries = [entry(found.get((cell, size, rule)), base) for rule in rules]
        lines.append((f"`{cell}`", str(size), f"{base:.3g} µs", *entries))
    return lines


def entry(measured: dict[str, Any] | None, base: float) -> str:
    """Time, its multiple of BPTT's, and memory; a dash where the rule does not serve the cell."""
    if measured is None:
        return "–"
    time, size = measured["microseconds"], measured["trace_bytes"] / 1024
    return f"{time:,.0f} µs ({time / base:,.1f} ×), {size:,.0f} KiB"
