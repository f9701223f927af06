"""The fields that leaf cells share, checked by their names in one place."""

import dataclasses
from typing import Any

import jax.numpy as jnp

from seqjax import checks
from seqjax.gates import check_activation
from seqjax.initializers import Initializer, check_initializer

VECTORS = ("bias_init", "peephole_init", "threshold_init")
"""Rules that draw a vector; every other `*_init` draws a matrix."""


def check_fields(cell: Any) -> None:
    """Refuse hyperparameters that make no cell, in the fields whose names say what they are.

    features: a positive integer. param_dtype, dtype: floating point. *activation: a known name.
    *_init: a rule or a known name, and one that can draw an array of that rank. *_bias: a finite
    number or a rule. None passes where it is the default. Dtypes are kept as types, so that a cell
    made with "float32" is the one made with jnp.float32, and hashes alike.

    Raises a ValueError that names the cell and the field: `LSTM: features: expected ...`.
    """
    for field in dataclasses.fields(cell):
        where = f"{type(cell).__name__}: {field.name}"
        value = getattr(cell, field.name)
        if _is_absent(field, value):
            continue
        if field.name == "features":
            checks.positive(where, value)
        elif field.name.endswith("dtype"):
            checks.floating(where, value)
            object.__setattr__(cell, field.name, jnp.dtype(value).type)
        elif field.name.endswith("activation"):
            check_activation(where, value)
        elif field.name.endswith("_init"):
            check_initializer(where, value, rank=1 if field.name in VECTORS else 2)
        elif field.name.endswith("_bias") and isinstance(value, Initializer):
            check_initializer(where, value, rank=1)
        elif field.name.endswith("_bias"):
            checks.finite(where, value)


def _is_absent(field: dataclasses.Field[Any], value: Any) -> bool:
    """Whether the field is left at a default of None."""
    return value is None and field.default is None
