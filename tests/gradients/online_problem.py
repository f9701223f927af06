"""A sequence to learn step by step, and its gradient forward in time and by BPTT."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import seqjax as sj

IN_FEATURES, OUTPUTS = 3, 2


def squares(head, y, target):
    """A readout and half its squared error, summed over the batch."""
    return jnp.sum(jnp.square(y @ head - target)) / 2


class Problem(NamedTuple):
    """A cell with params, inputs and targets, of one dtype; resets or None; the key of the noise."""

    cell: Any
    params: sj.OnlineParams
    batch: sj.OnlineBatch
    key: jax.Array

    @property
    def batch_shape(self):
        return self.batch.xs.shape[1:-1]


def make(cell, time=4, batch=(2,), resets=(), dtype=jnp.float64):
    """resets: indices [time, *batch] at which a document begins."""
    keys = jax.random.split(jax.random.key(3), 5)
    params = cell.init(keys[0], IN_FEATURES)
    head = jax.random.normal(keys[1], (cell.out_features, OUTPUTS), dtype)
    xs = jax.random.normal(keys[2], (time, *batch, IN_FEATURES), dtype)
    targets = jax.random.normal(keys[3], (time, *batch, OUTPUTS), dtype)
    marks = np.zeros((time, *batch), bool)
    for index in resets:
        marks[index] = True
    begun = sj.OnlineBatch(xs, targets, jnp.asarray(marks) if resets else None)
    return Problem(cell, sj.OnlineParams(params, head), begun, keys[4])


def forward(rule, problem, params=None, state=None, key=None):
    """The sum of the gradients of all steps, the losses, the outputs and the last online state."""
    params = problem.params if params is None else params
    rule = rule(problem.cell).online(squares)
    key = problem.key if key is None else key
    online_state = rule.init(params, problem.batch_shape, state=state, key=key)

    def step(carry, inputs):
        online_state, grads = carry
        result = rule.update(params, online_state, inputs.xs, inputs.targets, reset=inputs.resets)
        grads = jax.tree.map(jnp.add, grads, result.grads)
        return (result.state, grads), (result.loss, result.y)

    start = online_state, jax.tree.map(jnp.zeros_like, params)
    (online_state, grads), (losses, ys) = jax.lax.scan(step, start, problem.batch)
    return grads, losses, ys, online_state


def by_bptt(problem, state=None, key=None):
    """The gradient of the summed loss, the losses, the outputs and the last recurrent state."""
    xs, targets, resets = problem.batch
    key = problem.key if key is None else key

    def loss(params):
        last, ys = sj.unroll(
            problem.cell,
            params.cell,
            xs,
            state,
            key=None if state is not None else key,
            resets=resets,
        )
        losses = jax.vmap(functools.partial(squares, params.head))(ys, targets)
        return jnp.sum(losses), (losses, ys, last)

    (_, (losses, ys, last)), grads = jax.value_and_grad(loss, has_aux=True)(problem.params)
    return grads, losses, ys, last


def plain(leaf):
    """A leaf as NumPy; of a random key, its words."""
    is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(leaf) if is_key else leaf)


def assert_close(came, expected, rtol=1e-10, atol=1e-12):
    """The same structure and values; by default up to the rounding of some dozens of operations."""
    assert jax.tree.structure(came) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(came), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(plain(a), plain(b), rtol=rtol, atol=atol)


def distance(came, expected):
    """The largest difference of any entry."""
    pairs = zip(jax.tree.leaves(came), jax.tree.leaves(expected), strict=True)
    return max(float(jnp.abs(a - b).max()) for a, b in pairs)
