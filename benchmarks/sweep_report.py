"""The section of docs/benchmarks.md on sweeps, and the table at the end of a run: all from the JSON."""

from typing import Any

from benchmarks.frame import aligned, ran_on, where
from benchmarks.shakespeare_report import table
from benchmarks.sweep_run import FORMS, LARGEST_DIFFERENCE, LAST, RATES, SINGLES

GOALS = {"cpu": 1.0, "gpu": 4.0}
"""How many times as long as the one program the single trainings take, at least."""

INTRODUCTION = """\
## A sweep in one program{where}

`python -m benchmarks sweep`: N models trained together by the program of `sj.training.sweep`, beside
the same N trainings one after another, each by the program of `sj.training.fit` on one device. Each is
an LSTM of {features} units on the adding problem over {time} steps, {batch} sequences an update, clipped
Adam, float32; each has a seed of its own and one of {rates} learning rates. The numbers say **how many
times as long the N single trainings take for one update of all N**, so above 1 the sweep is faster: the
median over {rounds} rounds of the ratio in that round. Programs are compiled before, and every update is
waited for. "map" and "vmap" are `across` of the sweep; `across="auto"` is {auto} here. On several
devices each holds its share of the members.

"First call" is tracing, compilation and one update: of the N single trainings together, each of which
compiles its own program as `fit` does, and of the one program of the sweep ({auto}). "Total" is that
and {more} updates more, so {steps} in all.

![How many times as long N single trainings take]({picture})
"""


def section(results: dict[str, Any]) -> str:
    """The section: whether the goal is reached, a table for each number of devices, what it ran on."""
    parts = [
        INTRODUCTION.format(
            where=where(results),
            rates=len(RATES),
            rounds=results["rounds"],
            steps=results["steps"],
            more=results["steps"] - 1,
            auto=results["auto"],
            picture=f"../benchmarks/results/{results['name']}.png",
            **results["sizes"],
        ),
        *(f"- {line}" for line in findings(results)),
        "",
    ]
    for devices in counts(results):
        parts += [f"### {named(results, devices)}{where(results)}\n"]
        parts += [*table(*rows(results, devices), numbers=True), ""]
    return "\n".join([*parts, ran_on(results), ""])


def text(results: dict[str, Any]) -> str:
    """The same for a terminal."""
    parts = []
    for devices in counts(results):
        head, body = rows(results, devices)
        parts += [named(results, devices), *aligned([head, *body], 0), ""]
    return "\n".join([*parts, *findings(results)])


def counts(results: dict[str, Any]) -> list[int]:
    """The numbers of devices."""
    return list(dict.fromkeys(case["devices"] for case in results["cases"]))


def cases(results: dict[str, Any], devices: int) -> list[dict[str, Any]]:
    """Those on so many devices."""
    return [case for case in results["cases"] if case["devices"] == devices]


def named(results: dict[str, Any], devices: int) -> str:
    """One host device; two of them."""
    kind = "host device" if results["device"]["platform"] == "cpu" else "device"
    return f"One {kind}" if devices == 1 else f"{devices} {kind}s"


def rows(results: dict[str, Any], devices: int) -> tuple[list[str], list[list[str]]]:
    """The head and the rows of one table."""
    auto = results["auto"]
    head = [
        "N",
        "N singles, ms",
        *(f"{form}, ms" for form in FORMS),
        *(f"{form}, times" for form in FORMS),
        "first call, s: singles",
        "sweep",
        "total, s: singles",
        "sweep",
    ]
    body = []
    for case in cases(results, devices):
        of = case["contestants"]
        body.append(
            [
                str(case["members"]),
                *(f"{of[name]['median_ms']:,.3g}" for name in (SINGLES, *FORMS)),
                *(f"{case['ratios'][form]:.2f}" for form in FORMS),
                *(f"{of[name]['first_call_seconds']:,.1f}" for name in (SINGLES, auto)),
                *(f"{of[name]['total_seconds']:,.1f}" for name in (SINGLES, auto)),
            ]
        )
    return head, body


def findings(results: dict[str, Any]) -> list[str]:
    """What the numbers say of the goal, of map and vmap, and of the losses."""
    return [
        *(goal(results, devices) for devices in counts(results)),
        *(quicker(results, devices) for devices in counts(results)),
        agreement(results),
    ]


def goal(results: dict[str, Any], devices: int) -> str:
    """Where it is reached, and where not."""
    least = GOALS["cpu" if results["device"]["platform"] == "cpu" else "gpu"]
    ratios = {c["members"]: c["ratios"][results["auto"]] for c in cases(results, devices)}
    which = lambda fine: ", ".join(
        f"N = {n} ({ratio:.2f})" for n, ratio in ratios.items() if (ratio >= least) == fine
    )
    verdict = [f"reached at {which(True)}"] if which(True) else []
    verdict += [f"not reached at {which(False)}"] if which(False) else []
    return (
        f"{named(results, devices)}, {results['auto']}; goal: single trainings take at least "
        f"{least:.2f} times as long: {'; '.join(verdict)}."
    )


def quicker(results: dict[str, Any], devices: int) -> str:
    """Map or vmap, by their median times."""
    found: dict[str, list[str]] = {form: [] for form in FORMS}
    for case in cases(results, devices):
        times = {form: case["contestants"][form]["median_ms"] for form in FORMS}
        best, other = sorted(FORMS, key=times.__getitem__)
        found[best].append(f"N = {case['members']} ({times[other] / times[best]:.2f} times)")
    told = "; ".join(f"{form} at {', '.join(where)}" for form, where in found.items() if where)
    return f"{named(results, devices)}, the quicker of map and vmap: {told}."


def agreement(results: dict[str, Any]) -> str:
    """Whether member i and single training i end at the same loss."""
    differences = {
        f"{form} of N = {case['members']}, {named(results, case['devices']).lower()}": value
        for case in results["cases"]
        for form, value in case["differences"].items()
    }
    wrong = {name: v for name, v in differences.items() if not v <= LARGEST_DIFFERENCE}  # NaN, too
    what = (
        f"The final losses (mean of the last {LAST} updates) of a member and of its single training"
    )
    if not wrong:
        return (
            f"{what} agree: they differ by at most {max(differences.values()):.1e} of themselves."
        )
    told = ", ".join(f"{value:.1e} ({name})" for name, value in wrong.items())
    return f"{what} do not agree: they differ by {told}; expected at most {LARGEST_DIFFERENCE:.0e}."
