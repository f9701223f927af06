"""A language model to train: its sizes, its initial weights, and the ids that every contestant is given.

x_t = E[id_t]     s_t, y_t = LSTM₂(LSTM₁(s_{t-1}, x_t))     p(id_{t+1}) = softmax(y_t V + a)

The loss is the mean of -log p over a window; the state goes on into the next window, the gradient does
not. Each window is one update: ∇ ← ∇ · min(1, τ / ‖∇‖), then Adam. NumPy alone: the process of a peer
that is not on JAX has no JAX in it.
"""

import gc
import math
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from benchmarks.peers import problem
from benchmarks.peers.problem import Problem, Shape

LAYERS = 2
"""Of LSTM, one on the other."""

COMPARED = 3
"""Updates whose losses are compared before anything is timed."""

Step = Callable[[], float]
"""One update, on the next window: its loss, before the update; it is waited for."""


class Sizes(NamedTuple):
    """Tokens V, units H of the embedding and of each layer, sequences B, steps T of a window."""

    vocabulary: int
    features: int
    batch: int
    time: int

    def __str__(self) -> str:
        """As tables have it."""
        return f"{self.vocabulary:,}, {self.features}, {self.batch}, {self.time}"


class Task(NamedTuple):
    """What is trained: embedding E [V, H], layers, readout V [H, V] and a [V]; ids [windows, T + 1, B].

    clip: τ; learning_rate: α of Adam.
    """

    sizes: Sizes
    embedding: np.ndarray
    layers: tuple[Problem, ...]
    readout_kernel: np.ndarray
    readout_bias: np.ndarray
    ids: np.ndarray
    clip: float = 1.0
    learning_rate: float = 1e-3


def drawn(sizes: Sizes, windows: int, seed: int = 0) -> Task:
    """E from N(0, 1), all else uniform, no bias zero; every id as likely as another.

    V is drawn from U(-4/√H, 4/√H), so that the logits are far from all alike, and the losses say what
    stands before them.
    """
    random = np.random.default_rng(seed)
    vocabulary, features, batch, time = sizes
    limit = 4 / math.sqrt(features)
    uniform = lambda *shape: random.uniform(-limit, limit, shape).astype(np.float32)
    return Task(
        sizes,
        random.standard_normal((vocabulary, features), np.float32),
        # One step of one sequence: of such a layer only the weights are wanted.
        tuple(
            problem.drawn("LSTM", Shape(1, 1, features, features), seed=seed + 1 + number)
            for number in range(LAYERS)
        ),
        uniform(features, vocabulary),
        uniform(vocabulary),
        random.integers(0, vocabulary, (windows, time + 1, batch), np.int32),
    )


class Begun(NamedTuple):
    """A training after its first updates: their losses, and the seconds until the first was done."""

    step: Step
    first_call_seconds: float
    losses: list[float]


def begin(prepare: Callable[[], Step]) -> Begun:
    """Prepare, and make the updates whose losses are compared; the first one compiles."""
    start = time.perf_counter()
    step = prepare()
    losses = [step()]
    seconds = time.perf_counter() - start
    return Begun(step, seconds, losses + [step() for _ in range(COMPARED - 1)])


def seconds_of(step: Step, updates: int) -> float:
    """Seconds of one update, out of so many."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        start = time.perf_counter()
        for _ in range(updates):
            step()
        return (time.perf_counter() - start) / updates
    finally:
        if collecting:
            gc.enable()


def deviation(came: list[float], expected: list[float]) -> float:
    """The largest difference of a loss, in units of the expected one; NaN where any is."""
    return float(np.max(np.abs(np.subtract(came, expected)) / np.abs(expected)))
