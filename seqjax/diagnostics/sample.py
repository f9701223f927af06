"""What a report follows back: one loop from the last step to the first, for the flow and the Jacobians.

Each step back pulls all gradients of the sample at once, and the rows of the Jacobian with them: a loop
over a few numbers takes as long as its kernels are many, and not as they are large.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from seqjax._tree import to_vector
from seqjax.cell import Cell, Params
from seqjax.diagnostics.by_lag import Flow, chosen
from seqjax.diagnostics.norms import norm
from seqjax.diagnostics.products import PROBES, Jacobians, measured, orthonormal
from seqjax.diagnostics.terms import (
    Followed,
    Measure,
    pull_params,
    pull_step,
    relative,
    rows_where,
    start_of,
)
from seqjax.diagnostics.trajectory import Trajectory, step_vector

ROWS = 4
"""How many rows of the batch are looked at."""

TIMES = 8
"""How many steps of the loss are followed back, at most."""

SINGLE_LAGS = 16
"""Lags that stay by themselves; the others are gathered in blocks."""

BLOCKS = 16
"""How many blocks the others make: a term is measured in some passes over a whole gradient, which for a
small batch takes far longer than to find it."""


class Sample(NamedTuple):
    """What a report looks at: ∂L/∂y at some steps and in some rows, and the run of these rows.

    injected: ∂L/∂y of every step and row, [time, batch, out_features].
    times, rows: those that are followed; exact: the loss enters at no others.
    """

    path: Trajectory
    injected: Array
    times: np.ndarray
    rows: np.ndarray
    exact: bool


def choose(path: Trajectory, injected: Array, rows: np.ndarray, few: Trajectory) -> Sample:
    """As much as two backward passes of the batch: each step that is followed is one of its rows.

    rows: `ROWS` of all, evenly; few: the run of these. They are the sample, unless the loss sees others.
    """
    batch = injected.shape[1]
    most = min(TIMES, max(1, 2 * batch // len(rows)))
    times, seen, exact = chosen(injected, most, ROWS)
    few = few if np.array_equal(seen, rows) else path.take_rows(seen)
    return Sample(few, injected, times, seen, exact)


def look_back(
    cell: Cell, params: Params, sample: Sample, initial: bool, key: Array | None
) -> tuple[Flow, Jacobians]:
    """`flow` and `jacobians` of a sample; no bound is in it yet.

    initial, key: s_0 is made from params, its noise by `key`.
    """
    path, injected, times, rows, exact = sample
    time, batch = injected.shape[:2]
    m = min(PROBES, max(4, 2 * batch // len(rows)), path.entries)
    lags = blocks(time)
    ends = np.concatenate([block[:, -1] for block in lags]).clip(max=time)
    found, (frobenius, spectral) = _look_back(
        cell,
        params,
        path._replace(batch_shape=()),
        injected,
        np.asarray(times, np.int32),
        np.asarray(rows, np.int32),
        key,
        batch_shape=path.batch_shape if initial else (),
        initial=initial,
        m=m,
    )
    numbers = np.arange(time + 1)
    flow = Flow(numbers, by_lag=None, ends=ends, times=times, rows=rows, exact=exact, **found)
    return flow, Jacobians(ends, frobenius, spectral, None, time - 1, m == path.entries, m)


def blocks(time: int) -> list[np.ndarray]:
    """The lags 0 … time as [blocks, lags of a block]: the first by themselves, then some together.

    The last block may reach beyond `time`, where all terms are zero.
    """
    lags = np.arange(time + 1, dtype=np.int32)
    width = -(-(time + 1 - SINGLE_LAGS) // BLOCKS)
    if width <= 1:
        return [lags[:, None]]
    count = -(-(time + 1 - SINGLE_LAGS) // width)
    together = SINGLE_LAGS + np.arange(count * width, dtype=np.int32)
    return [lags[:SINGLE_LAGS, None], together.reshape(count, width)]


class Pulled(NamedTuple):
    """The gradients of a sample on their way back.

    δ: ∂L_t/∂s_k for each k = 0 … T, [1 + time, times, rows, entries]; zero for k > t.
    Q: rows of ∂s_T/∂s_{T-ℓ} at the last lag ℓ of each block, [blocks, m, rows, entries].
    """

    δ: Float[Array, "1+time times rows entries"]
    Q: Float[Array, "blocks m rows entries"]


@functools.partial(jax.jit, static_argnames=("cell", "batch_shape", "initial", "m"))
def _look_back(
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
    m: int,
) -> tuple[dict[str, Any], tuple[Array, Array]]:
    """What is computed of a `Flow`, and the norms of the Jacobians.

    path: of `rows` alone; injected: of every step and row.
    """
    time = path.xs.shape[0]
    followed = Followed(path.before, path.xs, times, injected[:, rows][times])
    start = start_of(cell, params, path, rows, key, batch_shape, initial)
    lags = blocks(time)
    pulled = _pull(cell, params, followed, np.concatenate([block[:, -1] for block in lags]), m)
    δ = pulled.δ
    gradient = start.add(
        pull_params(cell, params, followed, jnp.sum(δ[1:], axis=1)), jnp.sum(δ[0], axis=0)
    )
    measure = Measure.of(gradient)

    def one_block(rest, lags):
        k = followed.steps(lags)
        at_end = δ[jnp.clip(k, -1) + 1, jnp.arange(times.size, dtype=k.dtype)]
        term, _ = pull_step(cell, params, followed, k, at_end)
        term = start.add(term, jnp.sum(rows_where(k == -1, at_end), axis=(0, 1)))
        found, rest = measure.take(term, rest)
        return rest, found

    rest, found = measure.whole, []
    for some in lags:
        rest, terms = lax.scan(one_block, rest, jnp.asarray(some))
        found.append(terms)
    state_norms = norm(δ, (2, 3)).T
    back = times[:, None] + 1 - jnp.arange(time + 1, dtype=jnp.int32)[None]
    lag_norms = jnp.take_along_axis(state_norms, jnp.clip(back, 0), axis=1)
    flow = {
        "gradient": gradient,
        **relative(
            jax.tree.map(lambda *a: jnp.concatenate(a), *found),
            measure.sizes,
            jax.tree.structure(params),
        ),
        "lag_norms": rows_where(back >= 0, lag_norms),
        "state_norms": state_norms[:, :time],
    }
    return flow, measured(jnp.moveaxis(pulled.Q, 1, 2))


def _pull(cell: Cell, params: Params, followed: Followed, ends: np.ndarray, m: int) -> Pulled:
    """From the last step to the first: all that is followed, and m rows of the Jacobian."""
    before, xs, injected = followed.before, followed.xs, followed.injected
    vectors = to_vector(before, 2)
    time, rows, size = vectors.shape
    count = injected.shape[0]
    # The rows of the Jacobian are pulled along as gradients into which no loss enters.
    none = jnp.zeros((m, *injected.shape[1:]), injected.dtype)
    entering = jnp.concatenate([injected, none])
    times = jnp.concatenate([followed.times, jnp.full(m, -1, jnp.int32)])
    Q = jnp.broadcast_to(orthonormal(size, m, vectors.dtype).T[:, None], (m, rows, size))

    def back(carry, inputs):
        δ, kept = carry
        k, block, state, vector, x = inputs
        _, pull = jax.vjp(lambda s: step_vector(cell, params, state, s, x), vector)
        (before,) = jax.vmap(pull)((δ, rows_where(times == k, entering)))
        # What comes last into the place of a block stays there.
        return (before, kept.at[block].set(before[count:])), δ[:count]

    numbers = np.arange(time, dtype=np.int32)
    block = np.searchsorted(ends, time - numbers).astype(np.int32)
    steps = (jnp.asarray(numbers), jnp.asarray(block), before, vectors, xs)
    δ = jnp.concatenate([jnp.zeros((count, rows, size), vectors.dtype), Q])
    kept = jnp.zeros((len(ends), m, rows, size), vectors.dtype).at[0].set(Q)
    (δ, kept), δs = lax.scan(back, (δ, kept), steps, reverse=True)
    return Pulled(jnp.concatenate([δ[:count][None], δs]), kept)
