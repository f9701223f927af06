"""The measurements of benchmarks.train: all contestants in turn, round after round."""

import contextlib
import functools
import importlib
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from benchmarks.layers_run import in_turn, reason, significant
from benchmarks.peers import PEERS, PROCESS_OF_ITS_OWN, language_ours
from benchmarks.peers.language import (
    COMPARED,
    Begun,
    Sizes,
    Step,
    Task,
    begin,
    deviation,
    drawn,
    seconds_of,
)
from benchmarks.peers.language_worker import worker
from benchmarks.peers.worker import Worker
from benchmarks.processes import MeasurementError

LIBRARIES = ("linen", "torch")
"""Those that a language model is trained in beside ours."""

ON_CORES = "ours, cores"
"""Ours with every batch shared among the cores, each a device of JAX; on a CPU."""

LARGEST_DEVIATION = 5e-4
"""Above it a contestant trains something else: roundings, those of TF32 too, stay below."""


class Contestant(NamedTuple):
    """Seconds of one update out of so many; what its first updates said."""

    time: Callable[[int], float]
    first_call_seconds: float
    losses: list[float]


Run = Callable[[Task], Contestant]


class Present(NamedTuple):
    """The peers that can be run, those that cannot and why, and how many threads those have."""

    runs: dict[str, Run]
    missing: dict[str, str]
    threads: dict[str, Any]


def start(names: Sequence[str], device: Any, threads: int, stack: contextlib.ExitStack) -> Present:
    """Import the peers that are installed; processes of their own end with `stack`."""
    present = Present({}, {}, {})
    if device.platform == "cpu":
        present.runs[ON_CORES] = on_cores(threads, stack)
    for name in names:
        if not PEERS[name].installed:
            present.missing[name] = f"{PEERS[name].distribution} is not installed"
            continue
        try:
            if name in PROCESS_OF_ITS_OWN:
                process = stack.enter_context(worker(name))
                present.threads[name] = process.ask("start", device.platform, threads)["threads"]
                present.runs[name] = remote(process)
            else:
                module = importlib.import_module(f"benchmarks.peers.language_{name}")
                present.runs[name] = local(module.prepare)
        except Exception as error:  # whatever a library of others does, it is named and left out
            present.missing[name] = reason(error)
    return present


def local(prepare: Callable[..., Step], *options: Any) -> Run:
    """A contestant in this process."""

    def run(task: Task) -> Contestant:
        begun: Begun = begin(lambda: prepare(task, *options))
        timed = functools.partial(seconds_of, begun.step)
        return Contestant(timed, begun.first_call_seconds, begun.losses)

    return run


def remote(process: Worker) -> Run:
    """A contestant in its own process, which draws the same numbers."""

    def run(task: Task) -> Contestant:
        answer = process.ask("prepare", task.sizes, len(task.ids))
        return Contestant(process.time, **answer)

    return run


def on_cores(threads: int, stack: contextlib.ExitStack) -> Run:
    """Ours in a process of its own; in another one for each task, as devices are made only once."""

    def run(task: Task) -> Contestant:
        process = stack.enter_context(worker("cores"))
        process.ask("start", "cpu", threads)
        return remote(process)(task)

    return run


def measure(
    sizes: Sizes,
    present: Present,
    rounds: int,
    updates: int,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """One model, trained by all contestants on the same windows; each window is new to each of them."""
    task = drawn(sizes, COMPARED + (rounds + 1) * updates)
    runs = {name: local(language_ours.prepare, form) for name, form in language_ours.FORMS.items()}
    contestants: dict[str, Contestant] = {}
    deviations, left_out = {}, {}
    for name, run in (runs | present.runs).items():
        try:
            contestant = run(task)
            deviations[name] = agree(contestant.losses, contestants.get("ours", contestant).losses)
        except Exception as error:  # as above, but ours has to run
            if name == "ours":
                raise
            left_out[name] = reason(error)
            say(f"{name} is left out of V, H, B, T = {sizes}: {left_out[name]}")
            continue
        contestants[name] = contestant
        say(
            f"V, H, B, T = {sizes}: {name} begins at {contestant.losses[0]:.4f} nats, "
            f"first call {contestant.first_call_seconds:.1f} s"
        )
    calls = {name: turn(contestant, updates) for name, contestant in contestants.items()}
    seconds = in_turn(calls, rounds)
    tokens = sizes.batch * sizes.time
    found = {
        "sizes": list(sizes),
        "tokens_per_update": tokens,
        "contestants": {
            name: {
                "seconds": [significant(each) for each in seconds[name]],
                "median_ms": significant(1e3 * statistics.median(seconds[name])),
                "tokens_per_second": significant(tokens / statistics.median(seconds[name])),
                "first_call_seconds": significant(contestant.first_call_seconds),
                "losses": contestant.losses,
                "deviation": significant(deviations[name]),
            }
            for name, contestant in contestants.items()
        },
        "left_out": left_out,
        "ratios": ratios(seconds, "ours"),
        "ratios_to_cores": ratios(seconds, ON_CORES),
    }
    rate = found["contestants"]["ours"]["tokens_per_second"]
    others = ", ".join(f"{name} {ratio:.2f}" for name, ratio in found["ratios"].items())
    say(f"V, H, B, T = {sizes}: ours {rate:,.0f} tokens a second, {others}")
    return found


def turn(contestant: Contestant, updates: int) -> Callable[[float], float]:
    """As `in_turn` calls it; the windows of a turn are counted, not its seconds."""
    return lambda _: contestant.time(updates)


def ratios(seconds: Mapping[str, Sequence[float]], to: str) -> dict[str, float]:
    """Medians over rounds of the time of the others to that of one in the same round, if it is there."""
    base = seconds.get(to)
    if base is None:
        return {}
    return {
        name: significant(statistics.median(a / b for a, b in zip(each, base, strict=True)))
        for name, each in seconds.items()
        if name != to
    }


def agree(came: list[float], expected: list[float]) -> float:
    """The deviation of the first losses. Raises a MeasurementError where it is another training."""
    found = deviation(came, expected)
    if not found <= LARGEST_DEVIATION:  # NaN, too
        raise MeasurementError(
            f"it trains something else: its first losses are up to {found:.2g} of themselves away "
            "from ours"
        )
    return found
