"""The networks, the random data, and the measurements of benchmarks.truncation."""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

import seqjax as sj
from seqjax.gradients import GradientFn
from seqjax.initializers import SpectralRadius
from seqjax.losses import mean_over

IN_FEATURES, OUT_FEATURES = 8, 4

COSTED = "LSTM, forget bias 1"
"""The network whose time and memory are measured."""


@dataclasses.dataclass(frozen=True)
class Problem:
    """Random inputs, random targets at every step."""

    features: int = 32
    """The width of every network."""
    time: int = 128
    """T: the steps of a sequence; a power of two."""
    lanes: int = 8
    """Sequences side by side."""


class Params(NamedTuple):
    """The cell, and the linear readout V of its outputs."""

    cell: Any
    readout: Array


class Arguments(NamedTuple):
    """What a gradient function takes."""

    params: Params
    carry: Any
    batch: tuple[Array, Array]
    key: None


def networks(features: int, dtype: Any) -> dict[str, sj.Cell]:
    """From one that forgets to one that does not."""
    radius = SpectralRadius(0.9)
    return {
        "Elman, radius 0.9": sj.Elman(features, recurrent_init=radius, param_dtype=dtype),
        "LSTM, forget bias 1": sj.LSTM(features, param_dtype=dtype),
        "IRNN": sj.IRNN(features, param_dtype=dtype),
    }


def loss_of(cell: sj.Cell) -> Callable[..., Any]:
    """Mean of (y_t V - target_t)² over all steps."""

    def loss(params: Params, carry: Any, batch: tuple[Array, Array], key: None) -> Any:
        xs, targets = batch
        carry, ys = sj.unroll(cell, params.cell, xs, carry)
        error = mean_over((ys @ params.readout - targets) ** 2)
        return error.value, (carry, {"error": error})

    return loss


def draw(problem: Problem, cell: sj.Cell, seed: int, dtype: Any) -> Arguments:
    """Weights by the cell's own rule, V ~ N(0, 1 / features), inputs and targets from N(0, 1)."""
    cell_key, readout_key, xs_key, targets_key = jax.random.split(jax.random.key(seed), 4)
    shape = problem.time, problem.lanes
    readout = jax.random.normal(readout_key, (cell.out_features, OUT_FEATURES), dtype)
    params = Params(cell.init(cell_key, IN_FEATURES), readout * cell.out_features**-0.5)
    batch = (
        jax.random.normal(xs_key, (*shape, IN_FEATURES), dtype),
        jax.random.normal(targets_key, (*shape, OUT_FEATURES), dtype),
    )
    return Arguments(params, cell.initial_state(params.cell, (problem.lanes,)), batch, None)


def powers(time: int) -> list[int]:
    """1, 2, 4, … T."""
    return [2**n for n in range(time.bit_length())]


def biases(
    problem: Problem, seeds: Sequence[int], say: Callable[[str], None]
) -> list[dict[str, Any]]:
    """‖g - g*‖ / ‖g*‖ and the cosine between them, in float64, for every network, length and seed."""
    found = []
    with jax.enable_x64(True):
        for name, cell in networks(problem.features, jnp.float64).items():
            loss, began = loss_of(cell), time.perf_counter()
            drawn = [draw(problem, cell, seed, jnp.float64) for seed in seeds]
            program = jax.jit(sj.bptt(loss))
            exact = [program(*arguments).grads for arguments in drawn]
            for k2 in powers(problem.time):
                for k1 in sorted({1, k2}):
                    program = jax.jit(sj.tbptt(k1, k2)(loss))
                    for seed, arguments, whole in zip(seeds, drawn, exact, strict=True):
                        compared = compare(program(*arguments).grads, whole)
                        found.append(
                            {"network": name, "k1": k1, "k2": k2, "seed": seed, **compared}
                        )
            say(f"{name}: {time.perf_counter() - began:.0f} s")
    return found


def compare(gradient: Any, exact: Any) -> dict[str, float | None]:
    """The relative length of the difference, and the cosine of the angle."""
    a, b = (jnp.concatenate([g.ravel() for g in jax.tree.leaves(t)]) for t in (gradient, exact))
    norms = jnp.linalg.norm(a), jnp.linalg.norm(b)
    return {
        "bias": rounded(float(jnp.linalg.norm(a - b) / norms[1])),
        "cosine": rounded(float(a @ b / (norms[0] * norms[1]))),
    }


def costs(problem: Problem, repeats: int, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """Seconds of one gradient over a batch, and the temporary memory of its program, in float32."""
    cell = networks(problem.features, jnp.float32)[COSTED]
    arguments, began = draw(problem, cell, 0, jnp.float32), time.perf_counter()
    found = []
    for form, k1, k2, gradient in forms(problem.time, loss_of(cell)):
        program = jax.jit(gradient).lower(*arguments).compile()
        memory: Any = program.memory_analysis()
        jax.block_until_ready(program(*arguments))
        # The least: whatever else runs on the machine can only add to it.
        seconds = min(timed(program, arguments) for _ in range(repeats))
        found.append(
            {
                "form": form,
                "k1": k1,
                "k2": k2,
                "seconds": rounded(seconds),
                "temporary_bytes": int(memory.temp_size_in_bytes),
            }
        )
    say(f"time and memory: {time.perf_counter() - began:.0f} s")
    return found


def forms(time: int, loss: Any) -> Iterator[tuple[str, int, int, GradientFn]]:
    """BPTT, the two forms whose bias is measured, and the exact gradient in blocks."""
    yield "bptt", time, time, sj.bptt(loss)
    lengths = [("k1 = 1", 1, k2) for k2 in powers(time)]
    lengths += [("k1 = k2", k2, k2) for k2 in powers(time)]
    lengths += [("k2 = T", k1, time) for k1 in powers(time)]
    for form, k1, k2 in lengths:
        yield form, k1, k2, sj.tbptt(k1, k2)(loss)


def timed(program: Callable[..., Any], arguments: Arguments) -> float:
    """Seconds until the gradient is there."""
    start = time.perf_counter()
    jax.block_until_ready(program(*arguments))
    return time.perf_counter() - start


def rounded(value: float) -> float | None:
    """Six digits; None for what JSON has no number for."""
    return float(f"{value:.6g}") if math.isfinite(value) else None
