"""The section of docs/benchmarks.md on layers, and the table at the end of a run: all from the JSON."""

from collections.abc import Sequence
from typing import Any

from benchmarks.peers import FASTEST_OF, PEERS
from benchmarks.peers.problem import Shape
from benchmarks.shakespeare_report import table

FIRST = ["B, T, D, H", "pass", "ours, ms", "of matmul"]
DASH = "–"

INTRODUCTION = """\
## One layer, forward and backward{where}

`python -m benchmarks layers`: one layer over T steps in float32, weights and xs as arguments of one
compiled program; forward+backward is the gradient of mean(y²) with respect to the weights. The numbers
say **how many times as long as `sj.unroll` with its defaults each takes**, so above 1 ours is faster:
the median over {rounds} rounds of the ratio in that round. "Of matmul" is the rate of ours in its
matmuls, in units of that of one large matmul in the same round; with one sequence it is memory that
limits, not that. "Fastest" is the fastest of {fastest} with the same function;
"ours, state" is `remat="state"`.

![How many times as long as ours]({picture})
"""


def section(results: dict[str, Any]) -> str:
    """The section: a table for each cell, what is not in it, and what it ran on."""
    device = results["device"]
    parts = [
        INTRODUCTION.format(
            where="" if device["platform"] == "cpu" else f", on {device['kind']}",
            rounds=results["rounds"],
            fastest=", ".join(FASTEST_OF),
            picture=f"../benchmarks/results/{results['name']}.png",
        )
    ]
    for cell in cells(results):
        parts += [f"### {cell}{where(results)}\n", *table(*rows(results, cell), numbers=True), ""]
    parts += [*(f"- {note}" for note in notes(results)), "", ran_on(results), ""]
    return "\n".join(parts)


def text(results: dict[str, Any]) -> str:
    """The same for a terminal."""
    parts = []
    for cell in cells(results):
        head, body = rows(results, cell)
        parts += [*aligned([[cell, *head], *(["", *row] for row in body)]), ""]
    return "\n".join([*parts, *notes(results), rate(results)])


def where(results: dict[str, Any]) -> str:
    """What keeps headings of two devices apart."""
    device = results["device"]
    return "" if device["platform"] == "cpu" else f", {device['kind']}"


def cells(results: dict[str, Any]) -> list[str]:
    """Those that were measured."""
    return list(dict.fromkeys(case["cell"] for case in results["cases"]))


def others(results: dict[str, Any]) -> list[str]:
    """All contestants but ours, PyTorch before the rest."""
    known = ["torch", "ours, state", *(name for name in PEERS if name != "torch")]
    ran = {name for case in results["cases"] for name in case["contestants"]}
    return [name for name in known if name in ran]


def rows(results: dict[str, Any], cell: str) -> tuple[list[str], list[list[str]]]:
    """The head and the rows of a cell."""
    names = others(results)
    jax_peers = any(name in FASTEST_OF for name in names)
    head = [*FIRST, *names[:1], *(["fastest"] if jax_peers else []), *names[1:]]
    body = []
    for case in results["cases"]:
        if case["cell"] != cell:
            continue
        row = [
            str(Shape._make(case["shape"])),
            case["kind"],
            f"{case['contestants']['ours']['median_ms']:,.3g}",
            f"{100 * case['share_of_matmul_rate']:.0f} %",
        ]
        for name in head[len(FIRST) :]:
            row.append(fastest(case) if name == "fastest" else ratio(case, name))
        body.append(row)
    return head, body


def ratio(case: dict[str, Any], name: str) -> str:
    """Its time to ours; a dagger where it is another function."""
    if name not in case["ratios"]:
        return DASH
    peer = PEERS.get(name)
    mark = " †" if peer is not None and peer.variant(case["cell"]) else ""
    return f"{case['ratios'][name]:.2f}{mark}"


def fastest(case: dict[str, Any]) -> str:
    """The ratio, and whose it is."""
    name = case["fastest"]
    return DASH if name is None else f"{case['ratios'][name]:.2f} ({name})"


def notes(results: dict[str, Any]) -> list[str]:
    """Who is missing where, and who computes something else."""
    found = [f"{name} is missing: {why}." for name, why in results["missing"].items()]
    if set(others(results)) <= {"ours, state"}:
        found.append("No other library was there: ours was timed alone.")
    left_out: dict[str, None] = {}
    for case in results["cases"]:
        for name, why in case["left_out"].items():
            at = f"{case['cell']} {case['kind']}, B, T, D, H = {Shape._make(case['shape'])}"
            known = case["cell"] in PEERS[name].without
            note = f"{name} {why}." if known else f"{name} is left out of {at}: {why}."
            left_out[note] = None
    for name in others(results):
        for cell in cells(results):
            variant = PEERS[name].variant(cell) if name in PEERS else None
            if variant:
                found.append(f"† {name}: its {cell} {variant}.")
    return [*found, *left_out]


def rate(results: dict[str, Any]) -> str:
    """The machine's own rate."""
    matmul = results["matmul"]
    one = matmul["one_core_gflops"]
    alone = "" if one is None else f", {one:,.0f} on one core"
    return f"One matmul of {matmul['size']}²: {matmul['gflops']:,.0f} GFLOP/s{alone}."


def ran_on(results: dict[str, Any]) -> str:
    """The machine, the threads and the versions."""
    machine = results["machine"]
    packages = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    threads = ", ".join(f"{name} {count}" for name, count in results["threads"].items())
    device = results["device"]
    on = machine["processor"] if device["platform"] == "cpu" else device["kind"]
    return (
        f"Measured on {results['made']}: {on}, {machine['cores_usable']} cores, {machine['system']}, "
        f"load {machine['load_average']} at the start; threads: {threads}. {rate(results)} {packages}."
    )


def aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    """Columns for a terminal, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    left = 3  # the cell, the shape, the pass
    return [
        "  ".join(
            word.ljust(width) if n < left else word.rjust(width)
            for n, (word, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
