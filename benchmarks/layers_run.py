"""The measurements of benchmarks.layers: all contestants in turn, round after round."""

import contextlib
import importlib
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from benchmarks.peers import FASTEST_OF, PEERS, PROCESS_OF_ITS_OWN, Peer, cores, matmul, ours
from benchmarks.peers.problem import Prepared, Problem, Shape, deviation, drawn, flops, sample
from benchmarks.peers.timing import seconds_of
from benchmarks.peers.worker import Worker
from benchmarks.processes import MeasurementError

AT_LEAST = 0.03
"""Seconds that the calls of one measurement last together."""

CORES = ", cores"
"""What is added to the name of a contestant whose batch is divided among all cores."""

OURS_ON_CORES = cores.OURS + CORES

OURSELVES = Peer("ours", "seqjax", "seqjax")
"""What `PEERS` would have of ours."""

LARGEST_DEVIATION = 0.02
"""Above it a contestant computes something else: roundings, those of TF32 too, stay far below."""


class Case(NamedTuple):
    """What is timed."""

    cell: str
    shape: Shape
    kind: str

    def __str__(self) -> str:
        """As progress has it."""
        return f"{self.cell} {self.kind}, B, T, D, H = {self.shape}"


class Contestant(NamedTuple):
    """How it is timed, and what its first call said."""

    time: Callable[[float], float]
    first_call_seconds: float
    sample: list[list[float]]


Run = Callable[[Case, Problem], Contestant]


class Present(NamedTuple):
    """The peers that can be run, those that cannot and why, their threads, and the cores of all."""

    runs: dict[str, Run]
    missing: dict[str, str]
    threads: dict[str, Any]
    cores: int


def start(names: Sequence[str], device: Any, threads: int, stack: contextlib.ExitStack) -> Present:
    """Import the peers that are installed; processes of their own end with `stack`."""
    present = Present({}, {}, {}, threads)
    for name in names:
        peer = PEERS[name]
        if not peer.installed:
            present.missing[name] = f"{peer.distribution} is not installed"
            continue
        try:
            if name in PROCESS_OF_ITS_OWN:
                worker = stack.enter_context(Worker(name))
                present.threads[name] = worker.ask("start", device.platform, threads)["threads"]
                present.runs[name] = remote(worker)
            else:
                present.runs[name] = local(importlib.import_module(peer.module).prepare)
        except Exception as error:  # whatever a library of others does, it is named and left out
            present.missing[name] = reason(error)
    return present


def start_on_cores(
    names: Sequence[str],
    shapes: Sequence[Shape],
    device: Any,
    threads: int,
    stack: contextlib.ExitStack,
) -> dict[str, Run]:
    """Ours, and those of the peers on JAX that are installed, with the batch divided among all cores."""
    divisible = any(shape.batch % threads == 0 for shape in shapes)
    if device.platform != "cpu" or threads < 2 or not divisible:
        return {}
    runs: dict[str, Run] = {}
    for name in cores.NAMES:
        if name == cores.OURS or (name in names and PEERS[name].installed):
            worker = stack.enter_context(Worker(name, cores.__name__))
            worker.ask("start", device.platform, threads)
            runs[name + CORES] = remote(worker)
    return runs


def local(prepare: Callable[..., Prepared], *options: Any) -> Run:
    """A contestant in this process."""

    def run(case: Case, problem: Problem) -> Contestant:
        begun = time.perf_counter()
        prepared = prepare(problem, case.kind, *options)
        result = prepared.run()
        seconds = time.perf_counter() - begun
        timed = lambda at_least: seconds_of(prepared.run, at_least)
        return Contestant(timed, seconds, sample(prepared.read(result)))

    return run


def remote(worker: Worker) -> Run:
    """A contestant in its own process, which draws the same numbers."""

    def run(case: Case, problem: Problem) -> Contestant:
        return Contestant(worker.time, **worker.ask("prepare", *case))

    return run


