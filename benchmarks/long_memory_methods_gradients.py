"""The gradient of the loss over a whole sequence, by each of the methods that are compared."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

import seqjax as sj
from benchmarks.long_memory_recipe import Task
from benchmarks.long_memory_run import Gradient, Params, outputs
from seqjax.gradients import OnlineRule

INPUT_KERNELS = ("input_kernel", "input_real", "input_imag", "feedthrough")
"""The weights of a cell that multiply x_t, by their names in its params."""


NOISE = 99
"""Folded into the key of a batch for the noise of a rule, apart from what the batch is drawn by."""


def truncated(cell: sj.Cell, task: Task, k1: int, k2: int) -> Gradient:
    """TBPTT(k1, k2), added up over the sequence; each window weighed by the targets that count in it."""

    def loss(params: Params, carry: Any, batch: Any, key: Array | None) -> Any:
        carry, found = outputs(cell, params, batch.inputs, carry)
        value, count = task.loss(found, batch), jnp.sum(batch.mask, dtype=jnp.float32)
        return value, (carry, {"counted": sj.losses.Mean(value * count, count)})

    method = sj.tbptt(k1, k2, weight="counted")(loss)

    def gradient(params: Params, batch: Any, key: Array) -> Params:
        state = cell.initial_state(params.cell, batch.mask.shape[1:])
        return method(params, state, batch, None).grads

    return gradient


def forward(cell: sj.Cell, task: Task, rule: Callable[[sj.Cell], OnlineRule]) -> Gradient:
    """An online rule with fixed params, its gradients added up over the sequence.

    The embedding E lies before the cell, where no rule reaches; but x_t E W is the same as a cell whose
    kernel is E W. The rule finds the gradient of that product, and one VJP of (E, W) -> E W, the same
    for all steps, makes it that of E and of W: exact where the rule is.
    """

    def step_loss(head: tuple[Array, Array], y: Array, target: tuple[Any, Array]) -> Array:
        V, a = head
        batch, share = target
        return share * task.loss(y @ V + a, batch)

    online = rule(cell).online(step_loss)

    def gradient(params: Params, batch: Any, key: Array) -> Params:
        inner, pull = jax.vjp(folded, params.embedding, params.cell)
        head = params.head, params.bias
        counted = jnp.sum(batch.mask, axis=1, dtype=jnp.float32)
        share = counted / jnp.sum(counted)
        fixed = sj.OnlineParams(inner, head)

        def step(carry: Any, now: Any) -> tuple[Any, None]:
            state, total = carry
            found = online.update(fixed, state, now[0].inputs, now)
            return (found.state, jax.tree.map(jnp.add, total, found.grads)), None

        noise = jax.random.fold_in(key, NOISE)
        state = online.init(fixed, batch.mask.shape[1:], key=noise)
        none = jax.tree.map(jnp.zeros_like, fixed)
        (_, total), _ = jax.lax.scan(step, (state, none), (batch, share))
        return Params(*pull(total.cell), *total.head)

    return gradient


def folded(embedding: Array, cell_params: Any) -> Any:
    """The params of the same cell before which no embedding stands: E W in the place of W."""
    kernels = [name for name in INPUT_KERNELS if name in cell_params._fields]
    return cell_params._replace(
        **{name: embedding @ getattr(cell_params, name) for name in kernels}
    )


def cosine(one: Params, other: Params) -> Array:
    """The cosine between two gradients, over all that lies before the head; NaN where one of them is 0.

    The gradient of the head is exact by every method, and would hide what is asked.
    """
    pairs = [
        (jnp.ravel(a), jnp.ravel(b))
        for a, b in zip(
            jax.tree.leaves((one.embedding, one.cell)),
            jax.tree.leaves((other.embedding, other.cell)),
            strict=True,
        )
    ]
    dot = sum((jnp.vdot(a, b) for a, b in pairs), jnp.zeros(()))
    squares = [sum((jnp.vdot(p[i], p[i]) for p in pairs), jnp.zeros(())) for i in (0, 1)]
    return dot / (jnp.sqrt(squares[0]) * jnp.sqrt(squares[1]))
