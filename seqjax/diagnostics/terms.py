"""The double sum of backpropagation through time on the device: lag by lag, or in blocks of lags."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from seqjax._tree import to_vector
from seqjax.cell import Cell, Params, State
from seqjax.diagnostics.products import dots, measured, norm, norms, probe_rows, widened
from seqjax.diagnostics.trajectory import Trajectory, as_rows, step_vector
from seqjax.numerics import where_rows

SINGLE_LAGS = 16
"""Lags that stay single in a report; the others are gathered in blocks."""

BLOCKS = 16
"""How many blocks the others make: to measure a term takes some passes over a whole gradient, which for
a small batch takes far longer than to compute it."""


class Followed(NamedTuple):
    """∂L/∂y of some steps, and the run through which it is followed back; used within `jax.jit`.

    before: the state that each step starts from, [time, rows, ...]; xs: [time, rows, in_features].
    times: t of each step that is followed, [times]; injected: its ∂L/∂y, [times, rows, out_features].
    add_start: adds to a gradient of params what δ [rows, entries], a gradient of s_0, contributes.
    """

    cell: Cell
    params: Params
    before: State
    xs: Array
    times: Int[Array, " times"]
    injected: Float[Array, "times rows out_features"]
    add_start: Callable[[Params, Array], Params]

    def steps(self, lags: Array) -> Array:
        """The step k = t - ℓ that lies ℓ before each t, [*lags, times]; below 0 there is none."""
        shape = (*lags.shape, self.times.size)
        return jnp.broadcast_to(self.times, shape) - jnp.broadcast_to(lags[..., None], shape)

    def pull_step(self, k: Array, δ: Array) -> tuple[Params, Array]:
        """Σ δ⁽ˡ⁾ ∂⁺s_k/∂θ and δ⁽ˡ⁺¹⁾ from δ⁽ˡ⁾ [*lags, times, rows, entries] at the end of each step k.

        At k = t the loss is injected; k = -1 is the initial state. A caller that uses one of the two
        results pays for that one only.
        """
        before, x = jax.tree.map(lambda a: a[jnp.maximum(k, 0)], (self.before, self.xs))
        step = lambda params, s: step_vector(self.cell, params, before, s, x)
        _, pull = jax.vjp(step, self.params, to_vector(before, δ.ndim - 1))
        injected = jnp.broadcast_to(self.injected, (*k.shape, *self.injected.shape[1:]))
        at_t = k == jnp.broadcast_to(self.times, k.shape)
        term, δ_before = pull((rows_where(k >= 0, δ), rows_where(at_t, injected)))
        of_start = jnp.sum(rows_where(k == -1, δ), axis=tuple(range(k.ndim)))
        return self.add_start(term, of_start), δ_before

    def gradient(self, δs: Array, δ_0: Array) -> Params:
        """∂L/∂θ from the gradients of the states: δs [time, rows, entries] at the end of each step."""
        before, xs = self.before, self.xs
        step = lambda params: step_vector(self.cell, params, before, to_vector(before, 2), xs)
        gradient = jax.vjp(step, self.params)[1]((δs, self.at_all_steps()))[0]
        return self.add_start(gradient, δ_0)

    def at_all_steps(self) -> Array:
        """∂L/∂y of the followed steps, zero at all others: [time, rows, out_features]."""
        shape = (self.xs.shape[0], *self.injected.shape[1:])
        return jnp.zeros(shape, self.injected.dtype).at[self.times].set(self.injected)


def follow(
    cell: Cell,
    params: Params,
    path: Trajectory,
    injected: Array,
    times: Array,
    rows: Array,
    key: Array | None,
    made_for: tuple[int, ...] | None,
) -> Followed:
    """Prepare to follow the loss of some steps and rows back.

    path: the run of `rows` alone. injected: ∂L/∂y of every step and row. key: drew the noise of s_0.
    made_for: the batch shape for which s_0 was made from params; None if it was given.
    """

    def initial(params: Params) -> Array:
        state = as_rows(cell.initial_state(params, made_for or (), key=key), len(made_for or ()))
        return to_vector(jax.tree.map(lambda leaf: leaf[rows], state), 1)

    add_start = lambda gradient, δ: gradient
    if made_for is not None:
        _, pull = jax.vjp(initial, params)
        add_start = lambda gradient, δ: jax.tree.map(jnp.add, gradient, *pull(δ))
    entering = injected[:, rows][times]
    return Followed(cell, params, path.before, path.xs, times, entering, add_start)


class Measure(NamedTuple):
    """The gradient G that terms are compared with: ‖G‖ of each leaf, G / ‖G‖, and G itself."""

    gradient: Params
    sizes: Float[Array, " leaves"]
    direction: list[Array]

    @classmethod
    def of(cls, gradient: Params) -> "Measure":
        """Prepare to compare with a gradient."""
        sizes = norms(gradient)
        direction = [_over(g, n) for g, n in zip(widened(gradient), sizes, strict=True)]
        return cls(gradient, sizes, direction)

    def take(self, term: Params, rest: list[Array]) -> tuple[tuple[Array, ...], list[Array]]:
        """‖G_ℓ‖, ⟨G_ℓ, G⟩ / ‖G‖ and ‖rest‖ after it, of each leaf; and the rest without the term."""
        wide = widened(term)
        rest = [r - g for r, g in zip(rest, wide, strict=True)]
        return (norms(term), dots(wide, self.direction), norms(rest)), rest

    def relative(self, measured: tuple[Array, ...]) -> dict[str, Any]:
        """The fields of a `Flow` from the three results of `take`, [ends, leaves] each."""
        of_terms, along, left = measured
        total, per_leaf = norm(self.sizes), jnp.broadcast_to(self.sizes, along.shape)
        of_leaves = lambda x: jax.tree.unflatten(jax.tree.structure(self.gradient), list(x.T))
        return {
            "gradient": self.gradient,
            "norms": of_leaves(of_terms),
            "shares": of_leaves(_over(along, per_leaf)),
            "rest": of_leaves(_over(left, per_leaf)),
            "total_shares": jnp.sum(_over(along, total) * _over(per_leaf, total), axis=1),
            "total_rest": norm(_over(left, total), 1),
        }


@functools.partial(jax.jit, static_argnames=("cell", "made_for", "keep"))
def terms_by_lag(
    cell, params, path, injected, times, rows, key, *, made_for, keep
) -> dict[str, Any]:
    """The fields of a `Flow`, in a scan over lags: each term is measured as it is computed."""
    followed = follow(cell, params, path, injected, times, rows, key, made_for)
    vectors = to_vector(path.before, 2)

    def back(δ, inputs):
        before, vector, x, δ_y = inputs
        _, pull = jax.vjp(lambda s: step_vector(cell, params, before, s, x), vector)
        return pull((δ, δ_y))[0], δ

    # One backward pass first: each term is compared with its result.
    steps = (path.before, vectors, path.xs, followed.at_all_steps())
    nothing = jnp.zeros(vectors.shape[1:], vectors.dtype)
    δ_0, δs = lax.scan(back, nothing, steps, reverse=True)
    measure = Measure.of(followed.gradient(δs, δ_0))

    def one_lag(carry, lag):
        δ, rest = carry
        k = followed.steps(lag)
        term, δ_before = followed.pull_step(k, δ)
        measured, rest = measure.take(term, rest)
        of_states = rows_where(k >= -1, norm(δ, (1, 2)))
        return (δ_before, rest), (measured, of_states, term if keep else None)

    start = (jnp.zeros((times.size, *nothing.shape), nothing.dtype), widened(measure.gradient))
    lags = jnp.arange(path.xs.shape[0] + 1, dtype=jnp.int32)
    _, (measured, of_states, terms) = lax.scan(one_lag, start, lags)
    lag_norms = of_states.T
    state_norms = seen_from_the_end(lag_norms, times)[:, :-1]
    measured = measure.relative(measured)
    return {"by_lag": terms, "lag_norms": lag_norms, "state_norms": state_norms, **measured}


@functools.partial(jax.jit, static_argnames=("cell", "made_for", "m"))
def terms_in_blocks(
    cell, params, path, injected, times, rows, key, *, made_for, m
) -> tuple[dict[str, Any], tuple[Array, Array]]:
    """The fields of a `Flow` with lags in `blocks`, and both norms of the Jacobians at their ends.

    One loop from the last step to the first pulls all gradients, and with them m rows of ∂s_T/∂s_{T-ℓ}:
    a loop over a few numbers takes as long as its kernels are many, not as they are large.
    """
    time = path.xs.shape[0]
    followed = follow(cell, params, path, injected, times, rows, key, made_for)
    lags = blocks(time)
    δ, Q = _pull(followed, np.concatenate([block[:, -1] for block in lags]), m)
    measure = Measure.of(followed.gradient(jnp.sum(δ[1:], axis=1), jnp.sum(δ[0], axis=0)))

    def one_block(rest, lags):
        k = followed.steps(lags)
        at_end = δ[jnp.clip(k, -1) + 1, jnp.arange(times.size, dtype=k.dtype)]
        term, _ = followed.pull_step(k, at_end)
        found, rest = measure.take(term, rest)
        return rest, found

    rest, found = widened(measure.gradient), []
    for some in lags:
        rest, terms = lax.scan(one_block, rest, jnp.asarray(some))
        found.append(terms)
    state_norms = norm(δ, (2, 3)).T
    terms = {
        **measure.relative(jax.tree.map(lambda *a: jnp.concatenate(a), *found)),
        "lag_norms": seen_from_the_end(state_norms, times),
        "state_norms": state_norms[:, :time],
    }
    return terms, measured(jnp.moveaxis(Q, 1, 2))


def blocks(time: int) -> list[np.ndarray]:
    """The lags 0 … time as [blocks, lags of a block]: the first are single, the others together.

    The last block may reach beyond `time`, where all terms are zero.
    """
    lags = np.arange(time + 1, dtype=np.int32)
    width = -(-(time + 1 - SINGLE_LAGS) // BLOCKS)
    if width <= 1:
        return [lags[:, None]]
    count = -(-(time + 1 - SINGLE_LAGS) // width)
    together = SINGLE_LAGS + np.arange(count * width, dtype=np.int32)
    return [lags[:SINGLE_LAGS, None], together.reshape(count, width)]


def _pull(followed: Followed, ends: np.ndarray, m: int) -> tuple[Array, Array]:
    """Pull gradients and m rows of the Jacobian from the last step to the first.

    Returns:
        δ: ∂L_t/∂s_k for each k = 0 … T, [1 + time, times, rows, entries]; zero for k > t.
        Q: rows of ∂s_T/∂s_{T-ℓ} for each lag ℓ of `ends`, [ends, m, rows, entries].
    """
    cell, params, before, xs, times, injected, _ = followed
    vectors = to_vector(before, 2)
    time, rows, size = vectors.shape
    count = len(times)
    # The rows of the Jacobian are gradients into which no loss enters.
    none = jnp.zeros((m, *injected.shape[1:]), injected.dtype)
    entering = jnp.concatenate([injected, none])
    times = jnp.concatenate([times, jnp.full(m, -1, jnp.int32)])

    def back(carry, inputs):
        δ, kept = carry
        k, block, state, vector, x = inputs
        _, pull = jax.vjp(lambda s: step_vector(cell, params, state, s, x), vector)
        (before,) = jax.vmap(pull)((δ, rows_where(times == k, entering)))
        # The last rows written into the place of a block stay there.
        return (before, kept.at[block].set(before[count:])), δ[:count]

    numbers = np.arange(time, dtype=np.int32)
    block = np.searchsorted(ends, time - numbers).astype(np.int32)
    steps = (jnp.asarray(numbers), jnp.asarray(block), before, vectors, xs)
    Q = probe_rows(vectors[0], m)
    δ = jnp.concatenate([jnp.zeros((count, rows, size), vectors.dtype), Q])
    kept = jnp.zeros((len(ends), *Q.shape), Q.dtype).at[0].set(Q)
    (δ, kept), δs = lax.scan(back, (δ, kept), steps, reverse=True)
    return jnp.concatenate([δ[:count][None], δs]), kept


def seen_from_the_end(numbers: Array, times: Array) -> Array:
    """[times, 1 + time], by lag from by state or the reverse: s_k lies t + 1 - k before the end of t."""
    other = times[:, None] + 1 - jnp.arange(numbers.shape[1], dtype=jnp.int32)[None]
    return rows_where(other >= 0, jnp.take_along_axis(numbers, jnp.clip(other, 0), axis=1))


def rows_where(condition: Array, x: Array) -> Array:
    """The rows of `x` at which the condition holds; the others are 0, whatever they were."""
    return where_rows(condition, x, jnp.zeros_like(x))


def _over(x: Array, size: Array) -> Array:
    """Divide `x` by `size`, and give 0 where the size is 0; NaN stays NaN."""
    size = jnp.broadcast_to(size.astype(x.dtype), x.shape)
    return jnp.where(size == 0, 0, x / jnp.where(size == 0, 1, size))
