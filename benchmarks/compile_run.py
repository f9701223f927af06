"""The measurements of benchmarks.compile: tracing and compiling anew, in turn, round after round."""

import contextlib
import gc
import importlib
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

import seqjax as sj
from benchmarks.compile_programs import BUILDERS, Program, gradient_of, layers_of
from benchmarks.layers_run import agree, reason, significant
from benchmarks.peers import PEERS, ours
from benchmarks.peers.problem import Shape, sample
from seqjax.engines import driver

COMPILED = "/jax/core/compile/backend_compile_duration"
"""What JAX reports whenever it compiles a program."""


class Case(NamedTuple):
    """What is compiled: the cell, and how many steps of how many layers."""

    cell: str
    time: int
    depth: int

    def __str__(self) -> str:
        """As progress has it."""
        return f"{self.cell}, {self.time} steps, {self.depth} layer{'s' * (self.depth > 1)}"


class Seconds(NamedTuple):
    """Of one compilation: to StableHLO, and from there to a program that runs."""

    trace: float
    compile: float


class Sizes(NamedTuple):
    """B, D and H, the same in all cases; H above the first layer is D."""

    batch: int
    inputs: int
    features: int


@contextlib.contextmanager
def without_cache() -> Iterator[None]:
    """No programs from earlier processes: neither read nor written."""
    before = jax.config.values["jax_enable_compilation_cache"]
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", before)


def compiled_anew(program: Program, xs: Any) -> tuple[Seconds, Any]:
    """A new function, traced and compiled by a JAX that has forgotten all others; and the program."""
    jax.clear_caches()
    forward = program.make()
    gc.collect()
    collecting = gc.isenabled()
    gc.disable()
    try:
        start = time.perf_counter()
        lowered = jax.jit(gradient_of(forward)).lower(program.params, xs)
        traced = time.perf_counter()
        compiled = lowered.compile()
        end = time.perf_counter()
    finally:
        if collecting:
            gc.enable()
    return Seconds(traced - start, end - traced), compiled


class Entry(NamedTuple):
    """A contestant of a case, and what it has shown."""

    program: Program
    xs: Any
    deviation: float | None
    seconds: list[Seconds]


