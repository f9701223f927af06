"""Many hyperparameters in one program."""

import contextlib
import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from seqjax import checks
from seqjax.gradients import Method, bptt
from seqjax.gradients.method import check_method
from seqjax.training.checkpoint import Checkpoints
from seqjax.training.config import kept_beside, to_config
from seqjax.training.display import Display
from seqjax.training.log import Curves, Log
from seqjax.training.loop import Run
from seqjax.training.members import Build, Evaluate, Members, Setting, grouped
from seqjax.training.state import Record, Totals, TrainState
from seqjax.training.sweep_result import SweepResult


def sweep(
    build: Build,
    settings: Sequence[Setting],
    batches: Iterable[Any],
    *,
    steps: int,
    static: Sequence[str] = (),
    method: Method = bptt,
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
    settings: `sj.training.grid(learning_rate=[...], seed=range(3))`, or any dicts with the same names.
    static: the names of numbers that `build` needs as they are, since they enter a shape or a field of
        a cell: a width, a depth, a rate of dropout. What is not a number is always static. Settings
        that differ in these have a program each; all of them go through the data together.
    evaluate: `evaluate(setting, params)` returns scalars by name. It is traced too.
    score: the record that ranks the settings, the smallest first: "valid/…" of `evaluate`, or "train/…"
        of the loss. None takes "valid/loss", else the first of `evaluate`, else "train/loss", the mean
        since the last line of the log.
    across: how one program holds its members. "map": one after another; "vmap": side by side in every
        operation. "auto" is "map" on a CPU, where many small matmuls at once are slower than one by
        one, and "vmap" elsewhere. Where JAX has several devices each trains its share of the members;
        on a CPU `sj.training.use_cores()` makes one of each core.
    directory: where checkpoints of all of them, `log.jsonl`, `curves.png`, `table.txt`, `sweep.png` and
        the best training (`Checkpoints(directory / "best")`) go. The same call goes on from there.
    batches, steps, method, evaluate_every, log_every, display: as for `fit`.

    A training that diverges leaves the others as they are. Ctrl-C ends the step in flight, saves, and
    returns with `interrupted`.

    Raises a ValueError for no settings, or some with other names than the first; for a number that
    `build` cannot take as an array; for a directory of a sweep over other settings; and as `fit` does.

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
    checks.positive("sweep: log_every", log_every)
    check_method("sweep", method)
    checks.one_of("sweep: across", across, ("auto", "map", "vmap"))
    if across == "auto":
        across = "map" if jax.default_backend() == "cpu" else "vmap"
    groups = [
        Members(build, settings, indices, fixed, method=method, evaluate=evaluate, across=across)
        for indices, fixed in grouped(settings, static)
    ]
    log = Log(log_every)
    run = SweepRun(
        "sweep",
        batches,
        steps=steps,
        evaluate_every=evaluate_every,
        directory=directory,
        callbacks=[log, *[Display()] * display, Curves(log)],
    )
    if directory is not None:
        config = to_config(settings)
        if kept_beside(Path(directory) / "settings.json", config) != config:
            raise ValueError(
                f"sweep: {directory} holds a sweep over other settings (settings.json); expected "
                "those, or another directory"
            )
    run.begin(groups)
    run.train(f"{len(settings)} trainings, {len(groups)} to compile")
    ranked_by = default_score(log.records) if score is None else score
    parts = tuple((group.indices, group.state) for group in groups)
    result = SweepResult(tuple(settings), log.records, ranked_by, run.step < steps, parts)
    if directory is not None:
        keep(Path(directory), result)
    return result


class SweepRun(Run):
    """All trainings of a sweep, as the loop drives them."""

    def begin(self, groups: Sequence[Members]) -> None:
        """Start all trainings, or go on with those of the newest checkpoint."""
        self._groups = groups
        for group in groups:
            group.begin()
        for group, state in zip(groups, self.resume(self.state).params, strict=True):
            group.state = state

    @property
    def state(self) -> TrainState:
        """All states as one that a checkpoint takes."""
        states, step = (
            tuple(group.state for group in self._groups),
            jnp.asarray(self.step, jnp.int32),
        )
        return TrainState(states, (), (), step, jax.random.key(0))

    def statistics(self) -> Record:
        """The statistics of all optimizers, a list for each name."""
        return self._of_all([group.statistics() for group in self._groups])

    def _advance(self, batch: Any) -> Totals:
        return Totals(self._of_all([group.update(batch) for group in self._groups], 0.0))

    def _evaluate(self) -> Record:
        return self._of_all([group.evaluate() for group in self._groups])

    def _of_all(self, found: Sequence[dict[str, np.ndarray]], missing: float = np.nan) -> Record:
        """[..., settings] from the [..., members] of each group; `missing` where one has no value."""
        values: dict[str, np.ndarray] = {}
        count = sum(len(group.indices) for group in self._groups)
        for group, of_group in zip(self._groups, found, strict=True):
            for name, own in of_group.items():
                empty = np.full((*own.shape[:-1], count), missing)
                values.setdefault(name, empty)[..., group.indices] = own
        return {name: value.tolist() for name, value in values.items()}


def checked(settings: Sequence[Setting], static: Sequence[str]) -> list[dict[str, Any]]:
    """Validate settings: plain dicts, all with the same names."""
    found = [dict(setting) for setting in settings]
    if not found or not found[0]:
        raise ValueError(f"sweep: settings: expected at least one, with a name, got {settings!r}")
    for index, setting in enumerate(found):
        if set(setting) != set(found[0]):
            raise ValueError(
                f"sweep: settings[{index}] has {', '.join(setting) or 'no names'}; expected "
                f"{', '.join(found[0])}, as settings[0] has"
            )
    for name in static:
        if name not in found[0]:
            raise ValueError(f"sweep: static: expected some of {', '.join(found[0])}, got {name!r}")
    return found


def default_score(records: Sequence[Record]) -> str:
    """The record that ranks where none is named."""
    names = list(dict.fromkeys(name for record in records for name in record))
    valid = [name for name in names if name.startswith("valid/")]
    return "valid/loss" if "valid/loss" in valid else [*valid, "train/loss"][0]


def keep(folder: Path, result: SweepResult) -> None:
    """Write the table, the picture and the best training into the folder."""
    (folder / "table.txt").write_text(f"{result}\n", "utf-8")
    if not np.isnan(result.scores).all():
        best = result.best
        shutil.rmtree(folder / "best", ignore_errors=True)  # another score has another best
        checkpoints = Checkpoints(folder / "best", keep=1)
        checkpoints.save(result.state(best), {"setting": to_config(dict(result.settings[best]))})
        checkpoints.close()
    with contextlib.suppress(ImportError):  # a picture needs matplotlib
        result.plot().savefig(folder / "sweep.png", dpi=130)
