"""The one training function, and the evaluation of a loss."""

import functools
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from seqjax import checks
from seqjax.gradients import Loss, Method, Metrics, StepLoss, UpdateFn, bptt, with_loss
from seqjax.gradients.method import check_method
from seqjax.training.display import Display
from seqjax.training.log import Curves, Log
from seqjax.training.loop import Callback, Run
from seqjax.training.sharded import ShardedUpdate, gather, on_cores, place
from seqjax.training.state import Record, Totals, TrainState, recorded


class FitResult(NamedTuple):
    """What `fit` returns.

    records: the log, one dict for each line. interrupted: True where Ctrl-C or a callback ended the
    run before its last step; `state` is then the one that was saved.
    """

    state: TrainState
    records: list[Record]
    interrupted: bool


def fit(
    loss: Loss | StepLoss,
    optimizer: optax.GradientTransformation,
    state: TrainState,
    batches: Iterable[Any],
    *,
    steps: int,
    method: Method = bptt,
    evaluate: Callable[[Any], Mapping[str, Any]] | None = None,
    evaluate_every: int | None = None,
    on_evaluation: Callable[[TrainState], str | None] | None = None,
    callbacks: Sequence[Callback] = (),
    log_every: int = 10,
    directory: str | os.PathLike[str] | None = None,
    display: bool = True,
) -> FitResult:
    """Train until `steps` batches are done, from `state` or from the newest checkpoint.

    Args:
      loss: `loss(params, carry, batch, key) -> (scalar, (carry, metrics))`; for an online rule
        that of one step, `step_loss(head, y, target) -> scalar`.
      optimizer: any of optax.
      state: `TrainState.create(params, optimizer, key, carry)`.
      batches: an endless iterator, or a collection that is gone through again and again. With a
        `directory` it needs `get_state()` and `set_state(state)` in JSON values, as
        `sj.data.Windows` has them, so that a resumed run goes on at the same place in the data.
      steps: how many batches, those before a resume included.
      method: how a batch becomes updates: `sj.bptt` (one update), `sj.tbptt(k1, k2)`, or an online
        rule such as `sj.rtrl(cell, every=8)`. Where the last batch of a pass is short, as that of
        `sj.data.Windows` is, a k2 needs `short_batches=True`. After `sj.training.use_cores()` the
        cores share each batch: `sj.training.sharded(method)`.
      evaluate: returns metrics for params. The next step takes over the arrays that it is given: copy
        what you keep.
      evaluate_every: steps from one evaluation to the next; None evaluates at the end only.
      on_evaluation: called with the state after an evaluation; may return a text to show, such as a
        sample.
      callbacks: `sj.training.Callback`s, called after those that write the log, show the progress and
        draw the curves.
      log_every: steps from one line of the log to the next.
      directory: where checkpoints, `log.jsonl` and `curves.png` go. A checkpoint is saved at every
        evaluation, at the end and on Ctrl-C. Where there is one already the run goes on from it, with
        the numbers of an unbroken run, bit for bit.
      display: show a live line on a terminal, a plain one now and then elsewhere.

    Ctrl-C ends the step in flight, saves, and returns with `interrupted`; a second one stops at once.

    Raises:
      ValueError: steps below 1 or below those that are done, no batches, a directory with batches that
        cannot say where they are, or a checkpoint of another model.
      ImportError: a directory without orbax-checkpoint, or `display` without rich.
    """
    checks.positive("fit: log_every", log_every)
    check_method("fit", method)
    log = Log(log_every)
    own = [log, *[Display()] * display, Curves(log), *[Shown(f) for f in [on_evaluation] if f]]
    run = FitRun(
        "fit",
        batches,
        steps=steps,
        evaluate_every=evaluate_every,
        directory=directory,
        callbacks=[*own, *callbacks],
    )
    # A copy: the buffers of each state are given to the next one.
    state = run.resume(jax.tree.map(jnp.copy, state))
    run.begin(on_cores(method).update(loss, optimizer), state, evaluate)
    run.train()
    return FitResult(run.state, log.records, interrupted=run.step < steps)


class FitRun(Run):
    """One training, as the loop drives it."""

    def begin(self, update: UpdateFn, state: TrainState, evaluate: Callable | None) -> None:
        """Place the state where the update takes it; nothing is compiled before the first step."""
        self._update, self._compiled = update, compiled_update(update)
        self._state, self._values = place(update, state), evaluate

    @property
    def state(self) -> TrainState:
        """The state on one device."""
        return gather(self._update, self._state)

    def statistics(self) -> Record:
        """The statistics of the optimizer, as numbers."""
        return {name: value.item() for name, value in recorded(self._state.opt_state).items()}

    def _advance(self, batch: Any) -> Totals:
        # It waits for every device: two steps that add over devices must never overlap.
        self._state, metrics = jax.block_until_ready(self._compiled(self._state, batch))
        totals = Totals()
        totals.add(jax.device_get(metrics))
        return totals

    def _evaluate(self) -> Record:
        found = {} if self._values is None else self._values(self.state.params)
        return {name: float(value) for name, value in found.items()}


class Shown(Callback):
    """Shows the text that a function of the state returns at each evaluation."""

    def __init__(self, function: Callable[[TrainState], str | None]) -> None:
        """function: `on_evaluation` of `fit`."""
        self._function = function

    def on_evaluation(self, run: Run, values: Record) -> None:
        """Call it, and say what it returns."""
        if text := self._function(run.state):
            run.say(text)


def compiled_update(update: UpdateFn) -> Callable[[TrainState, Any], tuple[TrainState, Metrics]]:
    """The update as one compiled function of the whole state, whose buffers it takes over."""
    if isinstance(update, ShardedUpdate):
        compiled = compiled_update(update.traced)
        return lambda state, batch: compiled(state, update.parts(state.carry, batch))
    return jax.jit(lambda state, batch: state.updated(update, batch), donate_argnums=0)


def evaluate(loss: Loss, params: Any, carry: Any, batches: Iterable[Any]) -> dict[str, float]:
    """The metrics of a loss over all batches, each the mean over all valid tokens.

    The carry of one batch enters the next; the key is None, so nothing is random. `loss` is a static
    argument: a function, or a method of a frozen dataclass, such as `model.loss`.

    Raises a ValueError for no batches.
    """
    totals = Totals()
    for batch in batches:
        carry, metrics = _metrics(loss, params, carry, batch)
        totals.add(metrics)
    if not totals.totals:
        raise ValueError("evaluate: batches is empty")
    return totals.means()


@functools.partial(jax.jit, static_argnames="loss")
def _metrics(loss, params, carry, batch):
    value, (carry, metrics) = loss(params, carry, batch, None)
    return carry, with_loss(value, metrics)
