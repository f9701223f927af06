"""What of a pytree is differentiated: its floating leaves, apart from clocks, masks and keys."""

from typing import Any

import jax
import jax.numpy as jnp


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
