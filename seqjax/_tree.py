"""Partition a pytree into inexact and other leaves, and ravel it into one real vector."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def split_floating(tree: Any) -> tuple[Any, Any]:
    """The floating (or complex) leaves, and all others: `tree` twice, with None at what is not there."""
    is_floating = lambda leaf: jnp.issubdtype(leaf.dtype, jnp.inexact)
    floating = jax.tree.map(lambda leaf: leaf if is_floating(leaf) else None, tree)
    others = jax.tree.map(lambda leaf: None if is_floating(leaf) else leaf, tree)
    return floating, others


def join_floating(floating: Any, others: Any) -> Any:
    """The tree that `split_floating` split."""
    return jax.tree.map(
        lambda a, b: b if a is None else a, floating, others, is_leaf=lambda leaf: leaf is None
    )


def to_vector(tree: Any, batch_axes: int = 0) -> Float[Array, "*batch entries"]:
    """All floating entries of a tree, leaf after leaf; of a complex leaf the real ones, then the others.

    Leaves are [*batch, ...] with `batch_axes` axes of batch. Clocks, masks and keys are left out. The
    dtype is the widest of the leaves; a tree without any floating leaf gives a float32 vector of none.
    """
    parts = [part for leaf in jax.tree.leaves(tree) for part in _real_parts(leaf)]
    if not parts:
        batch = jnp.shape(jax.tree.leaves(tree)[0])[:batch_axes] if jax.tree.leaves(tree) else ()
        return jnp.zeros((*batch, 0), jnp.float32)
    dtype = max((part.dtype for part in parts), key=lambda dtype: jnp.dtype(dtype).itemsize)
    return jnp.concatenate([_rows(part, batch_axes).astype(dtype) for part in parts], axis=-1)


def from_vector(tree: Any, vector: Float[Array, "*batch entries"]) -> Any:
    """`tree` with its floating entries from `vector`: the inverse of `to_vector`.

    The batch is that of the vector: leaves that are not floating stay as they are.
    """
    batch = vector.shape[:-1]
    leaves, structure = jax.tree.flatten(tree)
    new, start = [], 0
    for leaf in leaves:
        parts = []
        for part in _real_parts(leaf):
            shape = part.shape[len(batch) :]
            size = math.prod(shape)
            piece = vector[..., start : start + size].reshape(*batch, *shape)
            parts.append(piece.astype(part.dtype))
            start += size
        new.append(jax.lax.complex(*parts) if len(parts) == 2 else parts[0] if parts else leaf)
    if start != vector.shape[-1]:
        raise ValueError(f"from_vector: vector has {vector.shape[-1]} entries; expected {start}")
    return jax.tree.unflatten(structure, new)


def _rows(part: Array, batch_axes: int) -> Array:
    """[*batch, ...] as [*batch, entries]; the size is written out, as a batch of 0 leaves it open."""
    shape = part.shape
    return part.reshape(*shape[:batch_axes], math.prod(shape[batch_axes:]))


def _real_parts(leaf: Any) -> tuple[Array, ...]:
    """One array of a real leaf, two of a complex one, none of what is not floating."""
    if jnp.issubdtype(leaf.dtype, jnp.complexfloating):
        return leaf.real, leaf.imag
    return (leaf,) if jnp.issubdtype(leaf.dtype, jnp.floating) else ()
