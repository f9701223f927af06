"""The one training loop: updates, progress, evaluation, checkpoints, resume."""

import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from seqjax import checks
from seqjax.gradients import Loss, Method, Metrics, StepLoss, UpdateFn, whole_batch
from seqjax.training.display import Display, describe
from seqjax.training.folder import RunFolder
from seqjax.training.interrupt import Interrupt
from seqjax.training.sharded import ShardedUpdate, begun, gathered, on_cores
from seqjax.training.state import TrainState
from seqjax.training.totals import Progress, Record


class FitResult(NamedTuple):
    """What `fit` gives back.

    records: the log, one dict for each line. interrupted: True where Ctrl-C ended the run before its
    last step; `state` is then the one that was saved.
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
    method: Method = whole_batch,
    evaluate: Callable[[Any], dict[str, float]] | None = None,
    evaluate_every: int | None = None,
    on_evaluation: Callable[[TrainState], str | None] | None = None,
    log_every: int = 10,
    directory: str | os.PathLike[str] | None = None,
    display: bool = True,
) -> FitResult:
    """Train until `steps` batches are done, from `state` or from the newest checkpoint.

    loss: `loss(params, carry, batch, key) -> (scalar, (carry, metrics))`; for `sj.online` that of one
        step, `step_loss(head, y, target) -> scalar`.
    state: `TrainState.create(params, optimizer, key, carry)`.
    batches: an endless iterator, or a collection that is gone through again and again. With a
        `directory` it needs `get_state()` and `set_state(state)` in JSON values, as `sj.data.Windows`
        has them, so that a resumed run goes on at the same place in the data.
    method: how a batch becomes updates: `whole_batch` (BPTT, one update), `sj.tbptt(k1, k2)`,
        `sj.accumulated_tbptt(k1, k2)`, or `sj.online(cell, rule)`. Where the last batch of a pass is
        short, as that of `sj.data.Windows` is, a k2 wants `short_batches=True`. After
        `sj.training.use_cores()` the cores share each batch: `sj.training.sharded(method)`.
    evaluate: metrics for params, asked every `evaluate_every` steps (None: only at the end).
        `on_evaluation(state)` may then give a text to show, a sample for instance. What they are
        given is taken over by the next step: copy what you keep.
    log_every: steps from one line of the log to the next.
    directory: where checkpoints, `log.jsonl` and `curves.png` go. A checkpoint is made at every
        evaluation, at the end and on Ctrl-C. Where one is there already the run goes on from it, and
        gives the numbers that an unbroken run gives, bit for bit.
    display: a live line on a terminal, a plain one now and then elsewhere; False shows nothing.

    Ctrl-C ends the step in flight, saves, and returns with `interrupted`; a second one stops at once.

    Raises a ValueError for steps below 1 or below those that are done, batches that hold nothing, a
    directory with batches that cannot say where they are, and a checkpoint of another model.
    """
    checks.positive("fit: steps", steps)
    checks.positive("fit: log_every", log_every)
    checks.positive("fit: evaluate_every", steps if evaluate_every is None else evaluate_every)
    folder = RunFolder(directory, batches)
    # A copy: the buffers of each state are given to the next one.
    state, facts = folder.resume(jax.tree.map(jnp.copy, state))
    progress, step = Progress(facts), int(state.step)
    check_left("fit", step, steps, directory)
    update, source = on_cores(method)(loss, optimizer), endless(batches)
    compiled, state = compiled_update(update), begun(update, state)

    with Display(steps, step, enabled=display) as screen, Interrupt() as interrupt:
        if step:
            there = f"from step {step} in {directory}"
            screen.say(f"going on {there}" if step < steps else f"nothing is left to train {there}")
        while step < steps and not interrupt.asked:
            state, metrics = jax.block_until_ready(compiled(state, next(source)))
            # It waits for every device: two steps that add over them must never be under way at once.
            progress.add(jax.device_get(metrics))
            step += 1
            due = step == steps or (evaluate_every is not None and step % evaluate_every == 0)
            if due or step % log_every == 0:
                folder.log.write(progress.record(step, state.opt_state))
            if screen.due() or step == steps:
                screen.show(step, progress.line(state.opt_state))
            if due:
                seen = gathered(update, state)
                try:
                    values = {} if evaluate is None else evaluate(seen.params)
                    if values:
                        values = {name: float(value) for name, value in values.items()}
                        record = {"step": step, "seconds": round(progress.seconds, 3)}
                        folder.log.write(record | {f"valid/{k}": v for k, v in values.items()})
                        screen.say(f"step {step:>6}  {progress.seconds:5.1f} s  {describe(values)}")
                    screen.say(None if on_evaluation is None else on_evaluation(seen))
                finally:  # whatever goes wrong in a look at the state, the training is not lost
                    folder.save(seen, progress.facts())
        state = gathered(update, state)
        folder.save(state, progress.facts())
        if interrupt.asked and step < steps and directory is not None:
            screen.say(
                f"stopped after step {step}, saved in {directory}; the same call goes on there"
            )
    folder.close()
    return FitResult(state, folder.log.records, interrupted=step < steps)


def compiled_update(update: UpdateFn) -> Callable[[TrainState, Any], tuple[TrainState, Metrics]]:
    """The update as one compiled function of the whole state, whose buffers it takes over."""
    if isinstance(update, ShardedUpdate):
        compiled = compiled_update(update.traced)
        return lambda state, batch: compiled(state, update.parts(state.carry, batch))
    return jax.jit(lambda state, batch: state.updated(update, batch), donate_argnums=0)


def check_left(name: str, step: int, steps: int, directory: str | os.PathLike[str] | None) -> None:
    """Refuse a run that has gone further than is asked for."""
    if step > steps:
        where = "the state that was given" if directory is None else f"the run in {directory}"
        raise ValueError(
            f"{name}: steps is {steps}, but {where} is at step {step}; expected at least as many, or "
            "another directory"
        )


def endless(batches: Iterable[Any], name: str = "fit") -> Iterator[Any]:
    """Batch after batch; a collection that ends is begun again."""
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
