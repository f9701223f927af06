"""Checkpoints through orbax: a training state, and the plain facts that go with it."""

import json
import os
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from seqjax.training.state import TrainState


class Checkpoints:
    """The checkpoints of one run, in a folder of their own; the newest `keep` stay.

    A checkpoint appears whole or not at all: it is written beside and then renamed, so a process that
    is killed while it saves leaves the one before. Arrays are restored into a target of the same
    structure; facts are JSON. Nothing is ever unpickled.
    """

    def __init__(self, directory: str | os.PathLike[str], keep: int = 2) -> None:
        """The folder is made where there is none."""
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep, enable_async_checkpointing=False, create=True
        )
        self.directory = Path(directory).absolute()
        self._manager = ocp.CheckpointManager(self.directory, options=options)

    @property
    def latest(self) -> int | None:
        """The step of the newest whole checkpoint, or None."""
        return self._manager.latest_step()

    def save(self, state: TrainState, facts: dict[str, Any]) -> None:
        """Keep `state` and `facts` (JSON values) under the step of the state."""
        step = int(state.step)
        if step in self._manager.all_steps():
            return
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state), facts=ocp.args.JsonSave(facts)
            ),
        )
        self._manager.wait_until_finished()

    def restore(self, target: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """The newest state, into the structure of `target` (arrays or shapes), and its facts.

        Raises a ValueError where there is none, or where it does not fit the target.
        """
        if self.latest is None:
            raise ValueError(f"restore: {self.directory} holds no checkpoint")
        shapes = jax.tree.map(ocp.utils.to_shape_dtype_struct, target)
        try:
            restored = self._manager.restore(
                self.latest,
                args=ocp.args.Composite(
                    state=ocp.args.StandardRestore(shapes), facts=ocp.args.JsonRestore()
                ),
            )
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(
                f"restore: the checkpoint {self.latest} in {self.directory} was made by another "
                f"model or optimizer than the one given: {error}"
            ) from error
        return restored["state"], restored["facts"]

    def close(self) -> None:
        """Let go of the folder."""
        self._manager.close()


def write_json(path: Path, value: Any) -> None:
    """Write JSON whole or not at all."""
    beside = path.with_name(path.name + ".new")
    beside.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    os.replace(beside, path)
