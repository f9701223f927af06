"""The one training loop: updates, progress, evaluation, checkpoints, resume."""

import signal
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from seqjax import checks
from seqjax.gradients import Loss, Method, Metrics, whole_batch
from seqjax.optim import statistics
from seqjax.training.checkpoint import Checkpoints
from seqjax.training.display import Display, describe
from seqjax.training.evaluate import Totals
from seqjax.training.log import Log, Record, plot_curves
from seqjax.training.state import TrainState


class FitResult(NamedTuple):
    """What `fit` gives back.

    records: the log, one dict for each line. interrupted: True where Ctrl-C ended it early; the
    state is then the one that was saved.
    """

    state: TrainState
    records: list[Record]
    interrupted: bool


Evaluate = Callable[[Any], dict[str, float]]


def fit(
    loss: Loss,
    optimizer: optax.GradientTransformation,
    state: TrainState,
    batches: Iterable[Any],
    *,
    steps: int,
    method: Method = whole_batch,
    evaluate: Evaluate | None = None,
    evaluate_every: int | None = None,
    on_evaluation: Callable[[TrainState], str | None] | None = None,
    log_every: int = 10,
    directory: str | Path | None = None,
    display: bool = True,
) -> FitResult:
    """Train until `steps` batches are done, from `state` or from the newest checkpoint.

    loss: `loss(params, carry, batch, key) -> (scalar, (carry, metrics))`.
    state: `TrainState.create(params, optimizer, key, carry)`.
    batches: an endless iterable of batches (a finite one is gone through again and again). With a
        `directory` it must be an iterator with `get_state()` and `set_state(state)`, JSON values, as
        `sj.data.Windows` is, so that a resumed run goes on at the same place in the data.
    method: how a batch becomes updates: `whole_batch` (BPTT), or `sj.tbptt(k1)`.
    evaluate: gives metrics for params; called before the first step is trusted, every
        `evaluate_every` steps and at the end. `on_evaluation(state)` may give a text to show, a
        sample for instance.
    log_every: steps from one line of the log to the next.
    directory: where checkpoints, `log.jsonl` and `curves.png` go. A checkpoint is made at every
        evaluation, at the end and on Ctrl-C. Where one is there already, the run goes on from it and
        gives the numbers that an unbroken run gives, bit for bit.

    Ctrl-C ends the step in flight, saves, and returns with `interrupted`; a second one stops at once.

    Raises a ValueError for steps below 1, an iterable that holds nothing, a directory with an iterable
    that cannot say where it is, and a checkpoint of another model.
    """
    checks.positive("fit: steps", steps)
    checks.positive("fit: log_every", log_every)
    if evaluate_every is not None:
        checks.positive("fit: evaluate_every", evaluate_every)
    run = _Run(loss, optimizer, state, batches, method, directory)
    evaluate_every = steps if evaluate_every is None else evaluate_every
    with Display(steps, run.step, enabled=display) as screen, _Interrupt() as interrupt:
        if run.step:
            screen.say(f"going on from step {run.step}, {run.checkpoints_directory}")
        while run.step < steps and not interrupt.asked:
            run.advance()
            due = run.step % evaluate_every == 0 or run.step == steps
            if due or run.step % log_every == 0:
                run.log_training()
            screen.update(run.step, run.line())
            if due:
                run.evaluate(evaluate, on_evaluation, screen)
                run.save()
        run.save()
        run.finish()
    return FitResult(run.state, run.log.records, interrupt.asked and run.step < steps)


