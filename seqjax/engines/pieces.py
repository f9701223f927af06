"""Time cut in pieces that are walked one after another."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool

Body = Callable[[Any, Any], tuple[Any, Any]]


class Steps(NamedTuple):
    """What a walk reads at each step: x, and of its `Plan` what is real and where the state is cut."""

    x: Array
    real: Bool[Array, "time *batch"] | None
    cut: Bool[Array, "time *batch"] | None


def scan_pieces(
    body: Body, carry: Any, sequence: Any, *, length: int, reverse: bool, again: bool = False
) -> tuple[Any, Any]:
    """`lax.scan` over pieces of `length` steps: carry, out = body(carry, piece).

    sequence: a pytree of [time, ...]; a piece is the same pytree of [steps, ...], and `body` walks it in
        the same direction. out: a pytree of [steps, ...]; what comes back is [time, ...].
    reverse: from the last piece to the first.
    again: reverse mode keeps the carry of each piece alone, and runs the piece once more.

    The last piece of the sequence is shorter where `length` does not divide the time; a reverse walk
    begins with it. No steps at all are one piece of none.
    """
    time = jax.tree.leaves(sequence)[0].shape[0]
    whole, rest = divmod(time, length)

    def walk(steps: int) -> Body:
        def piece(carry: Any, cut: Any) -> tuple[Any, Any]:
            cut = jax.tree.map(lambda c, a: c.reshape(steps, *a.shape[1:]), cut, sequence)
            return body(carry, cut)

        # There is nothing to share between the loops of the two passes, so no barrier against it.
        return jax.checkpoint(piece, prevent_cse=False) if again else piece

    def walk_whole(carry: Any) -> tuple[Any, Any]:
        if whole == 1:  # no loop around one piece: the compiler sees through it
            return walk(length)(carry, jax.tree.map(lambda a: a[:length], sequence))
        # Without axes of size 1, which the compiler may lay out in another order, by a copy of it all.
        cut = lambda a: a[: whole * length].reshape(
            whole, length, *(n for n in a.shape[1:] if n != 1)
        )
        cuts = jax.tree.map(cut, sequence)
        carry, out = lax.scan(walk(length), carry, cuts, reverse=reverse)
        return carry, jax.tree.map(lambda a: a.reshape(whole * length, *a.shape[2:]), out)

    def walk_rest(carry: Any) -> tuple[Any, Any]:
        return walk(rest)(carry, jax.tree.map(lambda a: a[whole * length :], sequence))

    if not whole:
        return walk_rest(carry)
    if not rest:
        return walk_whole(carry)
    if reverse:
        carry, last = walk_rest(carry)
        carry, first = walk_whole(carry)
    else:
        carry, first = walk_whole(carry)
        carry, last = walk_rest(carry)
    # What pulls a gradient back carries its trace in the form of its pytree, so only leaves are alike.
    joined = map(lambda a, b: jnp.concatenate([a, b]), *map(jax.tree.leaves, (first, last)))
    return carry, jax.tree.unflatten(jax.tree.structure(first), list(joined))


def walked_forward(body: Body, reverse: bool) -> Body:
    """`body` for pieces that lie in the order of the walk, so that it need not know the direction."""

    def turned(carry: Any, piece: Any) -> tuple[Any, Any]:
        carry, out = body(carry, _turned(piece))
        return carry, _turned(out)

    return turned if reverse else body


def _turned(tree: Any) -> Any:
    """[steps, ...] from the last step to the first."""
    return jax.tree.map(lambda a: lax.rev(a, (0,)), tree)