def installed(names: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """The peers that can be imported, and why the others cannot."""
    present, missing = [], {}
    for name in names:
        if not PEERS[name].installed:
            missing[name] = f"{PEERS[name].distribution} is not installed"
            continue
        try:
            importlib.import_module(PEERS[name].module)
        except Exception as error:  # whatever a library of others does, it is named and left out
            missing[name] = reason(error)
            continue
        present.append(name)
    return present, missing


def enter(
    case: Case, sizes: Sizes, names: Sequence[str], say: Callable[[str], None]
) -> tuple[dict[str, Entry], dict[str, str]]:
    """The contestants of a case, each of which has compiled once and computed what ours computes.

    That compilation is not counted: libraries import parts of themselves at their first.
    """
    shape = Shape(sizes.batch, case.time, sizes.inputs, sizes.features)
    layers = layers_of(case.cell, shape, case.depth)
    xs = jnp.asarray(layers[0].xs)
    entries: dict[str, Entry] = {}
    left_out: dict[str, str] = {}
    expected: list[list[float]] = []
    for name in ("ours", *names):
        if name != "ours" and case.cell in PEERS[name].without:
            left_out[name] = f"has no {case.cell}"
            continue
        try:
            program = BUILDERS[name](layers)
            program = program._replace(params=jax.tree.map(jnp.asarray, program.params))
            _, compiled = compiled_anew(program, xs)
            gradient = jax.tree.map(np.asarray, compiled(program.params, xs))
            found = sample(program.weights(gradient))
            expected = expected or found
            other = name != "ours" and PEERS[name].variant(case.cell)
            deviation = None if other else agree(found, expected)
        except Exception as error:
            if name == "ours":
                raise
            left_out[name] = reason(error)
            say(f"{name} is left out of {case}: {left_out[name]}")
            continue
        entries[name] = Entry(program, xs, deviation, [])
    return entries, left_out


def measure(
    cases: Sequence[Case],
    sizes: Sizes,
    names: Sequence[str],
    rounds: int,
    say: Callable[[str], None],
) -> list[dict[str, Any]]:
    """All cases, round after round; each begins with another contestant, every second goes backwards."""
    begun = time.perf_counter()
    entered = [enter(case, sizes, names, say) for case in cases]
    say(f"all programs compile and agree, {time.perf_counter() - begun:.0f} s")
    for number in range(rounds):
        for case, (entries, _) in zip(cases, entered, strict=True):
            order = list(entries)
            first = number % len(order)
            order = order[first:] + order[:first]
            for name in order if number % 2 == 0 else reversed(order):
                entry = entries[name]
                entry.seconds.append(compiled_anew(entry.program, entry.xs)[0])
            latest = {name: sum(entry.seconds[-1]) for name, entry in entries.items()}
            told = ", ".join(f"{name} {seconds:.2f}" for name, seconds in latest.items())
            say(f"round {number + 1}/{rounds}: {case}: {told} s")
    return [
        {**case._asdict(), "contestants": shown(entries), "left_out": left_out}
        for case, (entries, left_out) in zip(cases, entered, strict=True)
    ]


def shown(entries: dict[str, Entry]) -> dict[str, Any]:
    """Every round, the medians, and the median over rounds of the ratio to ours."""
    mine = [sum(each) for each in entries["ours"].seconds]
    return {
        name: {
            "trace_seconds": [significant(each.trace) for each in entry.seconds],
            "compile_seconds": [significant(each.compile) for each in entry.seconds],
            "trace": significant(statistics.median(each.trace for each in entry.seconds)),
            "compile": significant(statistics.median(each.compile for each in entry.seconds)),
            "total": significant(statistics.median(sum(each) for each in entry.seconds)),
            "ratio": significant(
                statistics.median(
                    sum(each) / of_ours for each, of_ours in zip(entry.seconds, mine, strict=True)
                )
            ),
            "deviation": None if entry.deviation is None else significant(entry.deviation),
        }
        for name, entry in entries.items()
    }


class Counted(NamedTuple):
    """Traces of `sj.unroll`, one entry each, and compilations of any program."""

    traces: list[None]
    compilations: list[None]


@contextlib.contextmanager
def counted() -> Iterator[Counted]:
    """Count the traces and compilations of a block.

    A trace is counted where `unroll` prepares its plan, once in each: JAX itself reports only those
    traces that lie within no other.
    """
    found = Counted([], [])
    real = driver.prepare

    def prepare(*arguments: Any) -> Any:
        found.traces.append(None)
        return real(*arguments)

    def listen(event: str, duration_secs: float, **rest: Any) -> None:
        if event == COMPILED:
            found.compilations.append(None)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        with mock.patch.object(driver, "prepare", prepare):
            yield found
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def ways(cell: str, shape: Shape) -> dict[str, Callable[[Any], Any]]:
    """How `sj.unroll` is used: each calls it with a cell that may have been made anew."""
    (layer,) = layers_of(cell, shape, 1)
    _, params_of = ours.CELLS[cell]
    params, xs = params_of(*map(jnp.asarray, layer.weights)), jnp.asarray(layer.xs)

    def loss(cell: Any, params: Any) -> Any:
        return jnp.mean(jnp.square(sj.unroll(cell, params, xs)[1]))

    under_jit = jax.jit(jax.grad(loss, argnums=1), static_argnums=0)
    return {
        "sj.unroll": lambda cell: sj.unroll(cell, params, xs),
        "jax.grad of it": lambda cell: jax.grad(loss, argnums=1)(cell, params),
        "jax.jit of that, the cell static": lambda cell: under_jit(cell, params),
    }


def traced_again(cell: str, shape: Shape) -> list[dict[str, Any]]:
    """How often ours is traced, and anything compiled: at the first call, and at those after it.

    again: with a cell made anew with an equal configuration. other: with one of another configuration.
    """
    make, _ = ours.CELLS[cell]
    calls = {
        "first": lambda: make(shape.features),
        "again": lambda: make(shape.features),
        "other": lambda: make(shape.features, bias_init="uniform_fan_in"),
    }
    found = []
    for way, call in ways(cell, shape).items():
        jax.clear_caches()
        counts: dict[str, Any] = {"cell": cell, "way": way}
        for name, made in calls.items():
            with counted() as came:
                jax.block_until_ready(call(made()))
            counts[name] = {field: len(value) for field, value in came._asdict().items()}
        found.append(counts)
    return found