class _Run:
    """A run in flight: its state, its place in the data, what has been summed, what was written."""

    def __init__(self, loss, optimizer, state, batches, method, directory) -> None:
        # A copy, because the buffers of a step are given back to the next one.
        self.state = jax.tree.map(jnp.copy, state)
        self.step = int(state.step)
        self.totals = Totals()
        self.shown = Totals()
        self.seconds = 0.0
        self.tokens = 0.0
        self.checkpoints = None
        self.directory = None if directory is None else Path(directory)
        self.batches = iter(batches) if self.directory is None else batches
        self._source = batches
        self._update = compiled_update(method(loss, optimizer))
        if self.directory is not None:
            self._open(batches)
        self.log = Log(self.directory and self.directory / "log.jsonl", self.step)
        self._since = time.monotonic()
        self._rate_since, self._rate_tokens = self._since, self.tokens

    @property
    def checkpoints_directory(self) -> Path | None:
        return None if self.checkpoints is None else self.checkpoints.directory

    def _open(self, batches: Any) -> None:
        if not (hasattr(batches, "get_state") and hasattr(batches, "set_state")):
            raise ValueError(
                f"fit: batches is a {type(batches).__name__} without get_state and set_state, so a "
                "checkpoint could not say where it is in the data; use sj.data.Windows or a grain "
                "iterator, or leave directory out"
            )
        assert self.directory is not None
        self.directory.mkdir(parents=True, exist_ok=True)
        self.checkpoints = Checkpoints(self.directory / "checkpoints")
        if self.checkpoints.latest is not None:
            self.state, facts = self.checkpoints.restore(self.state)
            self.step = int(self.state.step)
            self.totals = Totals(facts["totals"])
            self.seconds, self.tokens = facts["seconds"], facts["tokens"]
            batches.set_state(facts["data"])

    def next_batch(self) -> Any:
        try:
            return next(self.batches)
        except StopIteration:
            self.batches = iter(self._source)
        try:
            return next(self.batches)
        except StopIteration:
            raise ValueError("fit: batches holds nothing, or was gone through before") from None

    def advance(self) -> None:
        """One batch, waited for: at most one step is ever in flight."""
        self.state, metrics = self._update(self.state, self.next_batch())
        metrics = jax.device_get(metrics)
        self.step += 1
        before = self.totals.count()
        self.totals.add(metrics)
        self.shown = Totals()
        self.shown.add(metrics)
        self.tokens += self.totals.count() - before

    def clock(self) -> float:
        """Seconds of training so far, those before a resume included."""
        return self.seconds + time.monotonic() - self._since

    def line(self) -> str:
        """The newest numbers, in words."""
        now = time.monotonic()
        rate = (self.tokens - self._rate_tokens) / max(now - self._rate_since, 1e-9)
        if now - self._rate_since > 5:
            self._rate_since, self._rate_tokens = now, self.tokens
        parts = [describe(self.shown.values()), f"{rate:,.0f} tokens/s"]
        numbers = statistics(self.state.opt_state)
        if numbers is not None:
            parts.append(f"clipped {float(numbers.clip_rate):.0%}")
            if int(numbers.skipped):
                parts.append(f"skipped {int(numbers.skipped)} non-finite")
        return "  ".join(parts)

    def log_training(self) -> None:
        if not self.totals.totals:
            return
        record: Record = {"step": self.step, "seconds": round(self.clock(), 3)}
        record |= {f"train/{name}": value for name, value in self.totals.values().items()}
        record["tokens"] = self.tokens
        numbers = statistics(self.state.opt_state)
        if numbers is not None:
            record |= {name: np.asarray(n).item() for name, n in numbers._asdict().items()}
        self.log.write(record)
        self.totals = Totals()

    def evaluate(
        self,
        evaluate: Evaluate | None,
        on_evaluation: Callable[[TrainState], str | None] | None,
        screen: Display,
    ) -> None:
        if evaluate is not None:
            values = evaluate(self.state.params)
            record = {"step": self.step, "seconds": round(self.clock(), 3)}
            self.log.write(record | {f"valid/{name}": value for name, value in values.items()})
            screen.say(f"step {self.step:>6}  {self.clock():6.1f} s  valid: {describe(values)}")
        text = None if on_evaluation is None else on_evaluation(self.state)
        if text:
            screen.say(text)

    def save(self) -> None:
        if self.checkpoints is not None:
            facts = {
                "data": self._source.get_state(),
                "totals": self.totals.totals,
                "seconds": self.clock(),
                "tokens": self.tokens,
            }
            self.checkpoints.save(self.state, facts)

    def finish(self) -> None:
        if self.directory is not None:
            metric = "nats" if any("train/nats" in r for r in self.log.records) else "loss"
            plot_curves(self.log.records, self.directory / "curves.png", metric=metric)
        if self.checkpoints is not None:
            self.checkpoints.close()


def compiled_update(update: Any) -> Callable[[TrainState, Any], tuple[TrainState, Metrics]]:
    """The update as one compiled function of the whole state, whose buffers it reuses."""

    def step(state: TrainState, batch: Any) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(state.key, state.step)
        result = update(state.params, state.opt_state, state.carry, batch, key)
        after = TrainState(result.params, result.opt_state, result.carry, state.step + 1, state.key)
        return after, result.metrics

    return jax.jit(step, donate_argnums=0)


class _Interrupt:
    """Turns the first Ctrl-C into a wish, so that a step is finished and saved; the second stops."""

    def __init__(self) -> None:
        self.asked = False
        self._before: Any = None

    def __enter__(self) -> "_Interrupt":
        # Only the main thread may set handlers; elsewhere Ctrl-C is not ours to catch.
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._handle)
        return self

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True

    def __exit__(self, *_: Any) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
