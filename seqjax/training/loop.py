"""The one training loop: steps, evaluations, checkpoints, resume, and the callbacks that watch it."""

import abc
import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from seqjax import checks
from seqjax.training.checkpoint import Checkpoints
from seqjax.training.state import Record, Totals, TrainState


class Callback:
    """What a run calls as it goes; a method does nothing until a subclass overrides it.

    Every method is given the `Run`: its step, metrics and state, `run.say(text)` to show a text, and
    `run.stopping = True` to end it after this step. Callbacks are called in the order in which they are
    passed, after those that `fit` makes itself (log, display, curves); `on_end` in the reverse order.

    >>> import seqjax as sj
    >>> class Enough(sj.training.Callback):
    ...     def on_evaluation(self, run, values):
    ...         run.stopping = run.stopping or values["loss"] < 0.1
    """

    def on_start(self, run: "Run") -> None:
        """Called before the first step; `run.step` is above 0 where a run is resumed."""

    def on_step(self, run: "Run") -> None:
        """Called after each step; `run.metrics` holds the metrics of its batch."""

    def on_evaluation(self, run: "Run", values: Record) -> None:
        """Called when an evaluation is due, with its values by name ({} without `evaluate`).

        A checkpoint is saved after it.
        """

    def on_message(self, run: "Run", text: str) -> None:
        """Called with each text of `run.say`."""

    def on_end(self, run: "Run") -> None:
        """Called once at the end, also where the run fails."""

    def get_state(self) -> Any:
        """JSON values for each checkpoint to keep, or None for nothing."""

    def set_state(self, state: Any) -> None:
        """Called before `on_start` of a resumed run, with what `get_state` returned."""


