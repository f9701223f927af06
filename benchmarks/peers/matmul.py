"""The machine's own rate: one matmul of large square matrices, float32, on all cores and on one."""

import json
import os
import statistics
from collections.abc import Callable

import jax
import numpy as np

from benchmarks.peers.timing import seconds_of
from benchmarks.processes import watch

SIZES = {"cpu": 2048, "gpu": 8192}
"""Rows and columns: large enough for the rate to grow no more, on each kind of device."""


def prepare(size: int) -> Callable[[], object]:
    """A call that multiplies two matrices of N(0, 1) and waits."""
    random = np.random.default_rng(0)
    a, b = (jax.numpy.asarray(random.standard_normal((size, size), np.float32)) for _ in range(2))
    run = jax.jit(lambda a, b: a @ b)
    return lambda: jax.block_until_ready(run(a, b))


def flops(size: int) -> int:
    """Multiplications and additions."""
    return 2 * size**3


def one_core(rounds: int = 5) -> float | None:
    """FLOP/s of a fresh process that is held to one core; None where no process can be held."""
    if not hasattr(os, "sched_setaffinity"):
        return None
    return watch(["-m", "benchmarks.peers.matmul", str(SIZES["cpu"]), str(rounds)]).result


def main(size: int, rounds: int) -> None:
    """Print the median rate on one core."""
    # Before JAX starts its threads, which inherit it.
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    jax.config.update("jax_platforms", "cpu")
    call = prepare(size)
    call()
    seconds = statistics.median(seconds_of(call, 0.03) for _ in range(rounds))
    print(json.dumps(flops(size) / seconds))


if __name__ == "__main__":
    import sys

    main(*map(int, sys.argv[1:]))
