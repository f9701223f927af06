"""Checkpoints through orbax: a training state, and the JSON facts that go with it."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from seqjax import checks
from seqjax.training.state import TrainState


class Checkpoints:
    """The checkpoints of one run, in a folder of their own; the newest `keep` stay.

    A checkpoint appears whole or not at all: it is written beside and then renamed, so a process that
    is killed while it saves leaves the one before. Arrays are restored into a target of the same
    structure; facts are JSON. Nothing is ever unpickled. Needs the `orbax-checkpoint` package.
    """

    def __init__(self, directory: str | os.PathLike[str], keep: int = 2) -> None:
        """Make the folder where there is none."""
        # Here and not above, as the import takes seconds.
        ocp = checks.package("Checkpoints", "orbax.checkpoint", "train", "orbax-checkpoint")
        self._ocp: Any = ocp
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
        """Save `state` and `facts` (JSON values) under the step of the state."""
        step = int(state.step)
        if step in self._manager.all_steps():
            return
        args = self._ocp.args
        both = args.Composite(state=args.StandardSave(state), facts=args.JsonSave(facts))
        self._manager.save(step, args=both)
        self._manager.wait_until_finished()

    def restore(self, target: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """Restore the newest state, into the structure of `target` (arrays or shapes), and its facts.

        Raises a ValueError for no checkpoint, a damaged one, and one that does not fit the target.
        """
        step = self._check("restore", target)
        args = self._ocp.args
        state = args.StandardRestore(_placed(target))
        both = args.Composite(state=state, facts=args.JsonRestore())
        with self._reading("restore", step):
            restored = self._manager.restore(step, args=both)
            return restored["state"], restored["facts"]

    def restore_params(self, target: Any) -> Any:
        """Restore the newest params alone, into the structure of `target` (arrays or shapes).

        For evaluation and generation, where the optimizer that made them need not be known; `target`
        may be `jax.eval_shape(model.init, key)`.

        Raises a ValueError for no checkpoint, a damaged one, and one that does not fit the target.
        """
        step = self._check("restore_params", {"params": target})
        item = {"params": _placed(target)}
        how = self._ocp.checkpoint_utils.construct_restore_args(item)
        args = self._ocp.args.PyTreeRestore(item, restore_args=how, partial_restore=True)
        # Not through the manager, which reads only what it was told to write: whole states.
        with self._reading("restore_params", step):
            handler = self._ocp.PyTreeCheckpointHandler()
            return handler.restore(self._folder(step), args=args)["params"]

    def close(self) -> None:
        """Let go of the folder."""
        self._manager.close()

    def _folder(self, step: int) -> Any:
        return self._manager.directory / str(step) / "state"

    @contextlib.contextmanager
    def _reading(self, name: str, step: int) -> Iterator[None]:
        """Turn what a damaged file raises into a ValueError that names the folder and a way out."""
        try:
            yield
        # What orbax raises for files that are missing, cut off or overwritten. Not RuntimeError: running
        # out of memory does not mean that the checkpoint is damaged.
        except (AttributeError, LookupError, OSError, TypeError, ValueError) as error:
            before = max((s for s in self._manager.all_steps() if s < step), default=None)
            rest = "begins anew" if before is None else f"goes on from the one before, {before}"
            reason = " ".join(str(error).split())
            raise ValueError(
                f"{name}: the checkpoint {self.directory / str(step)} cannot be read "
                f"({type(error).__name__}: {reason:.200}); where it is damaged, deleting it {rest}"
            ) from error

    def _check(self, name: str, target: Any) -> int:
        """The newest step, after its arrays are compared with `target`, a state or a part of it.

        Compare before anything is read: orbax casts where dtypes differ, ignores arrays that are stored
        but not in the target, and leaves threads running where shapes differ.
        """
        step = self.latest
        if step is None:
            raise ValueError(f"{name}: {self.directory} holds no checkpoint")
        with self._reading(name, step):
            stored = self._ocp.PyTreeCheckpointHandler().metadata(self._folder(step)).tree
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
