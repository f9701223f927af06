"""The double sum of backpropagation through time, lag by lag: what of `flow` runs on the device."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from seqjax.arithmetic import where_rows
from seqjax.cell import Cell, Params, State
from seqjax.diagnostics.norms import dots, norm, norms, widened
from seqjax.diagnostics.trajectory import Trajectory, as_rows, step_vector
from seqjax.real_vector import to_vector

SINGLE_LAGS = 16
"""Lags that stay by themselves where the others are gathered in blocks."""

BLOCKS = 32
"""How many blocks the others make: a term is measured in some passes over a whole gradient, which for a
small batch takes far longer than to find it."""


class Followed(NamedTuple):
    """What is followed back: ∂L/∂y of some steps, through the run that led there.

    before: the state that each step starts from, [time, rows, ...]; xs: [time, rows, in_features].
    times: t of each step that is followed, [times]; injected: its ∂L/∂y, [times, rows, out_features].
    """

    before: State
    xs: Array
    times: Int[Array, " times"]
    injected: Float[Array, "times rows out_features"]

    def steps(self, lags: Array) -> Array:
        """The step k = t - ℓ that lies ℓ before each t, [*lags, times]; below 0 there is none."""
        shape = (*lags.shape, self.times.size)
        return jnp.broadcast_to(self.times, shape) - jnp.broadcast_to(lags[..., None], shape)

    def starts(self, k: Array) -> tuple[State, Array]:
        """The state that each step k starts from, and its x."""
        return jax.tree.map(lambda a: a[jnp.maximum(k, 0)], (self.before, self.xs))

    def cotangents(self, k: Array, δ: Array) -> tuple[Array, Array]:
        """Of what each step k gives: δ of its state, and of its y what the loss injects at k = t."""
        injected = jnp.broadcast_to(self.injected, (*k.shape, *self.injected.shape[1:]))
        at_t = k == jnp.broadcast_to(self.times, k.shape)
        return _where(k >= 0, δ), _where(at_t, injected)


def widest(time: int) -> int:
    """How many lags a block has to hold, for all of 0 … time to make at most so many blocks."""
    return max(1, -(-(time + 1 - SINGLE_LAGS) // BLOCKS))


def blocks(time: int, width: int) -> list[np.ndarray]:
    """The lags 0 … time as [blocks, lags of a block]: the first by themselves, then `width` together.

    The last block may reach beyond `time`, where all terms are zero.
    """
    lags = np.arange(time + 1, dtype=np.int32)
    if width == 1:
        return [lags[:, None]]
    count = -(-(time + 1 - SINGLE_LAGS) // width)
    together = SINGLE_LAGS + np.arange(count * width, dtype=np.int32)
    return [lags[:SINGLE_LAGS, None], together.reshape(count, width)]


@functools.partial(jax.jit, static_argnames=("cell", "batch_shape", "initial", "keep", "width"))
def terms_by_lag(
    cell: Cell,
    params: Params,
    path: Trajectory,
    injected: Array,
    times: Array,
    rows: Array,
    key: Array | None,
    *,
    batch_shape: tuple[int, ...],
    initial: bool,
    keep: bool,
    width: int,
) -> dict[str, Any]:
    """All of a `Flow` that is computed: its terms are measured block by block as they are made.

    path: of `rows` alone; injected: of every step and row.
    """

    def first(params: Params) -> State:
        """s_0 as a function of θ."""
        if not initial:
            return path.start
        state = as_rows(cell.initial_state(params, batch_shape, key=key), len(batch_shape))
        return jax.tree.map(lambda leaf: leaf[rows], state)

    followed = Followed(path.before, path.xs, times, injected[:, rows][times])
    start, pull_start = jax.vjp(lambda params: to_vector(first(params), 1), params)
    gradient, δ = _gradient(cell, params, followed)
    if initial:
        gradient = jax.tree.map(jnp.add, gradient, *pull_start(δ))
    sizes, whole = norms(gradient), widened(gradient)
    direction = [_over(g, size) for g, size in zip(whole, sizes, strict=True)]

    def block(carry, lags):
        δ, rest = carry
        k = followed.steps(lags)
        δs = _of_each_lag(cell, params, followed, k, δ)
        term, δ_before = _pull(cell, params, followed, k, δs)
        if initial:
            made = jnp.sum(_where(k == -1, δs), axis=(0, 1))
            term = jax.tree.map(jnp.add, term, *pull_start(made))
        rest = [r - g for r, g in zip(rest, widened(term), strict=True)]
        measured = norms(term), dots(widened(term), direction), norms(rest)
        of_states = _where(k >= -1, norm(δs, (2, 3)))
        return (δ_before[-1], rest), (measured, of_states, term if keep else None)

    carry = jnp.zeros((times.size, *start.shape), start.dtype), whole
    found = []
    for lags in blocks(path.xs.shape[0], width):
        carry, (measured, of_states, terms) = lax.scan(block, carry, jnp.asarray(lags))
        found.append((measured, of_states.reshape(lags.size, times.size), terms))
    measured, of_states, terms = jax.tree.map(lambda *a: jnp.concatenate(a), *found)
    lag_norms = of_states[: path.xs.shape[0] + 1].T
    return {
        "gradient": gradient,
        "by_lag": terms,
        **_relative(measured, sizes, jax.tree.structure(params)),
        "lag_norms": lag_norms,
        "state_norms": _by_step(lag_norms, times),
    }


def _gradient(cell: Cell, params: Params, followed: Followed) -> tuple[Params, Array]:
    """∂L/∂θ of all steps with the state they start from held fixed, and ∂L/∂s_0, [rows, entries].

    A loop over the states alone: the run is there, and θ meets all steps at once.
    """
    before, xs = followed.before, followed.xs
    vectors = to_vector(before, 2)
    time, rows, width = vectors.shape[0], *followed.injected.shape[1:]
    injected = jnp.zeros((time, rows, width), followed.injected.dtype)
    injected = injected.at[followed.times].set(followed.injected)

    def back(δ, inputs):
        before, vector, x, δ_y = inputs
        _, pull = jax.vjp(lambda s: step_vector(cell, params, before, s, x), vector)
        return pull((δ, δ_y))[0], δ

    δ = jnp.zeros(vectors.shape[1:], vectors.dtype)
    δ, δs = lax.scan(back, δ, (before, vectors, xs, injected), reverse=True)
    _, pull = jax.vjp(lambda params: step_vector(cell, params, before, vectors, xs), params)
    return pull((δs, injected))[0], δ


def _of_each_lag(cell: Cell, params: Params, followed: Followed, k: Array, δ: Array) -> Array:
    """δ⁽ˡ⁾ at each lag of a block, [lags, times, rows, entries], from that at the first."""
    if len(k) == 1:
        return δ[None]
    last, δs = lax.scan(lambda δ, k: (_pull(cell, params, followed, k, δ)[1], δ), δ, k[:-1])
    return jnp.concatenate([δs, last[None]])


def _pull(
    cell: Cell, params: Params, followed: Followed, k: Array, δ: Array
) -> tuple[Params, Array]:
    """From δ⁽ˡ⁾ [*lags, times, rows, entries] at the end of each step k: Σ δ⁽ˡ⁾ ∂⁺s_k/∂θ and δ⁽ˡ⁺¹⁾.

    At k = t with what the loss injects. A caller that needs one of the two pays for that alone.
    """
    before, x = followed.starts(k)
    step = lambda params, s: step_vector(cell, params, before, s, x)
    _, pull = jax.vjp(step, params, to_vector(before, δ.ndim - 1))
    return pull(followed.cotangents(k, δ))


def _relative(measured: tuple[Array, ...], sizes: Array, structure: Any) -> dict[str, Any]:
    """Norms, shares and rest of each leaf, and of all leaves together.

    measured: ‖G_ℓ‖, ⟨G_ℓ, G⟩ / ‖G‖ and ‖G_{ℓ+1} + …‖, [ends, leaves] each. sizes: ‖G‖, [leaves].
    """
    of_terms, along, left = measured
    total = norm(sizes)
    of_leaves = lambda measured: jax.tree.unflatten(structure, list(measured.T))
    per_leaf = jnp.broadcast_to(sizes, along.shape)
    return {
        "norms": of_leaves(of_terms),
        "shares": of_leaves(_over(along, per_leaf)),
        "rest": of_leaves(_over(left, per_leaf)),
        "total_shares": jnp.sum(_over(along, total) * _over(per_leaf, total), axis=1),
        "total_rest": norm(_over(left, total), 1),
    }


def _by_step(lag_norms: Array, times: Array) -> Array:
    """[times, time] from [times, lags]: what step k starts from lies t - k + 1 before the end of t."""
    k = jnp.arange(lag_norms.shape[1] - 1, dtype=jnp.int32)
    lags = times[:, None] - k[None] + 1
    return jnp.take_along_axis(lag_norms, jnp.clip(lags, 0), axis=1)


def _where(condition: Array, x: Array) -> Array:
    """The rows of `x` at which the condition holds; the others are 0, whatever they were."""
    return where_rows(condition, x, jnp.zeros_like(x))


def _over(x: Array, size: Array) -> Array:
    """X / size, and 0 where the size is; NaN stays NaN."""
    size = jnp.broadcast_to(size.astype(x.dtype), x.shape)
    return jnp.where(size == 0, 0, x / jnp.where(size == 0, 1, size))
