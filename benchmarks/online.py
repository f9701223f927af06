"""Online gradient rules: the time of a step and the memory that a rule carries, beside BPTT.

python -m benchmarks.online                  measure: about two minutes on two cores
python -m benchmarks.online --report-only    write the page again from the JSON
"""

import dataclasses
import datetime
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import tyro

import seqjax as sj
from benchmarks import online_report
from benchmarks.files import in_lines, write_whole
from benchmarks.machine import describe_machine, versions
from benchmarks.processes import ROOT

CELLS: dict[str, Callable[[int], sj.Cell]] = {
    "Elman(H, leak=0.1)": lambda size: sj.Elman(size, leak=0.1),
    "GRU(H)": sj.GRU,
    "LSTM(H)": sj.LSTM,
    "DiagonalLSTM(H)": sj.DiagonalLSTM,
    "LRU(H)": sj.LRU,
}

RULES: dict[str, Any] = {
    "rtrl": sj.rtrl,
    "snap(1)": sj.snap,
    "uoro": sj.uoro,
    "eprop": sj.eprop,
    "rflo": sj.rflo,
}


@dataclasses.dataclass(frozen=True)
class Options:
    """Measure each rule on each cell that it serves, and report."""

    sizes: tuple[int, ...] = (16, 64)
    """H: the features of the cell, and of its inputs."""
    batch: int = 1
    """Rows, each of which has traces of its own."""
    steps: int = 16
    """Steps of one timed call, over which BPTT goes too."""
    rounds: int = 7
    """Calls of each program, turn by turn; the median counts."""
    into: Path = ROOT
    """The folder whose benchmarks/results/ and docs/ are written; the checkout unless given."""
    report_only: bool = False
    """Measure nothing: write docs/online.md again from the JSON."""


class Program(NamedTuple):
    """A compiled call over all steps, and the bytes that a rule carries from step to step."""

    call: Callable[[], Any]
    trace_bytes: int | None


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, unless only the report is asked for; then write the page."""
    options = tyro.cli(Options, args=arguments, prog="python -m benchmarks.online")
    for name in ("batch", "steps", "rounds", *(["sizes"] if not options.sizes else [])):
        if not getattr(options, name) or getattr(options, name) < 1:
            sys.exit(f"{name} is {getattr(options, name)}; expected at least 1")
    file = options.into / "benchmarks" / "results" / "online.json"
    if not options.report_only:
        write_whole(file, in_lines(measure(options)) + "\n")
    if not file.is_file():
        sys.exit(f"{file} does not exist; expected it, as a measurement writes it")
    page = options.into / "docs" / "online.md"
    write_whole(page, online_report.document(json.loads(file.read_text("utf-8"))))
    print(f"wrote {page.relative_to(options.into)}")


def measure(options: Options) -> dict[str, Any]:
    """All numbers, with the machine that they are of."""
    measured = []
    for name, size in ((name, size) for size in options.sizes for name in CELLS):
        for row in compare(name, size, options):
            measured.append(row)
            print(f"{name} at H = {size}, {row['rule']}: {row['microseconds']:.0f} µs", flush=True)
    return {
        "benchmark": "online",
        "made": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": describe_machine(),
        "versions": versions(),
        "settings": {"batch": options.batch, "steps": options.steps, "rounds": options.rounds},
        "measured": measured,
    }


def compare(name: str, size: int, options: Options) -> Iterator[dict[str, Any]]:
    """BPTT and every rule that serves the cell, turn by turn."""
    programs = build(CELLS[name](size), size, options)
    times: dict[str, list[float]] = {rule: [] for rule in programs}
    for program in programs.values():
        jax.block_until_ready(program.call())  # compiles
    for _ in range(options.rounds):
        for rule, program in programs.items():
            begin = time.perf_counter()
            jax.block_until_ready(program.call())
            times[rule].append(time.perf_counter() - begin)
    for rule, program in programs.items():
        seconds = statistics.median(times[rule]) / options.steps
        yield {
            "cell": name,
            "size": size,
            "rule": rule,
            "microseconds": round(1e6 * seconds, 1),
            "trace_bytes": program.trace_bytes,
        }


def build(cell: sj.Cell, size: int, options: Options) -> dict[str, Program]:
    """A program for BPTT and for each rule that serves the cell."""
    keys = jax.random.split(jax.random.key(0), 5)
    head = jax.random.normal(keys[0], (cell.out_features, 1))
    params = sj.OnlineParams(cell.init(keys[1], size), head)
    xs = jax.random.normal(keys[2], (options.steps, options.batch, size))
    batch = sj.OnlineBatch(xs, jax.random.normal(keys[3], (options.steps, options.batch, 1)))

    backward = jax.jit(jax.value_and_grad(lambda params: whole_loss(cell, params, batch)))
    programs = {"bptt": Program(lambda: backward(params), None)}
    for name, rule in RULES.items():
        try:
            online = rule(cell).online(step_loss)
        except ValueError:
            continue  # a cell that the rule does not serve
        state = online.init(params, (options.batch,), key=keys[4])
        forward = jax.jit(lambda state, online=online: summed(online, params, state, batch))
        call = lambda forward=forward, state=state: forward(state)
        programs[name] = Program(call, trace_bytes(state))
    return programs


def step_loss(head: jax.Array, y: jax.Array, target: jax.Array) -> jax.Array:
    """The mean squared error of a linear readout."""
    return jnp.mean(jnp.square(y @ head - target))


def whole_loss(cell: sj.Cell, params: sj.OnlineParams, batch: sj.OnlineBatch) -> jax.Array:
    """The same loss over all steps at once."""
    _, ys = sj.unroll(cell, params.cell, batch.xs)
    return step_loss(params.head, ys, batch.targets) * len(batch.xs)


def summed(online: Any, params: sj.OnlineParams, state: Any, batch: sj.OnlineBatch) -> Any:
    """The gradients of all steps, added up."""

    def step(carry: Any, inputs: sj.OnlineBatch) -> tuple[Any, jax.Array]:
        state, grads = carry
        result = online.update(params, state, inputs.xs, inputs.targets)
        return (result.state, jax.tree.map(jnp.add, grads, result.grads)), result.loss

    return jax.lax.scan(step, (state, jax.tree.map(jnp.zeros_like, params)), batch)


def trace_bytes(state: Any) -> int:
    """What a rule carries beside the recurrent state, keys included."""
    leaves = jax.tree.leaves(state._replace(cell=()))
    is_key = lambda leaf: jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return sum((jax.random.key_data(a) if is_key(a) else a).nbytes for a in leaves)


if __name__ == "__main__":
    main()
