"""The section of docs/benchmarks.md on where the time goes, and the table of a run: from the JSON."""

from typing import Any

from benchmarks.frame import aligned, ran_on
from benchmarks.peers.problem import Shape
from benchmarks.profile_run import KINDS
from benchmarks.shakespeare_report import table

INTRODUCTION = """\
## Where the time goes

`python -m benchmarks profile`: one layer with its defaults under the profiler of JAX, which says what
each thread of XLA runs when. Shares are of the time of all {cores} cores over {calls} calls:
**matmuls**; **helping**, work that has no name in the trace, which is what a second core has of a
matmul; **gates**, all other arithmetic; **memory**, arrays that are moved or filled, page faults of
new ones included; **dispatch**, from one operation to the next; **idle**, a core without work. "ms" is
of a call that is not traced, "traced" of one that is: small operations look longer than they are. The
heaviest operations have the names of XLA's HLO after optimisation: `ynn_fusion` is a matmul by
YNNPACK, another fusion is named after what it joins.

Tried against what is not matmul, and not kept: the recurrent matmul with U turned, with the batch as
its last axis, and as one matmul for each gate (`h @ U` as it stands is as fast as any, 128 GFLOP/s in
the loop at B = 32 and H = 256, of 196 of a large one); huge pages for new arrays
(`GLIBC_TUNABLES=glibc.malloc.hugetlb=1` in the environment: 3 to 8 % less time at H ≥ 256, none below,
and as much for PyTorch); vectors of 512 bits (`XLA_FLAGS=--xla_cpu_prefer_vector_width=512`: no
difference). Kept: one chunk for all steps where their projections are small (the section on the
engine).

![What the cores do]({picture})
"""


def section(results: dict[str, Any]) -> str:
    """The section: a table, and what it ran on."""
    introduction = INTRODUCTION.format(
        cores=results["threads"]["jax"],
        calls=results["calls"],
        picture=f"../benchmarks/results/{results['name']}.png",
    )
    head, body = rows(results)
    cases = zip(body, results["cases"], strict=True)
    body = [[*line, named(case["heaviest"])] for line, case in cases]
    lines = [*table([*head, "heaviest"], body, numbers=True), "", ran_on(results), ""]
    return "\n".join([introduction, *lines])


def text(results: dict[str, Any]) -> str:
    """The same for a terminal."""
    head, body = rows(results)
    return "\n".join(aligned([head, *body], 3))


def named(shares: dict[str, float]) -> str:
    """Operations and their shares."""
    return ", ".join(f"`{name}` {share:.0%}" for name, share in shares.items())


def rows(results: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """The head and the rows: a case each."""
    head = ["cell", "B, T, D, H", "pass", "ms", "traced", *KINDS]
    body = []
    for case in results["cases"]:
        times = f"{case['ms']:,.3g}", f"{case['traced_ms']:,.3g}"
        of_kinds = [f"{case['shares'][kind]:.0%}" for kind in KINDS]
        body.append(
            [case["cell"], str(Shape._make(case["shape"])), case["kind"], *times, *of_kinds]
        )
    return head, body