class Run(abc.ABC):
    """A run under way, as callbacks see it.

    name: "fit" or "sweep". steps: the step at which it ends. directory: its folder, or None.
    step: the batches that are done. tokens: the targets in them, by the metric that counts most.
    metrics: `Totals` of the newest batch; `run.metrics.means()["loss"]`.
    stopping: True ends the run after this step, saved, as Ctrl-C does.
    """

    def __init__(
        self,
        name: str,
        batches: Iterable[Any],
        *,
        steps: int,
        evaluate_every: int | None,
        directory: str | os.PathLike[str] | None,
        callbacks: Sequence[Callback],
    ) -> None:
        """Validate the arguments, and make the folder where there is none."""
        checks.positive(f"{name}: steps", steps)
        self._every = steps if evaluate_every is None else evaluate_every
        checks.positive(f"{name}: evaluate_every", self._every)
        for callback in callbacks:
            checks.instance(f"{name}: callbacks", callback, Callback)
        self.name, self.steps, self.step, self.tokens = name, steps, 0, 0.0
        self.metrics, self.stopping = Totals(), False
        self.directory = None if directory is None else Path(directory)
        self._batches: Any = batches
        self._callbacks = callbacks
        self._start = time.monotonic()
        self._checkpoints = None
        if self.directory is None:
            return
        if not (hasattr(batches, "get_state") and hasattr(batches, "set_state")):
            raise ValueError(
                f"{name}: batches is a {type(batches).__name__} without get_state and set_state, so a "
                "checkpoint could not say where it is in the data; use sj.data.Windows or a grain "
                "iterator, or leave directory out"
            )
        self._checkpoints = Checkpoints(self.directory / "checkpoints")

    @property
    def seconds(self) -> float:
        """Seconds of the run, those before a resume included."""
        return time.monotonic() - self._start

    @property
    @abc.abstractmethod
    def state(self) -> TrainState:
        """The state after the newest step. The next step takes it over: copy what you keep."""

    @abc.abstractmethod
    def statistics(self) -> Record:
        """What the optimizer records by `sj.optim.statistics`: clip rate, norms, skipped steps."""

    @abc.abstractmethod
    def _advance(self, batch: Any) -> Totals:
        """Train on one batch, wait for it, and return its metrics."""

    @abc.abstractmethod
    def _evaluate(self) -> Record:
        """The values of an evaluation, {} where there is none."""

    @property
    def evaluating(self) -> bool:
        """Whether an evaluation and a checkpoint are due after this step."""
        return self.step == self.steps or self.step % self._every == 0

    def say(self, text: str) -> None:
        """Show a text where something shows it."""
        for callback in self._callbacks:
            callback.on_message(self, text)

    def resume(self, state: TrainState) -> TrainState:
        """The newest checkpoint, with data and callbacks put where they were; else `state`."""
        if self._checkpoints is not None and self._checkpoints.latest is not None:
            state, facts = self._checkpoints.restore(state)
            self._batches.set_state(facts["data"])
            for name, callback in self._named().items():
                if name in facts["callbacks"]:
                    callback.set_state(facts["callbacks"][name])
            self.tokens = facts["tokens"]
            self._start = time.monotonic() - facts["seconds"]
        self.step = int(state.step)
        if self.step > self.steps:
            where = f"the run in {self.directory}" if self.directory else "the state that was given"
            raise ValueError(
                f"{self.name}: steps is {self.steps}, but {where} is at step {self.step}; expected at "
                "least as many, or another directory"
            )
        return state

    def train(self, opening: str = "") -> None:
        """Train to the last step or until `stopping`; `opening` is said first."""
        source = endless(self._batches, self.name)
        with interruptible(self), contextlib.ExitStack() as ends:
            for callback in self._callbacks:
                ends.callback(callback.on_end, self)
                callback.on_start(self)
            if opening:
                self.say(opening)
            if self.step:
                there = f"from step {self.step} in {self.directory}"
                done = self.step == self.steps
                self.say(f"nothing is left to train {there}" if done else f"going on {there}")
            while self.step < self.steps and not self.stopping:
                self.metrics = self._advance(next(source))
                self.tokens += self.metrics.count()
                self.step += 1
                for callback in self._callbacks:
                    callback.on_step(self)
                if self.evaluating:
                    try:
                        values = self._evaluate()
                        for callback in self._callbacks:
                            callback.on_evaluation(self, values)
                    finally:  # a failed evaluation must not lose the training
                        self._save()
            self._save()
            if self.step < self.steps and self.directory is not None:
                self.say(
                    f"stopped after step {self.step}, saved in {self.directory}; the same call goes on "
                    "there"
                )
        if self._checkpoints is not None:
            self._checkpoints.close()

    def _save(self) -> None:
        if self._checkpoints is None:
            return
        states = {name: callback.get_state() for name, callback in self._named().items()}
        facts = {
            "tokens": self.tokens,
            "seconds": self.seconds,
            "callbacks": {name: state for name, state in states.items() if state is not None},
            "data": self._batches.get_state(),
        }
        self._checkpoints.save(self.state, facts)

    def _named(self) -> dict[str, Callback]:
        """The callbacks by class, and by number among those of their class."""
        names = [type(callback).__name__ for callback in self._callbacks]
        numbered = [f"{name} {names[:i].count(name)}" for i, name in enumerate(names)]
        return dict(zip(numbered, self._callbacks, strict=True))


@contextlib.contextmanager
def interruptible(run: Run) -> Iterator[None]:
    """The first Ctrl-C asks the run to stop after its step; a second one stops at once, as usual."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if run.stopping:
            raise KeyboardInterrupt
        run.stopping = True
        # Straight to the descriptor: a handler may interrupt a write of the display.
        os.write(2, b"\nstopping after this step; Ctrl-C once more stops at once\n")

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before or signal.SIG_DFL)


def endless(batches: Iterable[Any], name: str) -> Iterator[Any]:
    """Batch after batch; a collection that ends is started again."""
    given = 0
    while True:
        before = given
        for batch in batches:
            given += 1
            yield batch
        if given == before:
            raise ValueError(
                f"{name}: batches ended after {given}; expected an endless iterator, or a collection "
                "that can be gone through again"
            )
