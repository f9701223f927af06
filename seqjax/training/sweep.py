"""Many hyperparameters in one program."""

import json
import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from seqjax import checks
from seqjax.gradients import Method, whole_batch
from seqjax.training.checkpoint import Checkpoints, holds_checkpoint, write_json
from seqjax.training.config import to_config
from seqjax.training.display import Display
from seqjax.training.fit import check_left, endless
from seqjax.training.folder import RunFolder
from seqjax.training.interrupt import Interrupt
from seqjax.training.member_totals import MemberTotals
from seqjax.training.members import Build, Evaluate, Members, Setting, grouped
from seqjax.training.state import TrainState
from seqjax.training.swept import SweepResult
from seqjax.training.totals import Record


def sweep(
    build: Build,
    settings: Sequence[Setting],
    batches: Iterable[Any],
    *,
    steps: int,
    static: Sequence[str] = (),
    method: Method = whole_batch,
    evaluate: Evaluate | None = None,
    evaluate_every: int | None = None,
    score: str | None = None,
    across: Literal["auto", "vmap", "map"] = "auto",
    log_every: int = 10,
    directory: str | os.PathLike[str] | None = None,
    display: bool = True,
) -> SweepResult:
    """Train under many hyperparameters at once, all on the same batches: `fit` for each of `settings`.

    build: from a setting (hyperparameters by name) what `fit` takes: `(loss, optimizer, state)`, with
        `state = TrainState.create(params, optimizer, key, carry)`. It is traced: numbers come as
        arrays, so a learning rate, a threshold, a weight decay, a scale of initial values and a seed
        may vary within one compiled program.
    settings: `sj.training.grid(learning_rate=[...], seed=range(3))`, or any list of dicts with the
        same names.
    batches: as for `fit`.
    static: the names of numbers that `build` needs as they are, since they enter a shape or a field of a
        cell: a width, a depth, a rate of dropout. What is no number is static anyway. Settings that
        differ in these have a program each; all of them walk through the data together.
    method: as for `fit`.
    evaluate: `evaluate(setting, params)` gives scalars by name. It is traced too. Asked every
        `evaluate_every` steps (None: only at the end).
    score: the record that ranks them, the smallest first: "valid/…" of `evaluate`, or "train/…" of the
        loss. By default that of `evaluate` which is called nats or loss, else its first; without one
        "train/nats" or "train/loss", the mean since the last line of the log.
    across: how one program holds its members. "map": one after another; "vmap": side by side in every
        operation. "auto" is "map" on a CPU, where many small matmuls at once are slower than one by
        one, and "vmap" elsewhere. Where JAX has several devices each trains its share of the members;
        on a CPU `sj.training.use_cores()` makes one of each core.
    log_every, display: as for `fit`.
    directory: where checkpoints of all of them, `log.jsonl`, `curves.png`, `sweep.json`, `sweep.png` and
        the best training (`Checkpoints(directory / "best")`) go. The same call goes on from there.

    A training that diverges leaves the others as they are. Ctrl-C ends the step in flight, saves, and
    returns with `interrupted`.

    Raises a ValueError for no settings, or some with other names than the first; for a number that
    `build` cannot take as an array; for a directory of a sweep over other settings; and what `fit`
    refuses.

    >>> import jax, jax.numpy as jnp, optax, seqjax as sj
    >>> def build(setting):
    ...     loss = lambda params, carry, batch, key: ((params - batch) ** 2, (carry, {}))
    ...     optimizer = optax.sgd(setting["learning_rate"])
    ...     state = sj.training.TrainState.create(jnp.zeros(()), optimizer, jax.random.key(0))
    ...     return loss, optimizer, state
    >>> settings = sj.training.grid(learning_rate=[0.001, 0.1, 10.0])
    >>> result = sj.training.sweep(build, settings, [jnp.ones(())], steps=30, display=False)
    >>> print(result)
    learning_rate  train/loss
              0.1    3.65e-05
            0.001      0.9066
               10   diverged
    >>> print(result.state(result.best).params)
    0.998762
    """
    settings = checked(settings, static)
    checks.positive("sweep: steps", steps)
    checks.positive("sweep: log_every", log_every)
    checks.positive("sweep: evaluate_every", steps if evaluate_every is None else evaluate_every)
    checks.one_of("sweep: across", across, ("auto", "map", "vmap"))
    if across == "auto":
        across = "map" if jax.default_backend() == "cpu" else "vmap"
    groups = [
        Members(build, settings, indices, fixed, method=method, evaluate=evaluate, across=across)
        for indices, fixed in grouped(settings, static)
    ]
    places = [group.indices for group in groups]
    check_folder(directory, settings)
    folder = RunFolder(directory, batches, "sweep")
    whole, facts = folder.resume(together([group.begin() for group in groups], 0))
    states, step = list(whole.params), int(whole.step)
    check_left("sweep", step, steps, directory)
    totals, source = MemberTotals(len(settings), facts), endless(batches, "sweep")

    with Display(steps, step, enabled=display) as screen, Interrupt() as interrupt:
        screen.say(f"{len(settings)} trainings, {len(groups)} to compile")
        if step:
            there = f"from step {step} in {directory}"
            screen.say(f"going on {there}" if step < steps else f"nothing is left to train {there}")
        while step < steps and not interrupt.asked:
            batch = next(source)
            for i, group in enumerate(groups):
                states[i], sums = group.update(states[i], batch)
                totals.add(group.indices, sums)
            step += 1
            due = step == steps or (evaluate_every is not None and step % evaluate_every == 0)
            if screen.due() or step == steps:
                screen.show(step, totals.line())
            if due or step % log_every == 0:
                counted = [g.counted(s) for g, s in zip(groups, states, strict=True)]
                folder.log.write(totals.record(step) | totals.gathered(places, counted))
            if due:
                try:
                    if evaluate is not None:
                        found = [g.evaluate(s) for g, s in zip(groups, states, strict=True)]
                        folder.log.write(totals.stamped(step) | totals.gathered(places, found))
                finally:  # whatever goes wrong in an evaluation, the training is not lost
                    folder.save(together(states, step), totals.facts())
        folder.save(together(states, step), totals.facts())
        if interrupt.asked and step < steps and directory is not None:
            screen.say(
                f"stopped after step {step}, saved in {directory}; the same call goes on there"
            )
    folder.close()
    parts = tuple(zip(places, states, strict=True))
    ranked_by = default_score(folder.log.records) if score is None else score
    result = SweepResult(tuple(settings), folder.log.records, ranked_by, step < steps, parts)
    if directory is not None:
        keep(Path(directory), result)
    return result


