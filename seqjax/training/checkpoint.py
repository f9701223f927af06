"""Checkpoints through orbax: a training state, and the plain facts that go with it."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from etils import epath

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

        Raises a ValueError where there is none, or where it is damaged or does not fit the target.
        """
        step = self._check("restore", target)
        args = ocp.args.Composite(
            state=ocp.args.StandardRestore(_placed(target)), facts=ocp.args.JsonRestore()
        )
        with self._reading("restore", step):
            restored = self._manager.restore(step, args=args)
            return restored["state"], restored["facts"]

    def restore_params(self, target: Any) -> Any:
        """The params of the newest state alone, into the structure of `target` (arrays or shapes).

        For evaluation and generation, where the optimizer that made them need not be known; `target`
        may be `jax.eval_shape(model.init, key)`.

        Raises a ValueError where there is none, or where it is damaged or does not fit the target.
        """
        step = self._check("restore_params", {"params": target})
        item = {"params": _placed(target)}
        args = ocp.args.PyTreeRestore(
            item,
            restore_args=ocp.checkpoint_utils.construct_restore_args(item),
            partial_restore=True,
        )
        # Not through the manager, which reads only what it was told to write: whole states.
        with self._reading("restore_params", step):
            return ocp.PyTreeCheckpointHandler().restore(self._folder(step), args=args)["params"]

    def close(self) -> None:
        """Let go of the folder."""
        self._manager.close()

    def _folder(self, step: int) -> epath.Path:
        return epath.Path(self.directory) / str(step) / "state"

    @contextlib.contextmanager
    def _reading(self, name: str, step: int) -> Iterator[None]:
        """A ValueError that names the folder and a way out, for what a damaged file raises inside."""
        try:
            yield
        # What orbax lets out for files that are missing, cut off or overwritten. No RuntimeError: memory
        # that ran out says nothing against the checkpoint.
        except (AttributeError, LookupError, OSError, TypeError, ValueError) as error:
            before = max((s for s in self._manager.all_steps() if s < step), default=None)
            rest = "begins anew" if before is None else f"goes on from the one before, {before}"
            reason = " ".join(str(error).split())
            raise ValueError(
                f"{name}: the checkpoint {self.directory / str(step)} cannot be read "
                f"({type(error).__name__}: {reason:.200}); where it is damaged, deleting it {rest}"
            ) from error

    def _check(self, name: str, target: Any) -> int:
        """The newest step, once its arrays are those of `target`, which may be a part of the state.

        Before anything is read: orbax casts where dtypes differ, passes over what is stored but not
        asked for, and leaves threads in flight where shapes differ.
        """
        step = self.latest
        if step is None:
            raise ValueError(f"{name}: {self.directory} holds no checkpoint")
        with self._reading(name, step):
            stored = ocp.PyTreeCheckpointHandler().metadata(self._folder(step)).tree
            if isinstance(target, dict):
                stored = {part: stored[part] for part in target}
            there = _described(stored)
        here = _described(target)
        for path in sorted({**there, **here}):
            if there.get(path) != here.get(path):
                raise ValueError(
                    f"{name}: the checkpoint {step} in {self.directory} was made by another model or "
                    f"optimizer than the one given: {path} is {there.get(path, 'missing')} there, "
                    f"{here.get(path, 'missing')} here"
                )
        return step


def _placed(target: Any) -> Any:
    """The shape and dtype of each leaf, and a device: the one that it was stored from may be gone."""
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])

    def place(leaf: Any) -> jax.ShapeDtypeStruct:
        sharding = getattr(leaf, "sharding", None) or here
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    return jax.tree.map(place, target)


def _described(tree: Any) -> dict[str, str]:
    """Dtype and shape of each array by its path; random keys as the words that are stored."""

    def words(leaf: Any) -> Any:
        if not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return leaf
        return jax.eval_shape(jax.random.key_data, jax.ShapeDtypeStruct(leaf.shape, leaf.dtype))

    return {
        jax.tree_util.keystr(path, simple=True, separator="."): f"{leaf.dtype}{list(leaf.shape)}"
        for path, leaf in jax.tree_util.tree_leaves_with_path(jax.tree.map(words, tree))
    }


def holds_checkpoint(run: Path) -> bool:
    """Whether the folder of a run holds a whole checkpoint, and not only the folder for them."""
    folder = run / "checkpoints"
    return folder.is_dir() and any(child.name.isdigit() for child in folder.iterdir())


def write_json(path: Path, value: Any) -> None:
    """Write JSON whole or not at all."""
    beside = path.with_name(path.name + ".new")
    beside.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    os.replace(beside, path)
