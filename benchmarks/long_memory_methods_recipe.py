"""What the gradient methods are compared on: methods, cells, lengths, and what one training is."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import seqjax as sj
from benchmarks.long_memory_methods_gradients import forward, truncated
from benchmarks.long_memory_recipe import CELLS as ALL_CELLS
from benchmarks.long_memory_recipe import TASKS, Recipe, Task
from benchmarks.long_memory_run import Gradient, exact

LEAK = 0.1


def cells(*names: str) -> dict[str, Callable[[int, int], sj.Cell]]:
    """Those of long_memory_recipe.py, by their names there."""
    return {name: ALL_CELLS[name] for name in names}


CELLS: dict[str, Callable[[int, int], sj.Cell]] = {
    **cells("Elman (tanh)"),
    f"Elman, leak {LEAK:g}": lambda features, longest: sj.Elman(features, leak=LEAK),
    **cells("LSTM", "GRU", "DiagonalLSTM", "DiagonalGRU", "MinLSTM", "LRU"),
}
"""name -> cell, from the width and the steps of a sequence."""

ELMAN, LEAKY, LSTM, GRU, DIAGONAL_LSTM, DIAGONAL_GRU, MIN_LSTM, LRU = CELLS


class Method(NamedTuple):
    """One way to a gradient.

    gradient: (cell, task) -> the gradient of the loss over a whole sequence.
    cells: the names of those that it serves and that it is measured on.
    reach: the steps that a gradient goes back at most; None is all. A method whose reach is the whole
        sequence is BPTT, and is left out.
    theory: what is known of it, in a sentence or two.
    """

    gradient: Callable[[sj.Cell, Task], Gradient]
    cells: tuple[str, ...]
    reach: int | None
    theory: str


def windows(k1: int, k2: int, theory: str) -> Method:
    """TBPTT(k1, k2), on all cells."""
    gradient = lambda cell, task: truncated(cell, task, k1, k2)
    return Method(gradient, tuple(CELLS), k2, theory)


def online(
    rule: Callable[[sj.Cell], sj.gradients.OnlineRule], cells: tuple[str, ...], theory: str
) -> Method:
    """An online rule."""
    return Method(lambda cell, task: forward(cell, task, rule), cells, None, theory)


METHODS = {
    "BPTT": Method(exact, tuple(CELLS), None, "The exact gradient, through the whole sequence."),
    "TBPTT 10": windows(
        10,
        10,
        "k1 = k2 = 10. No gradient crosses the start of a window, so that nothing learns to write what "
        "is asked for later; only to read what the state happens to have kept.",
    ),
    "TBPTT 30": windows(30, 30, "k1 = k2 = 30. The same, with longer windows."),
    "TBPTT 100": windows(100, 100, "k1 = k2 = 100. The same, with windows nearly as long as all."),
    "TBPTT 10, 30": windows(
        10,
        30,
        "k1 = 10, k2 = 30. Every loss reaches back 21 to 30 steps, where that of k1 = k2 = 30 reaches 1 "
        "to 30.",
    ),
    "TBPTT 10, 100": windows(
        10, 100, "k1 = 10, k2 = 100. Every loss reaches back 91 to 100 steps."
    ),
    "RTRL": online(
        sj.rtrl,
        (DIAGONAL_LSTM, DIAGONAL_GRU, MIN_LSTM, LRU),
        "Exact and forward in time: up to rounding the gradient of BPTT, so that training differs by "
        "rounding alone. On dense cells it would take O(n⁴) a step, and is left out.",
    ),
    "SnAp-1": online(
        sj.snap,
        (ELMAN, LEAKY, LSTM, GRU, DIAGONAL_LSTM),
        "Keeps, for each weight, its influence on the states that it enters directly, as it lives on in "
        "these states by themselves. What goes round by way of other units is lost: memory that the "
        "gates of a unit hold is credited, memory that the recurrent matrix holds is not. On a "
        "`DiagonalGRU`, a `MinLSTM` and an `LRU` it is RTRL, and is left out.",
    ),
    "UORO": online(
        sj.uoro,
        tuple(CELLS),
        "Unbiased: the influence is one product of two vectors, made from random signs at each step, so "
        "that its noise grows with the size of the state and with the time that credit must cross. A "
        "small cosine does not mean wrong in the mean: it is noise, which costs updates.",
    ),
    "RFLO": online(
        sj.rflo,
        (LEAKY,),
        "Each weight keeps a trace that fades with the leak, here over "
        f"{1 / LEAK:g} steps, and nothing goes round through U: biased, with a short memory of credit. "
        "With the true learning signal, not with random feedback.",
    ),
    "e-prop": online(
        sj.eprop,
        (LSTM, GRU),
        "The traces of an LSTM fade with its forget gate, those of a GRU with its update gate; the way "
        "through the recurrent kernel is cut. Biased, but credit lives as long as the cell itself "
        "remembers. On an Elman network it is RFLO.",
    ),
}
"""In the order of the columns."""

PLAN: dict[str, dict[int, tuple[str, ...]]] = {
    "adding": {
        20: (ELMAN, LEAKY, LSTM, GRU, DIAGONAL_LSTM, DIAGONAL_GRU, MIN_LSTM),
        50: (LEAKY, LSTM, GRU, DIAGONAL_LSTM, DIAGONAL_GRU, MIN_LSTM),
        100: (LSTM, GRU, DIAGONAL_LSTM, DIAGONAL_GRU),
    },
    "copy": {
        20: (GRU, DIAGONAL_GRU, LRU),
        50: (GRU, LRU),
        100: (LRU,),
    },
    "parity": {
        20: (ELMAN, LSTM, GRU, DIAGONAL_LSTM, DIAGONAL_GRU),
        100: (ELMAN, LSTM, GRU, DIAGONAL_LSTM, DIAGONAL_GRU),
    },
}
"""task -> T -> the cells that learn something by BPTT there; fewer where trainings take long."""


@dataclasses.dataclass(frozen=True)
class MethodRecipe(Recipe):
    """What is the same for all methods, cells, tasks and lengths."""

    patience: int = 1500
    """Updates after which a training is given up that does no better than without memory."""

    def patience_for(self, task: Task) -> int:
        """The same for all tasks: whatever BPTT learns here it has begun to learn by then."""
        return self.patience


class MethodRun(NamedTuple):
    """One training: a cell, a task, a length, a seed, a learning rate, and a method."""

    cell: str
    task: str
    length: int
    seed: int
    learning_rate: float
    method: str

    @property
    def title(self) -> str:
        """In words, for a line of progress."""
        return f"{self.cell}, {self.method}, {self.task} {self.length}, rate {self.learning_rate:g}"


def serves(method: str, cell: str, task: str, length: int) -> bool:
    """Whether a method is measured there."""
    reach = METHODS[method].reach
    return cell in METHODS[method].cells and (reach is None or reach < TASKS[task].time(length))


def build(run: MethodRun, recipe: Recipe) -> sj.Cell:
    """The cell of a run."""
    return CELLS[run.cell](recipe.features, TASKS[run.task].time(run.length))
