"""Activations by name, and the named values of a step: gates, candidates, the path of the memory."""

import contextlib
import contextvars
import functools
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

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


STEEPEST: dict[str, float] = {"tanh": 1.0, "sigmoid": 0.25, "relu": 1.0, "identity": 1.0}
"""γ = sup |φ'|."""


class Gate(NamedTuple):
    """A named value of a step, and the activation that it came out of.

    value: [*batch, features].
    activation: "sigmoid" for values in [0, 1], "tanh" for values in [-1, 1]; None for a value that
        is no activation, such as the share of the memory that a step keeps.
    """

    value: Array
    activation: str | None


_collected: contextvars.ContextVar[dict[str, Gate] | None] = contextvars.ContextVar(
    "collected", default=None
)


def name_gate(name: str, value: Array, activation: str | None = "sigmoid") -> Array:
    """Return `value` unchanged, and show it by name to those who look at the step.

    A cell names each gate where it computes it, in the letters of its docstring. The diagnostics
    (`sj.diagnostics.saturation`, `sj.diagnose`) collect the names while they trace the step; every
    other trace ignores them, and a value that nothing else uses costs nothing once compiled.

    Args:
        name: the letter of the gate, such as "f".
        value: [*batch, features].
        activation: "sigmoid" for a gate in [0, 1], "tanh" for a unit in [-1, 1], None for another value.

    >>> import jax.numpy as jnp
    >>> with collect_gates() as gates:
    ...     f = name_gate("f", jax.nn.sigmoid(jnp.zeros(3)))
    >>> gates["f"].value
    Array([0.5, 0.5, 0.5], dtype=float32)
    """
    gates = _collected.get()
    if gates is not None:
        gates[name] = Gate(value, activation)
    return value


@contextlib.contextmanager
def collect_gates() -> Iterator[dict[str, Gate]]:
    """Collect the values that are named within the context, in the order in which they are named."""
    gates: dict[str, Gate] = {}
    token = _collected.set(gates)
    try:
        yield gates
    finally:
        _collected.reset(token)


SAVED = "gates"
"""The `checkpoint_name` of the values that the backward pass of a gated cell reads."""


def save_for_backward(x: Array) -> Array:
    """Return `x`, marked as a residual: an engine that chooses what reverse mode keeps, keeps it."""
    return checkpoint_name(x, SAVED)


def packed_gates(x: Float[Array, "*batch packed"], **activations: Activation) -> tuple[Array, ...]:
    """φ_1(x_1), φ_2(x_2), … of the equal parts of a packed x, named and saved for the backward pass.

    `i, f = packed_gates(x, i="sigmoid", f="sigmoid")` splits x [*batch, 2 · features] in the order of
    the arguments. One tanh runs over all of x, with σ(x) = ½ + ½ tanh(½ x): XLA:CPU does not vectorise
    an elementwise loop that slices what it reads. The absolute error of σ is a rounding error of 1, so
    in float32 a value below 6e-8 may be 0. Derivatives are functions of the values, σ' = σ (1 - σ) and
    tanh' = 1 - tanh², so that reverse mode need keep nothing else.

    Args:
        x: [*batch, gates · features].
        activations: "sigmoid" or "tanh" by the name of the gate; a single gate may have any activation.

    Returns:
        One array [*batch, features] for each gate.

    Raises:
        ValueError: for other activations side by side, and an x without equal parts.
    """
    values = _packed_gates(x, tuple(activations.values()))
    named = zip(activations, values, activations.values(), strict=True)
    return tuple(name_gate(name, value, activation) for name, value, activation in named)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _packed_gates(x: Array, kinds: tuple[Activation, ...]) -> tuple[Array, ...]:
    return _packed(x, kinds)


def _packed(x: Array, kinds: tuple[Activation, ...]) -> tuple[Array, ...]:
    if len(kinds) != 1 and not {*kinds} <= {"sigmoid", "tanh"}:
        raise ValueError(
            f"packed_gates: expected activations 'sigmoid' and 'tanh', or a single gate, got {kinds}"
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
    return tuple(jnp.split(save_for_backward(gates), len(kinds), axis=-1))


@_packed_gates.defjvp
def _(kinds, primals, tangents):
    # Not `_packed_gates`: a checkpoint policy does not see names inside a nested custom_jvp call.
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
    """Raise a ValueError that lists the known activations if `name` is not one of them."""
    checks.one_of(where, name, tuple(ACTIVATIONS))
