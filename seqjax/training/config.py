"""Cells, models and options as JSON, and back: what a run keeps beside the arrays of its checkpoints.

Only the names of known classes are written, and only known classes are built again: nothing on disk is
ever executed or unpickled.
"""

import dataclasses
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

import seqjax
from seqjax import initializers, models, wrappers


def to_config(value: Any) -> Any:
    """Write `value` in the types of JSON: dataclasses by class name and fields, dtypes by name.

    Raises a ValueError for a value that has no such form, naming it.

    >>> import seqjax as sj
    >>> to_config(sj.Dropout(sj.GRU(8), rate=0.1))["cell"]["features"]
    8
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: to_config(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"class": type(value).__name__, **fields}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, tuple | list):
        return [to_config(item) for item in value]
    if isinstance(value, dict):
        return {name: to_config(item) for name, item in value.items()}
    if isinstance(value, np.number):
        return value.item()
    if isinstance(value, np.dtype | type) and hasattr(jnp, np.dtype(value).name):
        return {"dtype": np.dtype(value).name}
    raise ValueError(
        f"to_config: {value!r} has no form in JSON; expected dataclasses, tuples, dtypes, "
        "numbers, strings"
    )


def from_config(config: Any, known: Iterable[type] = ()) -> Any:
    """Build what `to_config` was given; lists come back as tuples.

    known: your own dataclasses, beside seqjax's cells, wrappers, initialisers and models.

    Raises a ValueError for a class that is not known.
    """
    classes = {
        name: value
        for module in (seqjax, wrappers, initializers, models)
        for name, value in vars(module).items()
        if isinstance(value, type) and dataclasses.is_dataclass(value)
    }
    classes |= {kind.__name__: kind for kind in known}

    def build(item: Any) -> Any:
        if isinstance(item, list):
            return tuple(build(entry) for entry in item)
        if not isinstance(item, dict):
            return item
        if set(item) == {"dtype"}:
            return getattr(jnp, item["dtype"])
        if "class" not in item:
            return {name: build(entry) for name, entry in item.items()}
        name = item["class"]
        if name not in classes:
            raise ValueError(
                f"from_config: the class {name!r} is not known; pass it, as known=({name},)"
            )
        return classes[name](**{k: build(entry) for k, entry in item.items() if k != "class"})

    return build(config)


def keep_options(
    directory: str | os.PathLike[str],
    options: Any,
    *,
    free: Sequence[str] = ("data", "run", "display"),
) -> None:
    """Save `options` as options.json in the folder of a run, or compare them with those it started with.

    A resumed run goes on from its checkpoint, whatever else it is given: without this a new learning
    rate or another order of the data would change nothing, and nobody would notice. Call it before
    `fit`, with its directory.

    options: a dataclass or a dict, of values that `to_config` takes.
    free: names that may differ: where data and run lie, what is shown. (Data of a run are known by
        the position in them that `fit` keeps.)

    Raises a ValueError that names the difference where the folder holds a checkpoint of a run with
    other options.

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
    stored = kept_beside(Path(directory) / "options.json", kept)
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


def kept_beside(file: Path, value: Any) -> Any:
    """The JSON in `file` where checkpoints of a run lie beside it; else `value`, which is written there.

    A folder that holds no checkpoint yet binds nobody to what its file says.
    """
    checkpoints = file.parent / "checkpoints"
    started = checkpoints.is_dir() and any(c.name.isdigit() for c in checkpoints.iterdir())
    if started and file.is_file():
        return json.loads(file.read_text("utf-8"))
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, value)
    return value


def write_json(path: Path, value: Any) -> None:
    """Write JSON whole or not at all."""
    beside = path.with_name(path.name + ".new")
    beside.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    os.replace(beside, path)
