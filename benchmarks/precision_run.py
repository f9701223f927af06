"""The measurements of benchmarks.precision: a layer, and a training, in each dtype of the matmuls."""

import dataclasses
import statistics
import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import seqjax as sj
from benchmarks.frame import Say
from benchmarks.layers_run import in_turn, significant
from benchmarks.parallel_run import Sizes, task
from benchmarks.peers import ours
from benchmarks.peers.problem import Shape, drawn
from benchmarks.peers.timing import seconds_of
from seqjax.training.fit import compiled_update

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
"""Of the operands of matmuls, and of outputs; weights, states and sums are float32 in both."""

AT_LEAST = 0.05
"""Seconds that the calls of one measurement last together."""

LAST = 20
"""Updates over which the loss at the end of a training is averaged."""


def layer(cell: str, shape: Shape, kind: str, rounds: int) -> dict[str, Any]:
    """Seconds in each dtype, in turn, and how far bfloat16 is from float32."""
    problem, calls, found = drawn(cell, shape), {}, {}
    xs = jnp.asarray(problem.xs)
    for name, dtype in DTYPES.items():
        forward, params = ours.layer(problem, dtype=dtype)
        loss = lambda params, xs, forward=forward: jnp.mean(
            jnp.square(forward(params, xs).astype(jnp.float32))
        )
        program = jax.jit(forward if kind == "forward" else jax.grad(loss))
        call = lambda program=program, params=params: jax.block_until_ready(program(params, xs))
        found[name] = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(call())]
        calls[name] = lambda at_least, call=call: seconds_of(call, AT_LEAST)
    seconds = in_turn(calls, rounds)
    pairs = zip(seconds["float32"], seconds["bfloat16"], strict=True)
    return {
        "cell": cell,
        "shape": list(shape),
        "kind": kind,
        "seconds": {name: [significant(s) for s in each] for name, each in seconds.items()},
        "speed": significant(statistics.median(wide / narrow for wide, narrow in pairs)),
        "error": significant(error(found["bfloat16"], found["float32"])),
    }


def error(came: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> float:
    """‖a - b‖ / ‖b‖ of the array for which it is largest."""
    norm = np.linalg.norm
    return float(max(norm(a - b) / norm(b) for a, b in zip(came, expected, strict=True)))


def training(features: int, updates: int, say: Say) -> dict[str, Any]:
    """A character model of one LSTM from the same weights in each dtype: losses and seconds.

    By the compiled update of `sj.training.fit`, each loss waited for.
    """
    found: dict[str, Any] = {"features": features, "updates": updates, "runs": {}}
    for name, dtype in DTYPES.items():
        model, optimizer, state, windows = task(Sizes(features, 64, 32, 48))
        cell = dataclasses.replace(model.cell, dtype=dtype)
        model = dataclasses.replace(model, cell=cell, dtype=dtype)
        update = compiled_update(sj.bptt.update(model.loss, optimizer))
        state = jax.tree.map(jnp.copy, state)
        losses, start = [], 0.0
        for number in range(updates):
            state, metrics = update(state, next(windows))
            nats = jax.device_get(metrics)["nats"]
            losses.append(float(nats.total[0] / nats.count[0]))
            start = time.perf_counter() if number == 0 else start
        seconds = (time.perf_counter() - start) / max(1, updates - 1)
        run = {"loss": float(np.mean(losses[-LAST:])), "seconds": significant(seconds)}
        found["runs"][name] = {**run, "losses": [round(loss, 6) for loss in losses]}
        say(f"LSTM {features}, {updates} updates in {name}: {run['loss']:.3f} nats")
    return found
