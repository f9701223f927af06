"""The gradient of one window: through its newest block, and on through older ones, run again."""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from seqjax._tree import join_floating, split_floating
from seqjax.gradients.bptt import Loss, Metrics
from seqjax.gradients.sums import Sums
from seqjax.gradients.windows import Block, Blocks, Ring, cut

Losses: TypeAlias = Literal["new", "window"]
"""Which losses a window counts: those of its new steps, or those of all steps that it reaches."""

Weigh: TypeAlias = Callable[[Metrics, int], Float[Array, ""]]
"""`weigh(metrics, steps)`: how much the loss of a block counts among the others."""


class WindowGradient(NamedTuple):
    """What one window gives: the gradient as sums, the carry after it, metrics of its new steps."""

    sums: Sums
    carry: Any
    metrics: Metrics


@dataclasses.dataclass(frozen=True)
class Truncation:
    """How far gradients reach, which losses count and how much: what all forms of TBPTT share."""

    loss: Loss
    k1: int
    k2: int
    losses: Losses
    weigh: Weigh

    def older(self, blocks: Blocks, steps: int) -> int:
        """The steps that a window with so many new ones reaches beyond them.

        None for k2 ≤ k1, not even for the rest of a batch: no gradient then crosses the blocks. The
        rest has all blocks before it, a whole block at most all others.
        """
        before = blocks.whole - (steps == self.k1)
        return max(0, min(self.k2 - steps, before * self.k1)) if self.k2 > self.k1 else 0

    def room(self, blocks: Blocks) -> int:
        """The number of older blocks that the widest window reaches, in whole or in part."""
        sizes = [self.k1] * (blocks.whole > 0) + [blocks.tail] * (blocks.tail > 0)
        return max(-(-self.older(blocks, steps) // self.k1) for steps in sizes)

    def gradient(
        self, params: Any, block: Block, blocks: Blocks, starts: Ring, number: Array
    ) -> WindowGradient:
        """The gradient of window `number`, whose new steps are `block`.

        starts: the carries before the blocks that it reaches. Those blocks are run again from there
        with the params of now, which need not be those that made the carries.
        """
        older, skipped, seen = self.older(blocks, block.steps), block.steps - self.k2, None
        if skipped > 0:
            _, (carry, seen) = self._run(params, block.first(skipped))
            block = block.after(skipped, carry)
        sums, cotangent, carry, metrics = self._newest(params, block)
        if seen is not None:
            metrics = jax.tree.map(jnp.add, seen, metrics)
        whole, part = divmod(older, self.k1)
        state = sums, cotangent

        def past(number: Array) -> Block:
            return blocks.at(number, starts.get(number))

        def through_whole(state: Any, distance: Array) -> tuple[Any, None]:
            pull = lambda state: self._pull(params, past(number - distance), *state)
            # Before the beginning nothing is run at all, so that not even a NaN comes of it.
            return lax.cond(distance <= number, pull, lambda state: state, state), None

        def through_part(state: Any) -> Any:
            oldest = past(number - whole - 1)
            _, (carry, _) = self._run(params, oldest.first(self.k1 - part))
            return self._pull(params, oldest.after(self.k1 - part, carry), *state)

        if whole:
            state, _ = lax.scan(through_whole, state, jnp.arange(1, whole + 1))
        if part:
            state = lax.cond(number > whole, through_part, lambda state: state, state)
        return WindowGradient(state[0], carry, metrics)

    def _run(self, params: Any, block: Block) -> Any:
        return self.loss(params, block.start, block.batch, block.key)

    def _newest(self, params: Any, block: Block) -> tuple[Sums, Any, Any, Metrics]:
        """The sums over the newest block, ∂/∂(its start), the carry after it, its metrics."""
        moving, still = split_floating(block.start)

        def run(params: Any, moving: Any) -> Any:
            return self._run(params, block._replace(start=join_floating(moving, still)))

        value, back, (carry, metrics) = jax.vjp(run, params, moving, has_aux=True)
        weight = self.weigh(metrics, block.steps).astype(value.dtype)
        grads, cotangent = back(weight)
        sums = Sums.zero(params, value.dtype).add_block(grads, value, weight)
        return sums, cotangent, carry, metrics

    def _pull(self, params: Any, block: Block, sums: Sums, cotangent: Any) -> tuple[Sums, Any]:
        """∂/∂(the end of a block) becomes ∂/∂(its start); what falls to the params is added."""
        moving, still = split_floating(block.start)
        counts = self.losses == "window"

        def run(params: Any, moving: Any) -> Any:
            start = join_floating(moving, still)
            value, (carry, metrics) = self._run(params, block._replace(start=start))
            # A loss that does not count is no output: that part of the block is never computed.
            return (split_floating(carry)[0], value if counts else None), metrics

        (_, value), back, metrics = jax.vjp(run, params, moving, has_aux=True)
        if not counts:
            grads, cotangent = back((cotangent, None))
            return sums.add_grads(grads), cotangent
        weight = self.weigh(metrics, block.steps).astype(value.dtype)
        grads, cotangent = back((cotangent, weight))
        return sums.add_block(grads, value, weight), cotangent


Window: TypeAlias = Callable[[Any, Callable[[Any], WindowGradient]], tuple[Any, Any, Any]]
"""`window(model, gradient) -> (model, carry, out)`, where gradient(params) is that of the window."""


def over_windows(
    window: Window, truncation: Truncation, model: Any, carry: Any, batch: Any, key: Array | None
) -> tuple[Any, Any, Any]:
    """`window` for each block in one scan, and once more for the steps that are left over.

    Gives (model, carry, out), out with one entry for each window.
    """
    blocks = cut(batch, truncation.k1, key)

    def step(state: Any, inputs: tuple[Array, Any, Array | None]) -> tuple[Any, Any]:
        (model, carry, starts), (number, steps, key) = state, inputs
        block = Block(carry, steps, key)
        gradient = lambda params: truncation.gradient(params, block, blocks, starts, number)
        model, after, out = window(model, gradient)
        return (model, after, starts.put(number, carry)), out

    state = model, carry, Ring.of(carry, truncation.room(blocks))
    numbers = jnp.arange(blocks.whole + 1)
    state, out = lax.scan(step, state, (numbers[:-1], blocks.batch, blocks.keys))
    if blocks.tail:
        state, last = step(state, (numbers[-1], blocks.rest, blocks.rest_key))
        out = jax.tree.map(lambda m, n: jnp.concatenate([m, jnp.asarray(n)[None]]), out, last)
    model, carry, _ = state
    return model, carry, out


def equally(metrics: Metrics, steps: int) -> Array:
    """Weight 1, for the one block of a window."""
    return jnp.ones(())


def by_count(name: str | None) -> Weigh:
    """The number of steps, or the count of the metric of that name."""
    return lambda metrics, steps: jnp.asarray(float(steps) if name is None else metrics[name].count)
