"""The section of docs/benchmarks.md on training, and the table of a run: all from the JSON."""

from typing import Any

from benchmarks.frame import aligned, ran_on, where
from benchmarks.peers.language import COMPARED, LAYERS, Sizes
from benchmarks.peers.language_ours import FORMS
from benchmarks.shakespeare_report import table
from benchmarks.train_run import LIBRARIES, ON_CORES

GOAL = 1.0
"""How many times as long as ours each library takes, at least."""

DASH = "–"

HEAD = ["", "tokens a second", "ms an update", "times as long as ours", "first call, s"]

INTRODUCTION = """\
## Training a language model{where}

`python -m benchmarks train`: {layers} layers of LSTM between an embedding and a readout of its own,
gradient clipped at 1, Adam, float32, the state carried from window to window. A turn is {updates}
updates from ids as NumPy has them, each waited for; the ids of every update are new, and the same for
all. **Times as long as ours** is the median over {rounds} rounds of the ratio in that round, so above 1
ours is faster. All begin with the same weights; their first {compared} losses differ from ours by
at most {deviation:.1e} of themselves.

Ours is `sj.models.LanguageModel` and `sj.optim.clipped_adamw` by the update of `sj.training.fit`, with
masks, resets, accuracy and the skipping of non-finite gradients. "State" and "sqrt" are its `remat`:
sqrt folds the loss into segments of the run, so that logits never exist for a whole window. "At once"
is `model.apply` and the loss of all logits, without masks, resets and accuracy. "Cores" is
`sj.training.use_cores()`: every core a device, which share each batch, in a process of its own. linen
is `nn.RNN` and optax, one compiled update whose buffers are given to the next; torch is `nn.LSTM`,
`nn.Linear` and `torch.optim.Adam` on {threads}, whose second bias is held at zero.

![Tokens a second]({picture})
"""


def section(results: dict[str, Any]) -> str:
    """The section: whether the goal is reached, a table for each model, notes, what it ran on."""
    deviations = [
        contestant["deviation"]
        for case in results["cases"]
        for contestant in case["contestants"].values()
    ]
    threads = results["threads"].get("torch")
    parts = [
        INTRODUCTION.format(
            where=where(results),
            layers=LAYERS,
            updates=results["updates"],
            rounds=results["rounds"],
            compared=COMPARED,
            deviation=max(deviations),
            threads="all threads" if threads is None else f"{threads} threads",
            picture=f"../benchmarks/results/{results['name']}.png",
        ),
        *(f"- {line}" for line in goals(results)),
        "",
    ]
    for case in results["cases"]:
        head = [titled(case), *HEAD[1:]]
        parts += [*table(head, rows(case), numbers=True), ""]
    found = [f"- {note}" for note in notes(results)]
    parts += [*found, *([""] if found else []), ran_on(results), ""]
    return "\n".join(parts)


def text(results: dict[str, Any]) -> str:
    """The same for a terminal."""
    parts = []
    for case in results["cases"]:
        parts += [*aligned([[titled(case), *HEAD[1:]], *rows(case)], 1), ""]
    return "\n".join([*parts, *goals(results), *notes(results)])


def titled(case: dict[str, Any]) -> str:
    """Which model."""
    return f"V, H, B, T = {Sizes._make(case['sizes'])}"


def contestants(case: dict[str, Any]) -> list[str]:
    """Those that ran, ours first."""
    return [name for name in (*FORMS, ON_CORES, *LIBRARIES[::-1]) if name in case["contestants"]]


def rows(case: dict[str, Any]) -> list[list[str]]:
    """A row for each."""
    found = []
    for name in contestants(case):
        one = case["contestants"][name]
        ratio = case["ratios"].get(name)
        found.append(
            [
                name,
                f"{one['tokens_per_second']:,.0f}",
                f"{one['median_ms']:,.3g}",
                DASH if ratio is None else f"{ratio:.2f}",
                f"{one['first_call_seconds']:.1f}",
            ]
        )
    return found


def goals(results: dict[str, Any]) -> list[str]:
    """For each library, where ours is at least as fast, and where it is not; the same on all cores."""
    found = []
    for library in LIBRARIES[::-1]:
        for ours, ratios in (("ours", "ratios"), (ON_CORES, "ratios_to_cores")):
            cases = [case for case in results["cases"] if library in case[ratios]]
            if cases:
                verdicts = "; ".join(verdict(case, case[ratios][library]) for case in cases)
                found.append(
                    f"{library} beside {ours} (goal: at least {GOAL:.2f} times as long): {verdicts}."
                )
    return found


def verdict(case: dict[str, Any], ratio: float) -> str:
    """What came of the goal for one model."""
    reached = "reached" if ratio >= GOAL else "not reached"
    return f"{ratio:.2f} at {titled(case)}, {reached}"


def notes(results: dict[str, Any]) -> list[str]:
    """Who is missing where."""
    found = [f"{name} is missing: {why}." for name, why in results["missing"].items()]
    ran = {name for case in results["cases"] for name in case["contestants"]}
    if not ran & set(LIBRARIES):
        found.append("No other library was there: ours was timed alone.")
    for case in results["cases"]:
        found += [
            f"{name} is left out of {titled(case)}: {why}."
            for name, why in case["left_out"].items()
        ]
    return found
