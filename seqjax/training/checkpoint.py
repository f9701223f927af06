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

    def restore_params(self, target: Any) -> Any:
        """The params of the newest state alone, into the structure of `target` (arrays or shapes).

        For evaluation and generation, where the optimizer that made them need not be known; `target`
        may be `jax.eval_shape(model.init, key)`. Arrays go where those of `target` are, else to the
        first device.

        Raises a ValueError where there is none, or where it does not fit the target.
        """
        step = self.latest
        if step is None:
            raise ValueError(f"restore_params: {self.directory} holds no checkpoint")
        item = {"params": jax.tree.map(_placed, target)}
        folder = self.directory / str(step) / "state"
        # Not through the manager, which reads only what it was told to write: whole states.
        reader = ocp.PyTreeCheckpointHandler()
        stored = {"params": reader.metadata(folder).tree["params"]}
        # Before anything is read: orbax leaves threads in flight where shapes differ, casts where
        # dtypes differ, and passes over what is stored but not asked for.
        if wrong := _differences(_described(stored), _described(item)):
            raise ValueError(
                f"restore_params: the checkpoint {step} in {self.directory} was made by "
                f"another model than the one given: {wrong[0]}"
            )
        args = ocp.args.PyTreeRestore(
            item,
            restore_args=ocp.checkpoint_utils.construct_restore_args(item),
            partial_restore=True,
        )
        return reader.restore(folder, args=args)["params"]

    def close(self) -> None:
        """Let go of the folder."""
        self._manager.close()


def _placed(leaf: Any) -> jax.ShapeDtypeStruct:
    """The shape and dtype of a leaf, and a device: the stored one may not be here."""
    sharding = getattr(leaf, "sharding", None)
    if sharding is None:
        sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _described(tree: Any) -> dict[str, str]:
    """Dtype and shape of each array by its path."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): f"{leaf.dtype}{list(leaf.shape)}"
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def _differences(stored: dict[str, str], target: dict[str, str]) -> list[str]:
    """One sentence for each array in which the two are not alike."""
    return [
        f"{path} is {stored.get(path, 'missing')} there, {target.get(path, 'missing')} here"
        for path in sorted({**stored, **target})
        if stored.get(path) != target.get(path)
    ]


def write_json(path: Path, value: Any) -> None:
    """Write JSON whole or not at all."""
    beside = path.with_name(path.name + ".new")
    beside.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    os.replace(beside, path)