def checked(settings: Sequence[Setting], static: Sequence[str]) -> list[dict[str, Any]]:
    """Plain dicts, all with the same names."""
    found = [dict(setting) for setting in settings]
    if not found or not found[0]:
        raise ValueError(
            f"sweep: settings: expected at least one, with a name in it, got {settings!r}"
        )
    for index, setting in enumerate(found):
        if set(setting) != set(found[0]):
            raise ValueError(
                f"sweep: settings[{index}] has {', '.join(setting) or 'no names'}; expected "
                f"{', '.join(found[0])}, as settings[0] has"
            )
    for name in static:
        if name not in found[0]:
            raise ValueError(
                f"sweep: static: expected names of {', '.join(found[0])}, got {name!r}"
            )
    return found


def together(states: Sequence[TrainState], step: int) -> TrainState:
    """All states as one that a checkpoint takes."""
    return TrainState(tuple(states), (), (), jnp.asarray(step, jnp.int32), jax.random.key(0))


def default_score(records: Sequence[Record]) -> str:
    """The record that ranks where none is named."""
    names = [name for record in records for name in record]
    valid = [name for name in names if name.startswith("valid/")]
    preferred = ("valid/nats", "valid/loss", *valid, "train/nats", "train/loss")
    return next(name for name in preferred if name in names)


def check_folder(directory: str | os.PathLike[str] | None, settings: list[dict[str, Any]]) -> None:
    """Refuse a folder of a sweep over other settings; leave these in a new one."""
    if directory is None:
        return
    file, config = Path(directory) / "settings.json", to_config(settings)
    if not file.exists() or not holds_checkpoint(file.parent):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, config)
    elif json.loads(file.read_text("utf-8")) != config:
        raise ValueError(
            f"sweep: {directory} holds a sweep over other settings ({file.name}); expected those, or "
            "another directory"
        )


def keep(folder: Path, result: SweepResult) -> None:
    """What a person looks for in the folder: the table, the picture, the best training."""
    (folder / "table.txt").write_text(f"{result}\n", "utf-8")
    if np.isfinite(result.scores).any():
        best = result.best
        shutil.rmtree(folder / "best", ignore_errors=True)  # another score has another best
        checkpoints = Checkpoints(folder / "best", keep=1)
        checkpoints.save(result.state(best), {"setting": to_config(dict(result.settings[best]))})
        checkpoints.close()
    try:
        figure = result.plot()
    except ImportError:
        return
    figure.savefig(folder / "sweep.png", dpi=130)
