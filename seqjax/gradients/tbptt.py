"""Truncated backpropagation through time: gradients that reach back over k2 steps, every k1 steps."""

import dataclasses
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Float

from seqjax import checks
from seqjax._tree import join_floating, split_floating
from seqjax.gradients.method import Loss, Method, Metrics, UpdateFn, formed
from seqjax.gradients.windows import (
    Blocks,
    Visit,
    Walk,
    Windowed,
    WindowGradient,
    arrays,
    cut,
    mean,
    time_steps,
    zeros,
)

Losses: TypeAlias = Literal["new", "window"]
"""Which losses a window counts: those of its new steps, or those of all steps that it reaches."""


@dataclasses.dataclass(frozen=True)
class TBPTT(Windowed):
    """TBPTT(k1, k2): every k1 steps a gradient over the last k2 steps.

    Window j has the new steps j·k1 + 1 … e with e = (j + 1)·k1, and with a = max(0, e - k2)

        g_j = Σ_{t = a+1…e, counted} Σ_{k = a+1…t} ∂L_t/∂s_t · (∏_{i = k+1…t} ∂s_i/∂s_{i-1}) · ∂⁺s_k/∂θ

    `sj.tbptt(k1, k2).update(loss, optimizer)` makes an update in every window: one scan over blocks of
    k1 steps, and a last, shorter window where k1 does not divide the time. Every leaf of `batch` is
    [time, ...]. The carry enters each block as data, so the state is carried on from batch to batch;
    reach ends at the start of the batch.

    `sj.tbptt(k1, k2)(loss)` is the gradient with params held constant, added up over all windows:
    Σ_j n_j g_j / Σ_j n_j, where n_j is the number of steps whose loss window j counts. This is the
    truncated gradient of the mean loss over the batch: with losses="new" and k2 = time it is that of
    `sj.bptt`, for every k1, in the memory of one block of k1 steps and of time / k1 carries.

    Args:
        k1: Steps from one window to the next.
        k2: Steps that a gradient reaches back; None is k1.
        losses: "new" counts the new steps of a window, each loss once; "window" counts all steps that
            the window reaches, so that its loss is the mean over them. For k2 ≤ k1 they are the same.
        weight: The weight n of a block among others: None is its number of steps, as is right for a
            loss that is a mean over steps. Where blocks hold unequal numbers of valid tokens, and the
            loss is a mean over these, name a metric that counts them, such as "nats": its `Mean.count`
            is then n.
        short_batches: Take a batch shorter than k1 or k2 as it is instead of raising an error. This is
            always so where k2 is None.
        accumulate: Make one update a batch, from the gradient added up over all windows.

    k2 = k1 is the usual form, and costs one pass through the loss. For k2 > k1 a window runs the older
    blocks again, (k2 - k1) / k1 of them, from the carries that they started from: time O(k2) a window,
    memory that of one block and of k2 / k1 carries. Where params are updated in every window these
    carries were made by the params of their time and are not recomputed: each block is linearised with
    the current params, at the old carry. With one key for each block, its noise is the same when it is
    run again; of a block that is reached in part, noise that is drawn step by step (dropout on inputs)
    is drawn for these steps alone. For k2 < k1 the first k1 - k2 steps of a block run forward only, and
    the losses of the last k2 steps alone are counted. For k2 ≤ k1 no gradient crosses the start of a
    block, so that a shorter last window reaches less far. k1 = k2 = time is BPTT.

    The metrics of a window are those of its new steps; its "loss", if the loss reports none, is the
    scalar whose gradient was taken. Sums over blocks and windows are kept in at least float32.

    Raises a ValueError for a length below 1, unknown `losses`, and a `weight` where there is nothing to
    weigh; and, when called, for a batch whose leaves differ in time, that holds no step or fewer than
    k1 or k2, for a loss of another form than `Loss`, for a carry that it gives back in another form,
    and for a `weight` that is not the name of a metric.
    References: Williams, Peng 1990, "An efficient gradient-based algorithm for on-line training of
    recurrent network trajectories", their BPTT(h; h') with h = k2 and h' = k1; Sutskever 2013,
    "Training recurrent neural networks".

    >>> import jax.numpy as jnp
    >>> def loss(params, carry, batch, key):  # s_t = θ s_{t-1} x_t for one step of time
    ...     state = params * carry * batch[0]
    ...     return state, (state, {})
    >>> arguments = jnp.array(2.0), jnp.array(1.0), jnp.array([1.0, 3.0]), None
    >>> float(tbptt(1)(loss)(*arguments).grads)  # (1 + 6) / 2
    3.5
    >>> float(tbptt(1, 2)(loss)(*arguments).grads)  # (1 + 12) / 2
    6.5
    """

    k1: int
    k2: int | None = None
    _: dataclasses.KW_ONLY
    losses: Losses = "new"
    weight: str | None = None
    short_batches: bool = False
    accumulate: bool = False

    def __post_init__(self) -> None:
        """Validate the lengths and the name of the losses."""
        checks.positive("tbptt: k1", self.k1)
        checks.positive("tbptt: k2", self.reach)
        checks.one_of("tbptt: losses", self.losses, ("new", "window"))

    @property
    def reach(self) -> int:
        """The number of steps that a gradient reaches back."""
        return self.k1 if self.k2 is None else self.k2

    def update(self, loss: Loss, optimizer: optax.GradientTransformation) -> UpdateFn:
        """Return the update function: an update in every window, or one a batch with `accumulate`."""
        if self.accumulate:
            return Method.update(self, loss, optimizer)
        if self.weight is not None and self.losses == "new":
            raise ValueError(
                f"tbptt: weight is {self.weight!r}, but an update in every window with losses='new' "
                "has one loss and nothing to weigh; expected None, losses='window' or accumulate=True"
            )
        return super().update(loss, optimizer)

    def walk(self, loss: Loss) -> Walk:
        """Return the walk through the windows of a batch, one for each k1 steps."""
        loss = formed(self.name, loss)

        def walk(
            visit: Visit, model: Any, params: Any, carry: Any, batch: Any, key: Array | None
        ) -> tuple[Any, Any, Any]:
            checks.key("tbptt: key", key)
            carry, batch = arrays("tbptt: carry", carry), arrays("tbptt: batch", batch)
            self._check_length(batch)
            self._check_loss(loss, params, carry, batch, key)
            blocks = cut(batch, self.k1, key)

            def step(state: Any, inputs: tuple[Array, Any, Array | None]) -> tuple[Any, Any]:
                (model, carry, starts), (number, steps, key) = state, inputs
                window = Window(self, loss, blocks, starts, number, Block(carry, steps, key))
                model, after, out = visit(model, window.gradient)
                return (model, after, put(starts, number, carry)), out

            state = model, carry, ring(carry, self._room(blocks))
            (model, carry, _), out = blocks.scan(step, state)
            return model, carry, out

        return walk

    def older(self, blocks: Blocks, steps: int) -> int:
        """The steps that a window with so many new ones reaches beyond them.

        None for k2 ≤ k1, not even for the rest of a batch: no gradient then crosses the blocks. The
        rest has all blocks before it, a whole block at most all others.
        """
        before = blocks.whole - (steps == self.k1)
        return max(0, min(self.reach - steps, before * self.k1)) if self.reach > self.k1 else 0

    def _room(self, blocks: Blocks) -> int:
        """The number of older blocks that the widest window reaches, in whole or in part."""
        sizes = [self.k1] * (blocks.whole > 0) + [blocks.tail] * (blocks.tail > 0)
        return max(-(-self.older(blocks, steps) // self.k1) for steps in sizes)

    def _check_length(self, batch: Any) -> None:
        """Raise unless the batch is [time, ...] and holds a window, or short batches are allowed."""
        time = time_steps("tbptt", batch)
        for argument, length in (("k1", self.k1), ("k2", self.reach)):
            if length > time and not (self.short_batches or self.k2 is None):
                raise ValueError(
                    f"tbptt: {argument} is {length} but the batch has {time} steps; expected at most "
                    f"{time}: take a smaller {argument} or longer batches, sj.bptt for BPTT through "
                    "all of each, or short_batches=True where only the last batch of a pass is short, "
                    "as sj.data.Windows gives it"
                )

    def _check_loss(self, loss: Loss, params: Any, carry: Any, batch: Any, key: Any) -> None:
        """Raise unless the loss gives its carry as it came and the count to weigh by."""
        first = jax.tree.map(lambda a: a[: self.k1], batch)
        _, (after, metrics) = jax.eval_shape(loss, params, carry, first, key)
        if jax.tree.structure(after) != jax.tree.structure(carry):
            raise ValueError(
                f"tbptt: carry has structure {jax.tree.structure(carry)} but the loss gives back "
                f"{jax.tree.structure(after)}; start from the state that the model gives, "
                "such as carry=model.initial_state(params, (lanes,))"
            )
        name = "tbptt: the carry that the loss gives back"
        checks.same_tree(name, after, carry, "the carry before")
        if self.weight is None:
            return
        if self.weight not in metrics:
            raise ValueError(
                f"tbptt: weight is {self.weight!r}; expected the name of a metric of the loss, "
                f"one of {sorted(metrics)}, or None for steps"
            )
        shape = jnp.shape(metrics[self.weight].count)
        if shape:
            raise ValueError(
                f"tbptt: weight is {self.weight!r}, whose count has shape {shape}; expected one number"
            )


tbptt = TBPTT


class Block(NamedTuple):
    """The arguments of one call of the loss: the carry before its first step, its steps, its key."""

    start: Any
    batch: Any
    key: Array | None

    @property
    def steps(self) -> int:
        """The number of its steps."""
        return jax.tree.leaves(self.batch)[0].shape[0]


class Sums(NamedTuple):
    """Σ_i n_i ∇L_i, Σ_i n_i L_i and Σ_i n_i over the counted blocks i, and ∂/∂(the oldest carry)."""

    grads: Any
    total: Float[Array, ""]
    weight: Float[Array, ""]
    cotangent: Any

    def add(self, grads: Any, cotangent: Any) -> "Sums":
        """Add n_i ∇L_i of one block."""
        add = lambda s, g: s + g.astype(s.dtype)
        return self._replace(grads=jax.tree.map(add, self.grads, grads), cotangent=cotangent)

    def counted(self, value: Array, weight: Array) -> "Sums":
        """Add L_i and n_i of one block."""
        value, weight = value.astype(self.total.dtype), weight.astype(self.weight.dtype)
        return self._replace(total=self.total + value * weight, weight=self.weight + weight)


class Window(NamedTuple):
    """One window of a walk: its new steps are `block`, and `starts` are the carries before older ones.

    Older blocks are run again from there with the current params, which need not be those that made
    the carries.
    """

    method: TBPTT
    loss: Loss
    blocks: Blocks
    starts: Any
    number: Array
    block: Block

    def gradient(self, params: Any) -> WindowGradient:
        """Go back through the new block, then through the older ones, newest first."""
        method, block, number, seen = self.method, self.block, self.number, None
        older, skipped = method.older(self.blocks, block.steps), block.steps - method.reach
        if skipped > 0:
            block, seen = self._skip(params, block, skipped)
        sums, weight, carry, metrics = self._newest(params, block)
        if seen is not None:
            metrics = jax.tree.map(jnp.add, seen, metrics)
        whole, part = divmod(older, method.k1)

        def past(number: Array) -> Block:
            batch, key = jax.tree.map(
                lambda a: entry(a, number), (self.blocks.batch, self.blocks.keys)
            )
            return Block(get(self.starts, number), batch, key)

        def through_whole(sums: Sums, distance: Array) -> tuple[Sums, None]:
            pull = lambda sums: self._pull(params, past(number - distance), sums)
            # Before the beginning nothing is run at all, so that not even a NaN comes of it.
            return lax.cond(distance <= number, pull, lambda sums: sums, sums), None

        def through_part(sums: Sums) -> Sums:
            oldest, _ = self._skip(params, past(number - whole - 1), method.k1 - part)
            return self._pull(params, oldest, sums)

        if whole:
            sums, _ = lax.scan(through_whole, sums, jnp.arange(1, whole + 1))
        if part:
            sums = lax.cond(number > whole, through_part, lambda sums: sums, sums)
        grads, value = sums.grads, sums.total
        if method.losses == "window":
            weight = sums.weight
            grads, value = jax.tree.map(lambda total: mean(total, weight), (grads, value))
        return WindowGradient(grads, value, weight, carry, metrics)

    def _run(self, params: Any, block: Block) -> Any:
        return self.loss(params, block.start, block.batch, block.key)

    def _skip(self, params: Any, block: Block, steps: int) -> tuple[Block, Metrics]:
        """Run the first steps of a block; return its other steps, and the metrics of the first."""
        first, rest = (
            block._replace(batch=jax.tree.map(lambda a, part=part: a[part], block.batch))
            for part in (slice(steps), slice(steps, None))
        )
        _, (carry, metrics) = self._run(params, first)
        return rest._replace(start=carry), metrics

    def _weight(self, metrics: Metrics, steps: int) -> Array:
        """The number of steps of a block, or the count of the metric that is named."""
        name = self.method.weight
        return jnp.asarray(float(steps) if name is None else metrics[name].count)

    def _newest(self, params: Any, block: Block) -> tuple[Sums, Array, Any, Metrics]:
        """The sums over the newest block, its weight, the carry after it, its metrics."""
        moving, still = split_floating(block.start)

        def run(params: Any, moving: Any) -> Any:
            return self._run(params, block._replace(start=join_floating(moving, still)))

        value, back, (carry, metrics) = jax.vjp(run, params, moving, has_aux=True)
        weight = self._weight(metrics, block.steps)
        # Alone it weighs 1, which rounds nothing.
        own = (weight if self.method.losses == "window" else jnp.ones(())).astype(value.dtype)
        grads, cotangent = back(own)
        zero = zeros(value)
        sums = Sums(zeros(params), zero, zero, None).add(grads, cotangent).counted(value, own)
        return sums, weight, carry, metrics

    def _pull(self, params: Any, block: Block, sums: Sums) -> Sums:
        """Turn ∂/∂(the end of a block) into ∂/∂(its start), and add what reaches the params."""
        moving, still = split_floating(block.start)
        counts = self.method.losses == "window"

        def run(params: Any, moving: Any) -> Any:
            start = join_floating(moving, still)
            value, (carry, metrics) = self._run(params, block._replace(start=start))
            # A loss that does not count is no output: that part of the block is never computed.
            return (split_floating(carry)[0], value if counts else None), metrics

        (_, value), back, metrics = jax.vjp(run, params, moving, has_aux=True)
        if not counts:
            return sums.add(*back((sums.cotangent, None)))
        weight = self._weight(metrics, block.steps).astype(value.dtype)
        return sums.add(*back((sums.cotangent, weight))).counted(value, weight)


# The carries before the newest blocks are kept in a ring: that of block n is entry n mod room.


def ring(carry: Any, room: int) -> Any:
    """A ring with room for so many carries of this form; its first contents mean nothing."""
    return jax.tree.map(lambda a: jnp.broadcast_to(a[None], (room, *a.shape)), carry)


def get(ring: Any, number: Array) -> Any:
    """The carry before block `number`, one of the newest."""
    return jax.tree.map(lambda a: entry(a, number % len(a)), ring)


def put(ring: Any, number: Array, carry: Any) -> Any:
    """The ring with the carry before block `number` in the place of the oldest."""

    def replaced(ring: Array, new: Array) -> Array:
        if len(ring) == 0:
            return ring
        return lax.dynamic_update_index_in_dim(ring, new, number % len(ring), 0)

    return jax.tree.map(replaced, ring, carry)


def entry(a: Array, number: Array) -> Array:
    """Entry `number` of the first axis."""
    return lax.dynamic_index_in_dim(a, number, keepdims=False)
