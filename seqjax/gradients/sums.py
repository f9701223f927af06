"""A gradient that can still be added to: weighted sums over blocks, and their weight."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from seqjax.numerics import accumulator


class Sums(NamedTuple):
    """Σ_i n_i ∇L_i, Σ_i n_i L_i and Σ_i n_i over blocks i of weight n_i.

    All are at least float32: thousands of blocks may be added.
    """

    grads: Any
    total: Float[Array, ""]
    weight: Float[Array, ""]

    @classmethod
    def zero(cls, params: Any, dtype: Any) -> "Sums":
        """Nothing counted yet. dtype: that of the loss."""
        zero = lambda p: jnp.zeros(jnp.shape(p), accumulator(jnp.result_type(p)))
        wide = accumulator(dtype)
        return cls(jax.tree.map(zero, params), jnp.zeros((), wide), jnp.zeros((), wide))

    def add_grads(self, grads: Any) -> "Sums":
        """With n_i ∇L_i of a block whose loss is counted elsewhere."""
        return self._replace(
            grads=jax.tree.map(lambda s, g: s + g.astype(s.dtype), self.grads, grads)
        )

    def add_block(self, grads: Any, value: Array, weight: Array) -> "Sums":
        """With n_i ∇L_i (the weight is in it already), L_i and n_i of one block."""
        value, weight = value.astype(self.total.dtype), weight.astype(self.weight.dtype)
        sums = self.add_grads(grads)
        return sums._replace(total=sums.total + value * weight, weight=sums.weight + weight)

    def merge(self, other: "Sums") -> "Sums":
        """The sums over what both counted."""
        return jax.tree.map(jnp.add, self, other)

    def mean(self, params: Any) -> tuple[Any, Float[Array, ""]]:
        """The gradient in the dtypes of params, and the loss; both 0 where nothing was counted."""
        weight = jnp.where(self.weight == 0, jnp.ones_like(self.weight), self.weight)
        divide = lambda g, p: (g / weight.astype(g.dtype)).astype(jnp.result_type(p))
        return jax.tree.map(divide, self.grads, params), self.total / weight
