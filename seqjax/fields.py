"""Validation of the hyperparameters of leaf cells, by the names of their fields."""

import dataclasses
from typing import Any

import jax.numpy as jnp

from seqjax import checks
from seqjax.gates import check_activation
from seqjax.initializers import Initializer, check_initializer

VECTORS = ("bias_init", "peephole_init", "threshold_init")
"""Fields whose rule draws a vector; every other `*_init` draws a matrix."""


def check_fields(cell: Any) -> None:
    """Validate the fields of a cell whose names say what they hold.

    features: a positive integer. param_dtype, dtype: floating point. *activation: a known name.
    *_init: a rule or a known name that can draw an array of that rank. *_bias: a finite number or a
    rule. None passes where it is the default. A dtype is stored as a type, so that cells made with
    "float32" and jnp.float32 are equal.

    Raises:
        ValueError: a field is invalid; the message names cell and field: `LSTM: features: expected ...`.
    """
    for field in dataclasses.fields(cell):
        where = f"{type(cell).__name__}: {field.name}"
        if field.default is None and getattr(cell, field.name) is None:
            continue
        value = getattr(cell, field.name)
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
