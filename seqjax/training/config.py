"""Cells and models as JSON, and back: what a checkpoint keeps beside its arrays.

Only the names of known classes are written, and only known classes are made again: nothing on disk is
ever executed or unpickled.
"""

import dataclasses
from collections.abc import Iterable
from typing import Any

import jax.numpy as jnp
import numpy as np

from seqjax import cells, initializers, models, wrappers

KNOWN: dict[str, type] = {
    name: value
    for module in (cells, wrappers, initializers, models)
    for name, value in vars(module).items()
    if isinstance(value, type) and dataclasses.is_dataclass(value)
}


def to_config(value: Any) -> Any:
    """`value` in the types of JSON: dataclasses by class name and fields, dtypes by name.

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
    """What `to_config` was given; lists come back as tuples.

    known: your own dataclasses, beside seqjax's cells, wrappers, initialisers and models.

    Raises a ValueError for a class that is not known.
    """
    classes = {**KNOWN, **{kind.__name__: kind for kind in known}}

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
