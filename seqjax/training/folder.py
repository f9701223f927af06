"""The folder of a run: checkpoints, a log, its curves."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from seqjax.training.checkpoint import Checkpoints
from seqjax.training.log import Log, plot_curves
from seqjax.training.state import TrainState


class RunFolder:
    """What a run keeps on disk; without a directory it keeps the log in memory, and nothing else."""

    def __init__(
        self, directory: str | os.PathLike[str] | None, batches: Iterable[Any], name: str = "fit"
    ) -> None:
        """Make the folder where there is none; refuse, for `name`, data that cannot say where it is."""
        self.directory = None if directory is None else Path(directory)
        self.checkpoints = None
        self.log = Log(None)
        self._batches: Any = batches
        if self.directory is None:
            return
        if not (hasattr(batches, "get_state") and hasattr(batches, "set_state")):
            raise ValueError(
                f"{name}: batches is a {type(batches).__name__} without get_state and set_state, so a "
                "checkpoint could not say where it is in the data; use sj.data.Windows or a grain "
                "iterator, or leave directory out"
            )
        self.directory.mkdir(parents=True, exist_ok=True)
        self.checkpoints = Checkpoints(self.directory / "checkpoints")

    def resume(self, state: TrainState) -> tuple[TrainState, dict[str, Any] | None]:
        """The newest state and its facts, with data and log put where they were; or `state`, None."""
        facts = None
        if self.checkpoints is not None and self.checkpoints.latest is not None:
            state, facts = self.checkpoints.restore(state)
            self._batches.set_state(facts.pop("data"))
        if self.directory is not None:
            self.log = Log(self.directory / "log.jsonl", int(state.step))
        return state, facts

    def save(self, state: TrainState, facts: dict[str, Any]) -> None:
        """A checkpoint, which appears whole or not at all."""
        if self.checkpoints is not None:
            self.checkpoints.save(state, facts | {"data": self._batches.get_state()})

    def close(self) -> None:
        """Draw the curves and let go of the folder."""
        if self.directory is not None and self.checkpoints is not None:
            metric = "nats" if any("train/nats" in r for r in self.log.records) else "loss"
            plot_curves(self.log.records, self.directory / "curves.png", metric=metric)
            self.checkpoints.close()
