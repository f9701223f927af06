"""Norms of what may be very large or very small: the matter of this package."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from seqjax.numerics import accumulator


def norm(x: Float[Array, "..."], axes: int | tuple[int, ...] | None = None) -> Array:
    """√Σ x² over `axes`, all of them by default, in at least float32.

    Squares of float32 overflow from 2⁶⁴ on and vanish below 2⁻⁷⁵, and a gradient that explodes or
    vanishes soon comes there. Where the plain sum tells of either, a power of two is taken out of the
    root. (Of the largest entry, which is more usual, the search takes as long as all the rest.)

    Reference: Blue 1978, "A portable Fortran program to find the Euclidean norm of a vector".
    """
    x = x.astype(accumulator(x.dtype))
    squares = lambda x: jnp.sum(jnp.square(x), axis=axes, keepdims=True)
    scale = _scale(squares(x), x.size)
    # The compiler may draw a factor out of a sum of squares, and its own square overflows.
    scaled = lax.optimization_barrier(x * jnp.broadcast_to(scale, x.shape))
    return jnp.squeeze(jnp.sqrt(squares(scaled)) / scale, axes)


def norms(tree: Any) -> Float[Array, " leaves"]:
    """`norm` of each leaf, in the widest of their dtypes.

    By products of vectors, which on a CPU are far quicker than sums of squares.
    """
    leaves = widened(tree)
    squares = dots(leaves, leaves)
    scale = _scale(squares, np.array([leaf.size for leaf in leaves]))

    def again() -> Array:
        scaled = [leaf * jnp.broadcast_to(scale[i], leaf.shape) for i, leaf in enumerate(leaves)]
        scaled = lax.optimization_barrier(scaled)  # as in `norm`
        return dots(scaled, scaled)

    # A leaf of many numbers is read once more only where that is of use.
    squares = lax.cond(jnp.all(scale == 1), lambda: squares, again)
    return jnp.sqrt(squares) / scale


def dots(a: list[Array], b: list[Array]) -> Float[Array, " leaves"]:
    """Σ a b over the entries of each pair."""
    return jnp.stack([jnp.vdot(x, y, precision="highest") for x, y in zip(a, b, strict=True)])


def widened(tree: Any) -> list[Array]:
    """The leaves in the widest of their dtypes, and at least float32."""
    leaves = jax.tree.leaves(tree)
    widest = max((accumulator(leaf.dtype) for leaf in leaves), key=lambda dtype: dtype.itemsize)
    return [leaf.astype(widest) for leaf in leaves]


def _scale(sums: Array, count: int | np.ndarray) -> Array:
    """The power of two to multiply `count` numbers by, whose squares have the sum `sums`."""
    numbers = jnp.finfo(sums.dtype)
    far = 2.0 ** (2 * numbers.maxexp // 3)
    # Above this bound the squares that have vanished, below `tiny` each, are less than one rounding.
    bound = jnp.broadcast_to(jnp.asarray(count * float(numbers.tiny / numbers.eps)), sums.shape)
    scale = jnp.where(jnp.isfinite(sums), 1.0, 1 / far)
    return jnp.where(sums <= bound.astype(sums.dtype), far, scale).astype(sums.dtype)
