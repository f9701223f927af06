"""The double sum of backpropagation through time, lag by lag: what of `flow` runs on the device."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from seqjax._tree import to_vector
from seqjax.cell import Cell, Params, State
from seqjax.diagnostics.norms import dots, norm, norms, widened
from seqjax.diagnostics.trajectory import Trajectory, as_rows, step_vector
from seqjax.numerics import where_rows


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
        return rows_where(k >= 0, δ), rows_where(at_t, injected)

    def at_all_steps(self) -> Array:
        """What the loss injects at every step, [time, rows, out_features]."""
        shape = (self.xs.shape[0], *self.injected.shape[1:])
        return jnp.zeros(shape, self.injected.dtype).at[self.times].set(self.injected)


class Start(NamedTuple):
    """s_0 as it follows from θ: its vector [rows, entries], and what pulls a gradient through that.

    pull: None where s_0 is given.
    """

    vector: Float[Array, "rows entries"]
    pull: Any

    def add(self, gradient: Params, δ: Array) -> Params:
        """`gradient` with what δ [rows, entries], a gradient of s_0, brings to it."""
        return gradient if self.pull is None else jax.tree.map(jnp.add, gradient, *self.pull(δ))


def start_of(
    cell: Cell,
    params: Params,
    path: Trajectory,
    rows: Array,
    key: Array | None,
    batch_shape: tuple[int, ...],
    initial: bool,
) -> Start:
    """s_0 of these rows; `initial`: it is made from params, its noise by `key`."""
    if not initial:
        return Start(to_vector(path.start, 1), None)

    def made(params: Params) -> Array:
        state = as_rows(cell.initial_state(params, batch_shape, key=key), len(batch_shape))
        return to_vector(jax.tree.map(lambda leaf: leaf[rows], state), 1)

    return Start(*jax.vjp(made, params))


class Measure(NamedTuple):
    """What terms of the gradient G are held against: ‖G‖ of each leaf, G / ‖G‖, and G itself."""

    sizes: Float[Array, " leaves"]
    direction: list[Array]
    whole: list[Array]

    @classmethod
    def of(cls, gradient: Params) -> "Measure":
        """Of ∂L/∂θ."""
        sizes, whole = norms(gradient), widened(gradient)
        return cls(sizes, [_over(g, size) for g, size in zip(whole, sizes, strict=True)], whole)

    def take(self, term: Params, rest: list[Array]) -> tuple[tuple[Array, ...], list[Array]]:
        """‖G_ℓ‖, ⟨G_ℓ, G⟩ / ‖G‖ and what is left after it, of each leaf; and the rest without it."""
        wide = widened(term)
        rest = [r - g for r, g in zip(rest, wide, strict=True)]
        return (norms(term), dots(wide, self.direction), norms(rest)), rest


@functools.partial(jax.jit, static_argnames=("cell", "batch_shape", "initial", "keep"))
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
) -> dict[str, Any]:
    """All of a `Flow` that is computed, in a scan over lags: each term is measured as it is made.

    path: of `rows` alone; injected: of every step and row.
    """
    followed = Followed(path.before, path.xs, times, injected[:, rows][times])
    start = start_of(cell, params, path, rows, key, batch_shape, initial)
    gradient, δ = _gradient(cell, params, followed)
    gradient = start.add(gradient, δ)
    measure = Measure.of(gradient)

    def one_lag(carry, lag):
        δ, rest = carry
        k = followed.steps(lag)
        term, δ_before = pull_step(cell, params, followed, k, δ)
        term = start.add(term, jnp.sum(rows_where(k == -1, δ), axis=0))
        measured, rest = measure.take(term, rest)
        of_states = rows_where(k >= -1, norm(δ, (1, 2)))
        return (δ_before, rest), (measured, of_states, term if keep else None)

    nothing = jnp.zeros((times.size, *start.vector.shape), start.vector.dtype)
    lags = jnp.arange(path.xs.shape[0] + 1, dtype=jnp.int32)
    _, (measured, of_states, terms) = lax.scan(one_lag, (nothing, measure.whole), lags)
    lag_norms = of_states.T
    return {
        "gradient": gradient,
        "by_lag": terms,
        **relative(measured, measure.sizes, jax.tree.structure(params)),
        "lag_norms": lag_norms,
        "state_norms": _by_step(lag_norms, times),
    }


def _gradient(cell: Cell, params: Params, followed: Followed) -> tuple[Params, Array]:
    """∂L/∂θ of all steps with the state they start from held fixed, and ∂L/∂s_0, [rows, entries].

    A loop over the states alone: the run is there, and θ meets all steps at once.
    """
    before, xs = followed.before, followed.xs
    vectors, injected = to_vector(before, 2), followed.at_all_steps()

    def back(δ, inputs):
        before, vector, x, δ_y = inputs
        _, pull = jax.vjp(lambda s: step_vector(cell, params, before, s, x), vector)
        return pull((δ, δ_y))[0], δ

    δ = jnp.zeros(vectors.shape[1:], vectors.dtype)
    δ, δs = lax.scan(back, δ, (before, vectors, xs, injected), reverse=True)
    return pull_params(cell, params, followed, δs), δ


def pull_params(cell: Cell, params: Params, followed: Followed, δs: Array) -> Params:
    """Σ_k δ_k ∂⁺s_k/∂θ from δ at the end of every step, [time, rows, entries], and what is injected."""
    before, xs = followed.before, followed.xs
    step = lambda params: step_vector(cell, params, before, to_vector(before, 2), xs)
    return jax.vjp(step, params)[1]((δs, followed.at_all_steps()))[0]


def pull_step(
    cell: Cell, params: Params, followed: Followed, k: Array, δ: Array
) -> tuple[Params, Array]:
    """From δ⁽ˡ⁾ [*lags, times, rows, entries] at the end of each step k: Σ δ⁽ˡ⁾ ∂⁺s_k/∂θ and δ⁽ˡ⁺¹⁾.

    At k = t with what the loss injects. A caller that needs one of the two pays for that alone.
    """
    before, x = followed.starts(k)
    step = lambda params, s: step_vector(cell, params, before, s, x)
    _, pull = jax.vjp(step, params, to_vector(before, δ.ndim - 1))
    return pull(followed.cotangents(k, δ))


def relative(measured: tuple[Array, ...], sizes: Array, structure: Any) -> dict[str, Any]:
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


def rows_where(condition: Array, x: Array) -> Array:
    """The rows of `x` at which the condition holds; the others are 0, whatever they were."""
    return where_rows(condition, x, jnp.zeros_like(x))


def _over(x: Array, size: Array) -> Array:
    """X / size, and 0 where the size is; NaN stays NaN."""
    size = jnp.broadcast_to(size.astype(x.dtype), x.shape)
    return jnp.where(size == 0, 0, x / jnp.where(size == 0, 1, size))
