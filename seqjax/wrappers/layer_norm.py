"""Layer normalisation inside a gated cell."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from seqjax import checks
from seqjax.cell import Cell, Mixing, Params, S
from seqjax.numerics import accumulator
from seqjax.wrappers.wrapper import GatedWrapper


class LayerNormParams(NamedTuple):
    """The inner params, and one scale for each packed pre-activation, of the input and of h."""

    cell: Params
    input_scale: Float[Array, " packed"]
    recurrent_scale: Float[Array, " packed"]


@dataclasses.dataclass(frozen=True, repr=False)
class LayerNorm(GatedWrapper[LayerNormParams, S]):
    """z_t = LN(W x_t; α_z) + b
    r_t = LN(U h_{t-1}; α_r)
    s_t, y_t = gate(z_t, r_t, s_{t-1})
    LN(v; α) = α ⊙ (v - μ) / √(σ² + epsilon),   μ and σ² the mean and variance of the entries of v

    What x and h add to the gates is normalised, each by itself, and the bias stays outside: a forget
    bias of 1 stays 1. Mean and variance run over all packed gates together, as in the LSTM of the
    paper, or over groups of gates where the cell has `gate_blocks`: r and z of a GRU together, its n
    alone, as in the GRU of the paper. They are at least float32.

    The scales α start at 1. LN has no shift of its own, since b (and the inner bias of a GRU) is
    one. The paper's LSTM normalises c_t as well, in h_t = o_t ⊙ tanh(LN(c_t)); here it does not, since a
    wrapper does not look inside the rule. The h_0 = 0 of a first step gives r_1 = 0.

    States are those of the inner cell. Its W x_t is taken as project(x_t) - project(0).

    Raises a ValueError for a cell that is not gated (wrap each layer of a stack), an epsilon that is not
    positive, and for a group of one entry, whose LN is 0 whatever comes.
    Reference: Ba, Kiros, Hinton 2016, "Layer normalization", equations 20 to 22 and 29 to 31.
    Choose it where a recurrent network trains slowly or unevenly and batches are too small or too
    ragged to normalise over.
    """

    cell: Cell[Any, S]
    epsilon: float = 1e-5

    def __post_init__(self) -> None:
        """Validate the wrapped cell and epsilon."""
        super().__post_init__()
        checks.finite_positive("LayerNorm: epsilon", self.epsilon)

    def inner_params(self, params: LayerNormParams) -> Params:
        """Beside the scales."""
        return params.cell

    @property
    def additive(self) -> bool:
        """False: r is normalised before it meets z."""
        return False

    @property
    def mixing(self) -> Mixing:
        """Dense: mean and variance run over all units."""
        return "dense"

    def init(self, key: Array, in_features: int) -> LayerNormParams:
        """The inner cell's params; all scales are 1."""
        params = self.cell.init(key, in_features)
        z = jax.eval_shape(self.inner.project, params, jnp.zeros(in_features))
        if 1 in self._group_sizes(z.shape[-1]):
            raise ValueError(
                f"LayerNorm: cell: expected at least two entries in each group of gates, got "
                f"{self.cell!r}, with groups of {list(self._group_sizes(z.shape[-1]))}"
            )
        # Two arrays, not one twice, which could not be donated.
        ones = lambda: jnp.ones(z.shape[-1], jax.tree.leaves(params)[0].dtype)
        return LayerNormParams(params, ones(), ones())

    def project(self, params: LayerNormParams, x: Array) -> Array:
        """z_t = LN(W x_t; α_z) + b."""
        z = self.inner.project(params.cell, x)
        b = self.inner.project(params.cell, jnp.zeros(x.shape[-1:], x.dtype))
        b = jnp.broadcast_to(b, z.shape)
        return self._normalise(z - b, params.input_scale) + b

    def gate_params(self, params: LayerNormParams) -> tuple[Params, Array]:
        """Those of the inner cell, and α_r."""
        return self.inner.gate_params(params.cell), params.recurrent_scale

    def gate(
        self, gate_params: tuple[Params, Array], z: Array, r: Array, state: S
    ) -> tuple[S, Array]:
        """The inner rule on z_t and r_t = LN(U h_{t-1}; α_r)."""
        inner, scale = gate_params
        return self.inner.gate(inner, z, self._normalise(r, scale), state)

    def _group_sizes(self, packed: int) -> tuple[int, ...]:
        """How many of the packed entries are normalised together."""
        blocks = self.gate_blocks or (1,)
        return tuple(packed // sum(blocks) * gates for gates in blocks)

    def _normalise(self, v: Array, scale: Array) -> Array:
        """LN(v; α), each group of gates by itself."""
        v = v.astype(accumulator(v.dtype))
        groups = jnp.split(v, _ends(self._group_sizes(v.shape[-1])), axis=-1)
        normal = jnp.concatenate(
            [_standardise(group, float(self.epsilon)) for group in groups], axis=-1
        )
        return jnp.broadcast_to(scale.astype(v.dtype), v.shape) * normal


def _standardise(v: Array, epsilon: float) -> Array:
    """(v - μ) / √(σ² + epsilon)."""
    deviation = v - jnp.broadcast_to(jnp.mean(v, axis=-1, keepdims=True), v.shape)
    variance = jnp.mean(jnp.square(deviation), axis=-1, keepdims=True)
    # Inside the root, so that the derivative at v = 0 is finite.
    return deviation * jnp.broadcast_to(lax.rsqrt(variance + epsilon), v.shape)


def _ends(sizes: tuple[int, ...]) -> list[int]:
    """Where each group but the last ends."""
    return [sum(sizes[: i + 1]) for i in range(len(sizes) - 1)]