def measure(
    case: Case,
    present: Present,
    device: Any,
    rounds: int,
    say: Callable[[str], None],
    number: str,
) -> dict[str, Any]:
    """One layer, by all contestants."""
    problem = drawn(case.cell, case.shape)
    contestants = {way: local(ours.prepare, way)(case, problem) for way in ours.WAYS}
    expected = contestants["ours"].sample
    deviations = {name: agree(each.sample, expected) for name, each in contestants.items()}
    left_out = {}
    for name, run in present.runs.items():
        peer = PEERS.get(name.removesuffix(CORES), OURSELVES)
        if case.cell in peer.without:
            left_out[name] = f"has no {case.cell}"
            continue
        if name.endswith(CORES) and case.shape.batch % present.cores:
            continue  # there is no row for each
        try:
            contestant = run(case, problem)
            if peer.variant(case.cell) is None:
                deviations[name] = agree(contestant.sample, expected)
        except Exception as error:  # as above
            left_out[name] = reason(error)
            say(f"{name} is left out of {case}: {left_out[name]}")
            continue
        contestants[name] = contestant
    size = matmul.SIZES["cpu" if device.platform == "cpu" else "gpu"]
    big = matmul.prepare(size)
    big()
    calls = {name: contestant.time for name, contestant in contestants.items()}
    seconds = in_turn(calls | {"matmul": lambda at_least: seconds_of(big, at_least)}, rounds)
    rates = [matmul.flops(size) / each for each in seconds.pop("matmul")]
    found = {
        "cell": case.cell,
        "shape": list(case.shape),
        "kind": case.kind,
        "flops": flops(*case),
        "floor_ms": significant(1e3 * flops(*case) / statistics.median(rates)),
        "matmul_gflops": [significant(rate / 1e9) for rate in rates],
        "contestants": {
            name: {
                "seconds": [significant(each) for each in seconds[name]],
                "median_ms": significant(1e3 * statistics.median(seconds[name])),
                "first_call_seconds": significant(contestant.first_call_seconds),
                "deviation": significant(deviations[name]) if name in deviations else None,
            }
            for name, contestant in contestants.items()
        },
        "left_out": left_out,
        **compared(seconds, case, rates, "ours"),
    }
    if OURS_ON_CORES in seconds:
        found["cores"] = compared(seconds, case, rates, OURS_ON_CORES)
    say(f"{number} {case}: ours {found['contestants']['ours']['median_ms']:.3g} ms, " + told(found))
    return found


def in_turn(calls: Mapping[str, Callable[[float], float]], rounds: int) -> dict[str, list[float]]:
    """Seconds of one call of each, round after round, after a round that is not counted.

    Each round begins with another, and every second one goes backwards, so that none has the same
    neighbours all the time.
    """
    names = list(calls)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds + 1):
        first = number % len(names)
        order = names[first:] + names[:first]
        for name in order if number % 2 else reversed(order):
            each = calls[name](AT_LEAST)
            if number:
                seconds[name].append(each)
    return seconds


def compared(
    seconds: Mapping[str, Sequence[float]], case: Case, rates: Sequence[float], mine: str
) -> dict[str, Any]:
    """Medians of the ratios of each round: the times of the others to that of `mine`.

    fastest: that of the libraries on JAX whose median is the least, as their documents use them, out of
    those with the same function; fastest_cores: the same with the batch divided among all cores.
    share: the rate of `mine` in its matmuls, in units of that of the big matmul in the same round.
    """
    base = seconds[mine]
    ratios = {
        name: significant(statistics.median(a / b for a, b in zip(each, base, strict=True)))
        for name, each in seconds.items()
        if name != mine
    }
    median = lambda name: statistics.median(seconds[name])
    same = [name for name in FASTEST_OF if case.cell not in PEERS[name].other]
    divided = [name + CORES for name in same]
    shares = [flops(*case) / each / rate for each, rate in zip(base, rates, strict=True)]
    return {
        "ratios": ratios,
        "fastest": min((name for name in same if name in seconds), key=median, default=None),
        "fastest_cores": min((n for n in divided if n in seconds), key=median, default=None),
        "share_of_matmul_rate": significant(statistics.median(shares)),
    }


def agree(came: list[list[float]], expected: list[list[float]]) -> float:
    """The deviation of a sample. Raises a MeasurementError where it is that of another function."""
    found = deviation(came, expected)
    if not found <= LARGEST_DEVIATION:  # NaN, too
        raise MeasurementError(
            f"it computes something else: its results are {found:.2g} of the largest away from ours"
        )
    return found


def rate_of(cases: Sequence[dict[str, Any]]) -> float:
    """GFLOP/s of the big matmul, the median over all rounds of all cases."""
    return significant(statistics.median(rate for case in cases for rate in case["matmul_gflops"]))


def told(found: dict[str, Any]) -> str:
    """The ratios in a line."""
    return ", ".join(f"{name} {ratio:.2f}" for name, ratio in found["ratios"].items())


def significant(value: float) -> float:
    """Four digits, which is more than a clock knows."""
    return float(f"{value:.4g}")


def reason(error: Exception) -> str:
    """An error of a library in one line."""
    said = str(error).strip().split("\n")[0]
    return said if isinstance(error, MeasurementError) else f"{type(error).__name__}: {said}"
