"""What is trained on what: the cells, the tasks, and the one recipe that all of them have."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

from jax import Array

import seqjax as sj
from seqjax.data import adding_problem, copy_task, parity

COPIED, ALPHABET = 10, 8

CELLS: dict[str, Callable[[int, int], sj.Cell]] = {
    "Elman (tanh)": lambda features, longest: sj.Elman(features),
    "IRNN": lambda features, longest: sj.IRNN(features),
    "SkipRNN, skip 10": lambda features, longest: sj.SkipRNN(features, skip=10),
    "ClockworkRNN": lambda features, longest: sj.ClockworkRNN(features, periods=(1, 2, 4, 8)),
    "LSTM": lambda features, longest: sj.LSTM(features),
    "LSTM, chrono": lambda features, longest: sj.LSTM(
        features, forget_bias=sj.initializers.Chrono(longest)
    ),
    "LSTM, projected": lambda features, longest: sj.LSTM(features, projection=features // 2),
    "PeepholeLSTM": lambda features, longest: sj.PeepholeLSTM(features),
    "CIFG": lambda features, longest: sj.CIFG(features),
    "SLSTM, 4 heads": lambda features, longest: sj.SLSTM(features, heads=4),
    "GRU": lambda features, longest: sj.GRU(features),
    "ChoGRU": lambda features, longest: sj.ChoGRU(features),
    "MGU": lambda features, longest: sj.MGU(features),
    "DiagonalLSTM": lambda features, longest: sj.DiagonalLSTM(features),
    "DiagonalGRU": lambda features, longest: sj.DiagonalGRU(features),
    "MinLSTM": lambda features, longest: sj.MinLSTM(features),
    "MinGRU": lambda features, longest: sj.MinGRU(features),
    "LRU": lambda features, longest: sj.LRU(features),
    "RGLRU": lambda features, longest: sj.RGLRU(features),
}
"""name -> cell, from the width and the steps of a sequence, which chrono initialisation asks for.

A `PreActivationRNN` of the same activation is the Elman network itself, with its state taken before φ.
"""


class Task(NamedTuple):
    """One task: how its data is drawn, what is minimised, and what counts.

    draw: (key, T, sequences) -> inputs, targets, mask.
    time: T -> steps of a sequence.
    loss, value: (outputs [time, batch, out_features], batch) -> a scalar. `value` is what is reported;
        less is better.
    baseline: T -> the value without memory. solved: the value below which the task is solved, as a
        share of the baseline.
    patience: updates after which a training is given up that does no better than without memory; None
        where many leave that plateau late.
    lengths, learning_rates: what is measured unless asked otherwise. The rates are tried in this
        order until one solves the task.
    """

    draw: Callable[[Array, int, int], Any]
    time: Callable[[int], int]
    in_features: int
    out_features: int
    loss: Callable[[Array, Any], Array]
    value: Callable[[Array, Any], Array]
    baseline: Callable[[int], float]
    solved: float
    patience: int | None
    lengths: tuple[int, ...]
    learning_rates: tuple[float, ...]

    def threshold(self, length: int) -> float:
        """The value below which the task of this length is solved."""
        return self.solved * self.baseline(length)


def squared_error(outputs: Array, batch: Any) -> Array:
    """The mean squared error where the target counts."""
    return sj.losses.mean_squared_error(outputs, batch.targets, mask=batch.mask)


def cross_entropy(outputs: Array, batch: Any) -> Array:
    """The cross entropy a step, in nats."""
    return sj.losses.cross_entropy(outputs, batch.targets, mask=batch.mask)


def last_errors(outputs: Array, batch: Any) -> Array:
    """The share of wrong answers at the last step."""
    return 1 - sj.losses.accuracy(outputs[-1], batch.targets[-1])


TASKS = {
    "adding": Task(
        draw=adding_problem,
        time=lambda length: length,
        in_features=2,
        out_features=1,
        loss=squared_error,
        value=squared_error,
        baseline=lambda length: 1 / 6,
        solved=0.06,
        patience=None,
        lengths=(20, 100, 200, 500),
        learning_rates=(3e-3, 5e-4),
    ),
    "copy": Task(
        draw=lambda key, delay, batch: copy_task(
            key, delay, batch, symbols=COPIED, alphabet=ALPHABET
        ),
        time=lambda delay: delay + 2 * COPIED,
        in_features=ALPHABET + 2,
        out_features=ALPHABET + 1,
        loss=cross_entropy,
        value=cross_entropy,
        baseline=lambda delay: COPIED * math.log(ALPHABET) / (delay + 2 * COPIED),
        solved=0.1,
        patience=2000,
        lengths=(20, 100, 200, 500),
        learning_rates=(3e-3,),
    ),
    "parity": Task(
        draw=parity,
        time=lambda length: length,
        in_features=2,
        out_features=2,
        loss=cross_entropy,
        value=last_errors,
        baseline=lambda length: 1 / 2,
        solved=0.02,
        patience=2000,
        lengths=(20, 100, 200, 500),
        learning_rates=(3e-3, 5e-4),
    ),
}


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What is the same for all cells, tasks and lengths."""

    features: int = 32
    """The width of each cell, and of the linear embedding of the inputs before it."""
    batch: int = 32
    """Fresh sequences in each update."""
    updates: int = 4000
    """Updates at most, for each learning rate."""
    evaluate_every: int = 100
    """Updates from one evaluation to the next, in one compiled program."""
    tested: int = 256
    """Fresh sequences in an evaluation; the final value is the mean of eight."""
    clip_norm: float = 1.0
    """The norm at which gradients are clipped."""

    def patience_for(self, task: Task) -> int | None:
        """Updates after which a training that has learned nothing is given up; None is never."""
        return task.patience


class Run(NamedTuple):
    """One training: a cell, a task, a length, a seed, a learning rate."""

    cell: str
    task: str
    length: int
    seed: int
    learning_rate: float

    @property
    def title(self) -> str:
        """In words, for a line of progress."""
        return f"{self.cell}, {self.task} {self.length}, rate {self.learning_rate:g}"


def build(run: Run, recipe: Recipe) -> sj.Cell:
    """The cell of a run."""
    return CELLS[run.cell](recipe.features, TASKS[run.task].time(run.length))
