"""Activations by name, so that a cell that carries one stays hashable and comparable."""

from collections.abc import Callable
from typing import Literal

import jax
from jaxtyping import Array

from seqjax import checks

Activation = Literal["tanh", "sigmoid", "relu", "identity"]

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "tanh": jax.numpy.tanh,
    "sigmoid": jax.nn.sigmoid,
    "relu": jax.nn.relu,
    "identity": lambda x: x,
}


def activate(name: Activation, x: Array) -> Array:
    """φ(x) for the activation of that name, elementwise.

    `tanh`, `sigmoid` (the logistic function, 1 / (1 + e^-x)), `relu` (max(0, x); its derivative at 0
    is taken as 0) and `identity`.
    """
    return ACTIVATIONS[name](x)


def check_activation(where: str, name: str) -> None:
    """Raise a ValueError that lists the known names, where `name` is none of them."""
    checks.one_of(where, name, tuple(ACTIVATIONS))
