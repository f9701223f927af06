"""What a run was asked for, beside it in its folder."""

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from seqjax.training.checkpoint import holds_checkpoint, write_json
from seqjax.training.config import to_config

FILE = "options.json"


def keep_options(
    directory: str | os.PathLike[str],
    options: Any,
    *,
    free: Sequence[str] = ("data", "run", "display"),
) -> None:
    """Keep `options` as options.json in the folder of a run; refuse others than it was begun with.

    A call that goes on with a run goes on with its checkpoint, whatever else it is given: without this
    a new learning rate or another order of the data would change nothing, and nobody would notice. Call
    it before `fit`, with its directory.

    options: a dataclass or a dict, of values that `to_config` takes.
    free: names that do not matter: where data and run lie, what is shown. (Data of a run are known by
        the position in them that `fit` keeps.)

    Raises a ValueError where the folder holds a checkpoint of a run with other options, and says which.

    >>> import pathlib, tempfile
    >>> run = pathlib.Path(tempfile.mkdtemp()) / "run"
    >>> keep_options(run, {"learning_rate": 0.01, "display": True})
    >>> (run / "checkpoints" / "100").mkdir(parents=True)  # as `fit` makes it
    >>> keep_options(run, {"learning_rate": 0.01, "display": False})
    """
    found = vars(options) if dataclasses.is_dataclass(options) else options
    if not isinstance(found, Mapping):
        raise ValueError(f"keep_options: options: expected a dataclass or a dict, got {options!r}")
    kept = {name: to_config(value) for name, value in found.items() if name not in free}
    file = Path(directory) / FILE
    if not file.is_file() or not holds_checkpoint(file.parent):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, kept)
        return
    stored = json.loads(file.read_text("utf-8"))
    names = [name for name in {**stored, **kept} if name not in free]
    other = [name for name in names if stored.get(name) != kept.get(name)]
    if other:
        was, now = (
            ", ".join(f"{name} {of.get(name)!r}" for name in other) for of in (stored, kept)
        )
        raise ValueError(
            f"{directory} holds a run with {was}, and this one has {now}; go on with the options it was "
            "begun with, or name another folder"
        )
