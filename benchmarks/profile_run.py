"""The measurements of benchmarks.profile: a layer under the profiler, its operations by what they do."""

import collections
import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from benchmarks.layers_run import significant
from benchmarks.peers import ours
from benchmarks.peers.problem import Shape, drawn
from benchmarks.processes import MeasurementError

KINDS = ("matmuls", "helping", "gates", "memory", "dispatch", "idle")
"""What a core may do: multiply matrices; work without a name, which is what a second core has of a
matmul; other arithmetic; move and fill arrays; go from one operation to the next; nothing."""

MATMULS = ("dot", "ynn_fusion", "convolution")
MOVES = {"copy", "broadcast", "slice", "concatenate", "transpose", "bitcast", "wrapped", "fusion"}
MOVES |= {"dynamic-slice", "dynamic-update-slice", "pad", "iota", "reverse", "convert"}
CONTROL = ("while", "call", "conditional")

HEAVIEST = 4
"""How many operations are named."""


class Event(NamedTuple):
    """What one thread did from `start` on, in nanoseconds."""

    name: str
    start: float
    duration: float


def case(cell: str, shape: Shape, kind: str, calls: int, cores: int) -> dict[str, Any]:
    """Milliseconds of one call, and what the cores did meanwhile, as shares of all their time."""
    forward, params = ours.layer(problem := drawn(cell, shape))
    loss = lambda params, xs: jnp.mean(jnp.square(forward(params, xs)))
    program = jax.jit(forward if kind == "forward" else jax.grad(loss))
    run = lambda: jax.block_until_ready(program(params, jnp.asarray(problem.xs)))
    run()
    seconds = [timed(run) for _ in range(calls)]
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            busy = time.process_time()
            traced = sum(timed(run) for _ in range(calls))
            busy = time.process_time() - busy
        operations = own_times(threads(Path(folder)))
    return {
        "cell": cell,
        "shape": list(shape),
        "kind": kind,
        "ms": significant(1e3 * statistics.median(seconds)),
        "traced_ms": significant(1e3 * traced / calls),
        "shares": shares(operations, 1e9 * busy, 1e9 * traced * cores),
        "heaviest": heaviest(operations, 1e9 * traced * cores),
    }


def timed(run: Any) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def threads(folder: Path) -> Iterator[list[Event]]:
    """The events of each thread of XLA in a trace."""
    files = list(folder.glob("**/*.xplane.pb"))
    if not files:
        raise MeasurementError("the profiler wrote no trace; expected one, as JAX 0.10 writes it")
    for plane in jax.profiler.ProfileData.from_file(str(files[0])).planes:
        for line in plane.lines:
            if "XLA" in line.name:
                events = (Event(e.name, e.start_ns, e.duration_ns) for e in line.events)
                yield [event for event in events if "wait for" not in event.name]


def own_times(threads: Iterable[list[Event]]) -> dict[str, float]:
    """Nanoseconds of each operation, without those of what runs inside it, over all threads."""
    own: dict[str, float] = collections.defaultdict(float)
    for events in threads:
        around: list[Event] = []
        for event in sorted(events, key=lambda e: (e.start, -e.duration)):
            while around and event.start >= around[-1].start + around[-1].duration:
                around.pop()
            if around:
                own[around[-1].name] -= event.duration
            own[event.name] += event.duration
            around.append(event)
    return own


def kind_of(name: str) -> str:
    """What an operation of this name does; XLA names a fusion after what it joins."""
    bare = name.split(".")[0]
    if "Await" in name:  # of YNNPACK's threads, which work on parts of a matmul while they wait
        return "matmuls"
    if "::" in name or bare in CONTROL or not bare[:1].islower():
        return "dispatch"
    if bare.startswith(MATMULS) or "_dot_" in bare:
        return "matmuls"
    return "memory" if set(bare.split("_")) <= MOVES else "gates"


def shares(operations: dict[str, float], busy: float, whole: float) -> dict[str, float]:
    """Of the time of all cores, by kind. busy: what the process had of it."""
    found = dict.fromkeys(KINDS, 0.0)
    for name, nanoseconds in operations.items():
        found[kind_of(name)] += nanoseconds / whole
    found["helping"] = max(0.0, busy / whole - sum(found.values()))
    found["idle"] = max(0.0, 1 - sum(found.values()))
    return {kind: round(share, 4) for kind, share in found.items()}


def heaviest(operations: dict[str, float], whole: float) -> dict[str, float]:
    """The operations of the program that take most."""
    working = {n: t for n, t in operations.items() if "::" not in n and kind_of(n) != "dispatch"}
    names = sorted(working, key=lambda name: -working[name])[:HEAVIEST]
    return {name: round(working[name] / whole, 4) for name in names}
