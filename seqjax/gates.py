"""Activations by name, so that a cell that carries one stays hashable and comparable."""

import functools
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

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


GATES = "gates"
"""The name of what is worth keeping for a gradient, where a run chooses what reverse mode keeps."""


def kept(x: Array) -> Array:
    """`x`, by the name under which a run finds what its backward pass should not compute again."""
    return checkpoint_name(x, GATES)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def packed_gates(
    x: Float[Array, "*batch packed"], kinds: tuple[Activation, ...]
) -> tuple[Array, ...]:
    """φ_1(x_1), φ_2(x_2), … of the equal parts of a packed x: [*batch, features] each, all `kept`.

    kinds: "sigmoid" or "tanh" for each gate; or one alone, which may be any activation. One tanh runs
    over all of x, with σ(x) = ½ + ½ tanh(½ x): XLA:CPU does not vectorise an elementwise loop that
    slices what it reads. So a σ is right to a rounding of 1, not of itself: in float32 what is below
    6e-8 may be 0. Derivatives are of the values, σ' = σ (1 - σ) and tanh' = 1 - tanh², so that reverse
    mode need keep nothing else.

    Raises a ValueError for other activations side by side, and an x that has no equal parts.
    """
    return _packed(x, kinds)


def _packed(x: Array, kinds: tuple[Activation, ...]) -> tuple[Array, ...]:
    if len(kinds) != 1 and not {*kinds} <= {"sigmoid", "tanh"}:
        raise ValueError(
            f"packed_gates: kinds: expected 'sigmoid' and 'tanh', or one activation, got {kinds}"
        )
    if x.shape[-1] % len(kinds):
        raise ValueError(
            f"packed_gates: x has shape {x.shape}; expected {len(kinds)} equal parts in its last axis"
        )
    if len(kinds) == 1 and kinds != ("sigmoid",):
        gates = activate(kinds[0], x)
    else:
        logistic = np.repeat([kind == "sigmoid" for kind in kinds], x.shape[-1] // len(kinds))
        along = lambda entries: jnp.broadcast_to(jnp.asarray(entries, x.dtype), x.shape)
        scale, shift = along(np.where(logistic, 0.5, 1.0)), along(np.where(logistic, 0.5, 0.0))
        gates = scale * jnp.tanh(scale * x) + shift
    return tuple(jnp.split(kept(gates), len(kinds), axis=-1))


@packed_gates.defjvp
def _(kinds, primals, tangents):
    # Not `packed_gates` again: within a call of its own what is `kept` would not be found.
    gates = _packed(primals[0], kinds)
    moved = jnp.split(tangents[0], len(kinds), axis=-1)
    return gates, tuple(
        SLOPES[kind](gate) * d for kind, gate, d in zip(kinds, gates, moved, strict=True)
    )


SLOPES: dict[str, Callable[[Array], Array]] = {
    "tanh": lambda gate: 1 - gate * gate,
    "sigmoid": lambda gate: gate * (1 - gate),
    "relu": lambda gate: (gate > 0).astype(gate.dtype),
    "identity": jnp.ones_like,
}
"""φ' as a function of φ."""


def check_activation(where: str, name: str) -> None:
    """Raise a ValueError that lists the known names, where `name` is none of them."""
    checks.one_of(where, name, tuple(ACTIVATIONS))
