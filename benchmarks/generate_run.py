"""The measurements of benchmarks.generate: all contestants in turn, round after round."""

import contextlib
import importlib
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from benchmarks import generate_ours
from benchmarks.generate_problem import SAMPLED, Case, Sizes
from benchmarks.layers_run import AT_LEAST, reason, significant
from benchmarks.peers import PEERS, PROCESS_OF_ITS_OWN
from benchmarks.peers.problem import Prepared
from benchmarks.peers.timing import seconds_of
from benchmarks.peers.worker import Worker
from benchmarks.processes import MeasurementError

BEGINNING = 32
"""Tokens of a text by which contestants are compared: after a near tie, texts go apart for good."""

ALIKE = 0.5
"""The share of texts that must begin as ours do; of another function none would."""


class Contestant(NamedTuple):
    """How it is timed, and what its first call said: seconds, and ids [tokens, batch]."""

    time: Callable[[float], float]
    first_call_seconds: float
    ids: np.ndarray


Run = Callable[[Case, Sizes], Contestant]


class Present(NamedTuple):
    """The peers that can be run, those that cannot and why, and how many threads those have."""

    runs: dict[str, Run]
    missing: dict[str, str]
    threads: dict[str, Any]


def start(names: Sequence[str], device: Any, threads: int, stack: contextlib.ExitStack) -> Present:
    """Import the peers that are installed; processes of their own end with `stack`."""
    present = Present({}, {}, {})
    for name in names:
        peer = PEERS[name]
        if not peer.installed:
            present.missing[name] = f"{peer.distribution} is not installed"
            continue
        try:
            if name in PROCESS_OF_ITS_OWN:
                worker = stack.enter_context(Worker(name, "benchmarks.generate_worker"))
                present.threads[name] = worker.ask("start", device.platform, threads)["threads"]
                present.runs[name] = remote(worker)
            else:
                module = importlib.import_module(f"benchmarks.generate_{name}")
                present.runs[name] = local(module.prepare)
        except Exception as error:  # whatever a library of others does, it is named and left out
            present.missing[name] = reason(error)
    return present


def local(prepare: Callable[[Case, Sizes], Prepared]) -> Run:
    """A contestant in this process."""

    def run(case: Case, sizes: Sizes) -> Contestant:
        prepared = prepare(case, sizes)
        begun = time.perf_counter()
        result = prepared.run()
        seconds = time.perf_counter() - begun
        timed = lambda at_least: seconds_of(prepared.run, at_least)
        return Contestant(timed, seconds, prepared.read(result)[0])

    return run


def remote(worker: Worker) -> Run:
    """PyTorch in its own process, which draws the same weights."""

    def run(case: Case, sizes: Sizes) -> Contestant:
        answer = worker.ask("prepare", case, sizes)
        return Contestant(worker.time, answer["first_call_seconds"], np.asarray(answer["ids"]))

    return run


def measure(
    case: Case,
    sizes: Sizes,
    present: Present,
    rounds: int,
    say: Callable[[str], None],
    number: str,
) -> dict[str, Any]:
    """One way to write, by all contestants."""
    contestants = {"ours": local(generate_ours.prepare)(case, sizes)}
    expected, same, left_out = contestants["ours"].ids, {}, {}
    for name, run in present.runs.items():
        try:
            contestant = run(case, sizes)
            if case.way != SAMPLED:  # each library draws from a generator of its own
                same[name] = agree(contestant.ids, expected)
        except Exception as error:  # as above
            left_out[name] = reason(error)
            say(f"{name} is left out of {case}: {left_out[name]}")
            continue
        contestants[name] = contestant
    seconds = in_turn({name: each.time for name, each in contestants.items()}, rounds)
    written = case.batch * sizes.tokens
    found = {
        **case._asdict(),
        "contestants": {
            name: {
                "seconds": [significant(each) for each in seconds[name]],
                "tokens_per_second": significant(written / statistics.median(seconds[name])),
                "first_call_seconds": significant(contestant.first_call_seconds),
                "same_texts": same.get(name),
            }
            for name, contestant in contestants.items()
        },
        "ratios": ratios(seconds),
        "left_out": left_out,
    }
    rates = {name: each["tokens_per_second"] for name, each in found["contestants"].items()}
    told = ", ".join(f"{name} {rate:,.0f}" for name, rate in rates.items())
    say(f"{number} {case}: {told} tokens/s")
    return found


def in_turn(calls: Mapping[str, Callable[[float], float]], rounds: int) -> dict[str, list[float]]:
    """Seconds of one call of each; each round begins with another, every second one goes backwards.

    All rounds count: a call of some seconds has been made once, to compare what it writes.
    """
    names = list(calls)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        first = number % len(names)
        order = names[first:] + names[:first]
        for name in reversed(order) if number % 2 else order:
            seconds[name].append(calls[name](AT_LEAST))
    return seconds


def ratios(seconds: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """How many times as long as ours the others take: medians of the ratios of each round."""
    mine = seconds["ours"]
    return {
        name: significant(statistics.median(a / b for a, b in zip(each, mine, strict=True)))
        for name, each in seconds.items()
        if name != "ours"
    }


def agree(came: np.ndarray, expected: np.ndarray) -> float:
    """The share of texts that are the same from the first token to the last.

    Raises a MeasurementError where fewer than half of them begin in the same way.
    """
    if came.shape != expected.shape:
        raise MeasurementError(f"it writes ids {came.shape}; expected {expected.shape}")
    equal = came == expected
    alike = float(np.mean(np.all(equal[:BEGINNING], axis=0)))
    if alike < ALIKE:
        raise MeasurementError(
            f"it writes something else: {100 * alike:.0f} % of its texts begin as ours do"
        )
    return significant(float(np.mean(np.all(equal, axis=0))))
