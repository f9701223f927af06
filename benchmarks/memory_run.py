"""The measurements of benchmarks.memory: XLA's own account of a compiled gradient, and its time."""

import functools
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

import seqjax as sj

CELLS: dict[str, Callable[[int], sj.Cell]] = {
    "LSTM": lambda features: sj.LSTM(features),
    "GRU": lambda features: sj.GRU(features),
    "Elman": lambda features: sj.Elman(features),
    "LSTM, two layers": lambda features: sj.Stack((sj.LSTM(features), sj.LSTM(features))),
    "MGU, not gated": lambda features: sj.MGU(features),
}
REMATS = (None, "state", "sqrt")
LOSSES = ("every output", "last state", "folded")


class Shape(NamedTuple):
    """Steps T, sequences B, inputs D, units H."""

    time: int
    batch: int
    inputs: int
    features: int

    def __str__(self) -> str:
        """As the tables have it."""
        return f"T = {self.time:,}, B = {self.batch}, D = {self.inputs}, H = {self.features}"


class Case(NamedTuple):
    """One gradient: of which loss, of which cell, keeping what."""

    cell: str
    shape: Shape
    loss: str
    remat: str | int | None


def gradient(case: Case) -> Callable[[Any, Array], Any]:
    """∂L/∂params, L the mean square of what the loss looks at."""
    cell = CELLS[case.cell](case.shape.features)
    options: Any = {"remat": case.remat}

    def loss(params: Any, xs: Array) -> Array:
        if case.loss == "folded":
            measure = lambda ys, _: sj.losses.mean_over(jnp.square(ys))
            _, mean = sj.unroll_fold(cell, params, xs, measure, **options)
            return mean.value
        state, ys = sj.unroll(cell, params, xs, **options)
        if case.loss == "every output":
            return jnp.mean(jnp.square(ys))
        return sum((jnp.mean(jnp.square(leaf)) for leaf in jax.tree.leaves(state)), jnp.zeros(()))

    return jax.grad(loss)


class Compiled(NamedTuple):
    """A gradient as a program, and what XLA says of it."""

    run: Callable[[Any, Array], Any]
    temporary: int
    seconds: float


@functools.lru_cache(maxsize=4)
def drawn(cell: str, shape: Shape) -> tuple[Any, Array]:
    """Params by the cell's own rule, inputs from N(0, 1)."""
    params = CELLS[cell](shape.features).init(jax.random.key(0), shape.inputs)
    return params, jax.random.normal(jax.random.key(1), (shape.time, shape.batch, shape.inputs))


def compiled(case: Case) -> Compiled:
    """Nothing is run; the bytes are those that XLA sets aside beside inputs and results."""
    cell, shape = CELLS[case.cell](case.shape.features), case.shape
    params = jax.eval_shape(lambda: cell.init(jax.random.key(0), shape.inputs))
    xs = jax.ShapeDtypeStruct((shape.time, shape.batch, shape.inputs), jnp.float32)
    start = time.perf_counter()
    program = jax.jit(gradient(case)).lower(params, xs).compile()
    seconds = time.perf_counter() - start
    analysis: Any = program.memory_analysis()
    return Compiled(program, analysis.temp_size_in_bytes, seconds)


def bytes_of(cases: Sequence[Case], say: Callable[[str], None]) -> list[dict[str, Any]]:
    """What each case takes, beside what `sj.plan_memory` says."""
    found = []
    for case in cases:
        program, shape = compiled(case), case.shape
        cell = CELLS[case.cell](shape.features)
        plan = sj.plan_memory(cell, shape.time, shape.batch, in_features=shape.inputs)
        planned = {row.remat: row.kept + row.working for row in plan.rows}[case.remat]
        # ys and their gradient, where the loss looks at them all.
        planned += 2 * plan.outputs if case.loss == "every output" else 0
        found.append(
            {
                **described(case),
                "temporary_bytes": program.temporary,
                "planned_bytes": planned,
                "compile_seconds": round(program.seconds, 2),
            }
        )
        say(f"{case.cell}, {shape}, {case.loss}, {case.remat!r}: {program.temporary / 1e6:,.1f} MB")
    return found


def times_of(
    cases: Sequence[Case], rounds: int, say: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Seconds of each case; all of them in turn, round after round, after one that is not counted."""
    programs = [compiled(case).run for case in cases]
    seconds: list[list[float]] = [[] for _ in cases]
    for number in range(rounds + 1):
        for case, program, each in zip(cases, programs, seconds, strict=True):
            arguments = drawn(case.cell, case.shape)
            start = time.perf_counter()
            jax.block_until_ready(program(*arguments))
            if number:
                each.append(time.perf_counter() - start)
    found = []
    for case, each in zip(cases, seconds, strict=True):
        # The ratio of each round to the first case of that round, which the machine's mood is in too.
        ratios = [a / b for a, b in zip(each, seconds[0], strict=True)]
        found.append(
            {
                **described(case),
                "seconds": [round(value, 5) for value in each],
                "ratio": round(statistics.median(ratios), 3),
            }
        )
        say(
            f"{case.cell}, {case.shape}, {case.loss}, {case.remat!r}: "
            f"{1e3 * statistics.median(each):,.1f} ms, {found[-1]['ratio']:.2f} of the first"
        )
    return found


def described(case: Case) -> dict[str, Any]:
    """A case as JSON."""
    return {**case._asdict(), "shape": list(case.shape)}
