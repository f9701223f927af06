"""Affine maps of a model: the readout that it ends in, and the bridge from a vector to a state."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Key

from seqjax.cell import Cell, Params, State, noise_only
from seqjax.initializers import Initializer, draw
from seqjax.numerics import affine, scale_kept


class Readout(NamedTuple):
    """V and b of y V + b; V is None in a language model whose readout is tied to its embedding."""

    kernel: Float[Array, "features outputs"]
    bias: Float[Array, " outputs"]

    @classmethod
    def init(
        cls, key: Array, features: int, outputs: int, rule: Initializer | str, dtype: DTypeLike
    ) -> "Readout":
        """V by `rule`, b = 0."""
        return cls(draw(rule, key, (features, outputs), dtype), jnp.zeros((outputs,), dtype))

    def __call__(
        self, name: str, y: Float[Array, "*batch features"], dtype: DTypeLike
    ) -> Float[Array, "*batch outputs"]:
        """Y V + b, operands in `dtype`; a ValueError that names `name` where y has another width."""
        return affine(name, y, self.kernel, self.bias, dtype)


def dropped(x: Array, rate: float, key: Array | None) -> Array:
    """Drop entries of x at `rate` and scale the others by 1 / (1 - rate); None as key drops nothing."""
    if key is None or rate == 0:
        return x
    return scale_kept(x, jax.random.bernoulli(key, 1 - rate, x.shape), rate)


def dropped_steps(
    xs: Float[Array, "time *batch features"], rate: float, keys: Key[Array, " time"] | None
) -> Float[Array, "time *batch features"]:
    """Drop entries of each step by its own key, so that pieces of time are dropped as the whole is."""
    if keys is None:
        return xs
    return jax.vmap(lambda x, key: dropped(x, rate, key))(xs, keys)


class Bridge(NamedTuple):
    """s_0 = tanh(c B + b), of which every floating leaf of memory has its part.

    Noise, clocks and masks are as the cell begins; a complex leaf has a part for its real and one for
    its imaginary numbers.
    """

    readout: Readout

    @classmethod
    def init(
        cls,
        key: Array,
        width: int,
        cell: Cell,
        cell_params: Params,
        rule: Initializer | str,
        dtype: DTypeLike,
    ) -> "Bridge":
        """From c of `width` numbers to the state of `cell`."""
        state = cell.deterministic().initial_state(cell_params)
        entries = sum(_entries(cell, state, ()))
        return cls(Readout.init(key, width, entries, rule, dtype))

    def __call__(
        self, name: str, cell: Cell, state: State, c: Float[Array, "*batch width"], dtype: DTypeLike
    ) -> State:
        """`state`, as the cell begins, with s_0 in its place; an error names c by `name`."""
        s = jnp.tanh(self.readout(name, c, dtype))
        leaves, structure = jax.tree.flatten(state)
        filled, begin = [], 0
        for leaf, size in zip(leaves, _entries(cell, state, c.shape[:-1]), strict=True):
            part = s[..., begin : begin + size]
            begin += size
            if size == 0:
                filled.append(leaf)
            elif jnp.issubdtype(leaf.dtype, jnp.complexfloating):
                real, imaginary = jnp.split(part.astype(leaf.real.dtype), 2, axis=-1)
                filled.append(lax.complex(real, imaginary).reshape(leaf.shape))
            else:
                filled.append(part.astype(leaf.dtype).reshape(leaf.shape))
        return jax.tree.unflatten(structure, filled)


def _entries(cell: Cell, state: State, batch_shape: tuple[int, ...]) -> list[int]:
    """How many numbers of s_0 each leaf of a state has."""
    entries = []
    for is_noise, leaf in zip(
        jax.tree.leaves(noise_only(cell, state)), jax.tree.leaves(state), strict=True
    ):
        parts = 2 if jnp.issubdtype(leaf.dtype, jnp.complexfloating) else 1
        bridged = not is_noise and jnp.issubdtype(leaf.dtype, jnp.inexact)
        entries.append(parts * math.prod(leaf.shape[len(batch_shape) :]) if bridged else 0)
    return entries
