"""The section of docs/benchmarks.md on layers, and the table at the end of a run: all from the JSON."""

from typing import Any

from benchmarks.frame import aligned, ran_on, where
from benchmarks.layers_goals import verdicts
from benchmarks.layers_run import CORES, OURS_ON_CORES
from benchmarks.peers import FASTEST_OF, PEERS
from benchmarks.peers.ours import WAYS
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
"ours, state" is `remat="state"`, "ours, scan" `engine="scan"`. The second table of a cell is of the same
rounds, beside ours with the batch divided among all cores, as `sj.training.use_cores` trains: each of
"linen, cores" and so on has it divided in the same way, each of the others runs as its documents say.
One sequence cannot be divided.

![How many times as long as ours]({picture})
"""


def section(results: dict[str, Any]) -> str:
    """The section: a table for each cell, what is not in it, and what it ran on."""
    parts = [
        INTRODUCTION.format(
            where=where(results),
            rounds=results["rounds"],
            fastest=", ".join(FASTEST_OF),
            picture=f"../benchmarks/results/{results['name']}.png",
        )
    ]
    for cell in cells(results):
        parts += [f"### {cell}{where(results)}\n", *table(*rows(results, cell), numbers=True), ""]
        if any("cores" in case for case in results["cases"]):
            parts += [*table(*rows(results, cell, on_cores=True), numbers=True), ""]
    if results["device"]["platform"] == "cpu":
        parts += [*goals(results), ""]
    parts += [
        *(f"- {note}" for note in notes(results)),
        "",
        f"{ran_on(results)} {rate(results)}",
        "",
    ]
    return "\n".join(parts)


def text(results: dict[str, Any]) -> str:
    """The same for a terminal."""
    parts = []
    for cell in cells(results):
        for on_cores in (False, True):
            head, body = rows(results, cell, on_cores=on_cores)
            if body:
                parts += [*aligned([[cell, *head], *(["", *row] for row in body)], 3), ""]
    return "\n".join([*parts, *notes(results), rate(results)])


def cells(results: dict[str, Any]) -> list[str]:
    """Those that were measured."""
    return list(dict.fromkeys(case["cell"] for case in results["cases"]))


def others(results: dict[str, Any], *, on_cores: bool = False) -> list[str]:
    """All contestants but the one that they are set beside, PyTorch before the rest."""
    peers = [name for name in PEERS if name != "torch"]
    divided = [name + CORES for name in peers]
    known = ["torch", "ours", *divided] if on_cores else ["torch", *list(WAYS)[1:], *peers]
    ran = {name for case in results["cases"] for name in case["contestants"]}
    return [name for name in known if name in ran]


def rows(
    results: dict[str, Any], cell: str, *, on_cores: bool = False
) -> tuple[list[str], list[list[str]]]:
    """The head and the rows of a cell, beside ours, or beside ours on all cores."""
    names = others(results, on_cores=on_cores)
    fastest_of = (
        ["fastest"] if any(name.removesuffix(CORES) in FASTEST_OF for name in names) else []
    )
    if on_cores:
        fastest_of += ["fastest, cores"] if fastest_of else []
        names = [name for name in names if not name.endswith(CORES)]
    mine = OURS_ON_CORES if on_cores else "ours"
    head = [*FIRST[:2], f"{mine}, ms", FIRST[3], *names[:1], *fastest_of, *names[1:]]
    body = []
    for case in results["cases"]:
        compared = case.get("cores") if on_cores else case
        if case["cell"] != cell or compared is None:
            continue
        row = [
            str(Shape._make(case["shape"])),
            case["kind"],
            f"{case['contestants'][mine]['median_ms']:,.3g}",
            f"{100 * compared['share_of_matmul_rate']:.0f} %",
        ]
        for name in head[len(FIRST) :]:
            one = {"fastest": "fastest", "fastest, cores": "fastest_cores"}.get(name)
            row.append(named(compared, compared[one]) if one else ratio(case, compared, name))
        body.append(row)
    return head, body


def ratio(case: dict[str, Any], compared: dict[str, Any], name: str) -> str:
    """Its time to ours; a dagger where it is another function."""
    if name not in compared["ratios"]:
        return DASH
    peer = PEERS.get(name)
    mark = " †" if peer is not None and peer.variant(case["cell"]) else ""
    return f"{compared['ratios'][name]:.2f}{mark}"


def named(compared: dict[str, Any], name: str | None) -> str:
    """The ratio, and whose it is."""
    return DASH if name is None else f"{compared['ratios'][name]:.2f} ({name.removesuffix(CORES)})"


def goals(results: dict[str, Any]) -> list[str]:
    """What is to be reached on a CPU, ours on all cores where there are rows for them."""
    lines = ["### What is to be reached\n"]
    for verdict in verdicts(results):
        reached = verdict.asked - len(verdict.missed)
        line = f"- {verdict.says}: **{reached} of {verdict.asked}**"
        lines.append(f"{line}; not {', '.join(verdict.missed)}." if verdict.missed else f"{line}.")
    if any(verdict.missed for verdict in verdicts(results)):
        lines.append(
            "\nWhat the rest of the time goes to, and what was tried against it: the next section."
        )
    return lines


def notes(results: dict[str, Any]) -> list[str]:
    """Who is missing where, and who computes something else."""
    found = [f"{name} is missing: {why}." for name, why in results["missing"].items()]
    if set(others(results)) <= set(WAYS):
        found.append("No other library was there: ours was timed alone.")
    left_out: dict[str, None] = {}
    for case in results["cases"]:
        for name, why in case["left_out"].items():
            at = f"{case['cell']} {case['kind']}, B, T, D, H = {Shape._make(case['shape'])}"
            base = name.removesuffix(CORES)
            if base in PEERS and case["cell"] in PEERS[base].without:
                note = f"{base} {why}."
            else:
                note = f"{name} is left out of {at}: {why}."
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
