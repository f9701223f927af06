"""The gradient split by lag: how much of ∂L/∂θ comes from how far back."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Key

from seqjax import checks
from seqjax.cell import Cell, Params, State
from seqjax.diagnostics.terms import terms_by_lag
from seqjax.diagnostics.trajectory import (
    Trajectory,
    as_rows,
    check_sizes,
    evenly,
    finite_walk,
    not_finite,
)

FULL_RESOLUTION = 512 * 64
"""Steps times entries of a row's state up to which every step of the loss is followed by default."""

SAMPLED_TIMES = 16
"""How many steps of the loss are followed beyond that."""

MOST_NUMBERS = 2**25
"""Gradients of all lags are kept up to this many numbers, 128 MiB in float32."""


class Flow(NamedTuple):
    """∂L/∂θ = Σ_ℓ G_ℓ, split by the lag ℓ between a step of the loss and a use of the weights.

    lags: ℓ = 0 … T. Lag T holds only what comes through an initial state that depends on θ.
    gradient: Σ_ℓ G_ℓ from one backward pass, with the structure of params: ∂L/∂θ where `exact`.
    by_lag: G_ℓ, each leaf of params with a leading axis of lags; None where that is too large.
    ends: the last lag of each block of lags that the next five fields describe. Each lag is a block of
        its own, so `ends` is `lags`, except in a report on more than 31 steps.
    norms: ‖G_ℓ‖ of each leaf of params, [ends].
    shares: ⟨G_ℓ, G⟩ / ‖G‖² of each leaf, [ends]: the share of the gradient from lag ℓ, of either sign.
        The shares sum to 1 (all are 0 where the gradient is).
    rest: ‖G_{ℓ+1} + G_{ℓ+2} + …‖ / ‖G‖ of each leaf, [ends]: the relative error of a gradient that is
        truncated after lag ℓ. Its last entry is the rounding error of the identity above.
    total_shares, total_rest: the same over all leaves together, [ends].
    times: the steps of the loss that are followed, counted from 0 as in `xs[t]`.
    state_norms: [times, time], entry [i, k] is ‖∂L_t/∂s‖ with t = times[i] and s the state that step k
        starts from, 0 for k > t. L_t is the loss as a function of y_t alone; the norm is over all rows.
    lag_norms: [times, lags], the same by lag: entry [i, ℓ] for the state ℓ steps before the end of
        step t, so ℓ = 1 is the state that step t starts from. 0 where ℓ is 0 or > t + 1.
    exact: whether every step and row at which the loss enters is followed. If not, all fields describe
        a sample: the loss of `times` and `rows` alone.
    rows: the rows of the batch that are followed, [rows], with all batch axes flattened.
    """

    lags: np.ndarray
    gradient: Params
    by_lag: Params
    ends: np.ndarray
    norms: Params
    shares: Params
    rest: Params
    total_shares: Float[Array, " ends"]
    total_rest: Float[Array, " ends"]
    times: np.ndarray
    state_norms: Float[Array, "times time"]
    lag_norms: Float[Array, "times lags"]
    exact: bool
    rows: np.ndarray

    def reach(self, left: float = 0.01) -> int:
        """The smallest of `ends` after which no truncation loses more than `left` of the gradient.

        Later terms may cancel one another, so this need not be where `total_rest` first falls so low.
        """
        too_much = np.flatnonzero(~(np.asarray(self.total_rest) <= left))
        first = 0 if too_much.size == 0 else min(too_much[-1] + 1, self.ends.size - 1)
        return int(self.ends[first])

    def mean_norms(self) -> np.ndarray:
        """[lags]: the mean of `lag_norms` over the steps of the loss with a past that long."""
        lag_norms = np.asarray(self.lag_norms, np.float64)
        reached = (self.lags[None] > 0) & (self.lags[None] <= self.times[:, None] + 1)
        return np.where(reached, lag_norms, 0).sum(axis=0) / np.maximum(reached.sum(axis=0), 1)

    def __str__(self) -> str:
        """A table with a line for each power of two, and what was followed."""
        powers = [0, *(2**i for i in range(32) if 2**i < self.ends[-1]), int(self.ends[-1])]
        shares, of_states = np.asarray(self.total_shares), self.mean_norms()
        lines = ["   lag  of the gradient   so far   left after it   gradient of the state"]
        for i in dict.fromkeys(np.searchsorted(self.ends, powers)):
            lag = int(self.ends[i])
            of_state = format(of_states[lag], ".3g") if lag else "–"
            lines.append(
                f"{lag:>6}  {shares[i]:>15.2%}  {shares[: i + 1].sum():>7.1%}"
                f"  {self.total_rest[i]:>13.2%}   {of_state:>21}"
            )
        return "\n".join([*lines, self.seen])

    @property
    def seen(self) -> str:
        """What was followed, in words."""
        if self.exact:
            return "exact: every step and row at which the loss enters"
        times, rows = ", ".join(map(str, self.times)), ", ".join(map(str, self.rows))
        return f"a sample: the loss at steps {times}, rows {rows} of the batch"


def flow(
    cell: Cell,
    params: Params,
    xs: ArrayLike,
    loss: Callable[[Array], Array],
    state: State = None,
    *,
    key: Key[Array, ""] | None = None,
    times: int | None = None,
    rows: int | None = None,
) -> Flow:
    """∂L/∂θ = Σ_t Σ_{k≤t} (∂L_t/∂s_t) (∂s_t/∂s_{t-1} ⋯ ∂s_{k+1}/∂s_k) (∂⁺s_k/∂θ), gathered by ℓ = t - k

    where ∂⁺ holds s_{k-1} fixed. The loss enters at step t through y_t, by ∂L/∂y_t, and step t returns
    y_t: lag 0 is all that θ does inside that step. With s_{k-1} fixed, one more factor leads from the
    end of a step to its start:

    δ⁽⁰⁾_t = (∂L/∂y_t) ∂y_t/∂s_{t-1},   δ⁽ˡ⁾_{k-1} = δ⁽ˡ⁻¹⁾_k ∂s_k/∂s_{k-1}

    for all t at once, in a scan over lags. An initial state that is made from params, as that of
    `sj.LearnedState`, counts as the step before the first. The cost is that of as many backward passes
    as steps are followed. The steps are chosen by value, so do not call this function under `jax.jit`;
    the computation itself is jitted.

    Args:
        cell: a causal cell.
        params: the params of the cell.
        xs: [time, *batch, in_features].
        loss: a scalar from ys [time, *batch, out_features], which need not be a sum over steps. Targets
            and head are closed over.
        state: the initial state, as in `sj.unroll`.
        key: draws the noise of the run, as in `sj.unroll`.
        times: follow the loss of at most so many steps, evenly spaced among those at which it enters.
            None is all of them for time · state up to 512 · 64, and 16 beyond. A loss at the last step
            alone has one such step, and is exact however long the sequence is.
        rows: follow at most so many rows of the batch; None is all.

    Returns:
        A `Flow`, which prints as a table.

    Raises:
        ValueError: the cell is not causal, a state or ∂L/∂y is not finite, a size is below 1, or
            `sj.unroll` raises for these arguments.

    Reference: Pascanu, Mikolov, Bengio 2013, equations 3 to 5.

    >>> import jax, jax.numpy as jnp, seqjax as sj
    >>> cell = sj.GRU(features=4)
    >>> params = cell.init(jax.random.key(0), in_features=2)
    >>> loss = lambda ys: jnp.mean(ys**2)
    >>> flow = sj.diagnostics.flow(cell, params, jnp.ones((9, 3, 2)), loss)
    >>> bool(jnp.allclose(jnp.sum(flow.total_shares), 1.0)), flow.exact
    (True, True)
    """
    check_sizes("flow", times=times, rows=rows)
    path = finite_walk("flow", cell, params, xs, state, key)
    injected = injections("flow", path, loss)
    bad = first_bad_injection(injected)
    if bad is not None:
        raise ValueError(
            f"flow: loss: ∂L/∂y is not finite at step {bad}; expected a loss with a finite gradient"
        )
    time = path.xs.shape[0]
    if times is None and time * path.entries > FULL_RESOLUTION:
        times = SAMPLED_TIMES
    steps, some, exact = chosen(injected, times, rows)
    numbers = (time + 1) * sum(leaf.size for leaf in jax.tree.leaves(params))
    found = terms_by_lag(
        cell,
        params,
        path.take_rows(some)._replace(batch_shape=()),
        injected,
        np.asarray(steps, np.int32),
        np.asarray(some, np.int32),
        key,
        made_for=path.batch_shape if state is None else None,
        keep=numbers <= MOST_NUMBERS,
    )
    lags = np.arange(time + 1)
    found = Flow(lags=lags, ends=lags, times=steps, rows=some, exact=exact, **found)
    leaf = first_bad_gradient(found)
    if leaf is not None:
        raise ValueError(
            f"flow: ∂L/∂params{leaf} is not finite, though all states and ∂L/∂y are; expected a cell "
            "whose step has a finite derivative there, and finite xs"
        )
    return found


def injections(name: str, path: Trajectory, loss: Callable[[Array], Array]) -> Array:
    """Compute ∂L/∂y, [time, rows, out_features]; raise a ValueError if L is not one real number."""
    checks.function(f"{name}: loss", loss)
    time, _, width = path.ys.shape
    ys = path.ys.reshape(time, *path.batch_shape, width)
    # Not under a jit of ours, which would compile the loss again at every call.
    value, pull = jax.vjp(loss, ys)
    if getattr(value, "shape", None) != () or not jnp.issubdtype(value.dtype, jnp.floating):
        got = jax.eval_shape(lambda: value)  # shape and dtype, without the numbers
        raise ValueError(f"{name}: loss: expected a real scalar from ys {ys.shape}, got {got}")
    return as_rows(pull(np.ones((), value.dtype))[0], len(path.batch_shape), leading=1)


@jax.jit
def _finite_and_enters(injected: Array) -> tuple[Array, Array]:
    """[time, rows] each: whether ∂L/∂y is finite, and whether it is not zero."""
    return jnp.all(jnp.isfinite(injected), axis=2), jnp.any(injected != 0, axis=2)


def first_bad_injection(injected: Array) -> int | None:
    """Find the first step at which ∂L/∂y is not finite, or None."""
    finite, _ = _finite_and_enters(injected)
    bad = np.flatnonzero(~np.asarray(finite).all(axis=1))
    return int(bad[0]) if bad.size else None


def chosen(
    injected: Array, most_times: int | None, most_rows: int | None
) -> tuple[np.ndarray, np.ndarray, bool]:
    """Choose the steps and rows to follow; also return whether the loss enters at no others."""
    enters = np.asarray(_finite_and_enters(injected)[1])
    seen = np.flatnonzero(enters.any(axis=0)) if enters.any() else np.arange(enters.shape[1])
    rows = seen[evenly(len(seen), most_rows)]
    entering = np.flatnonzero(enters[:, rows].any(axis=1))
    times = entering[evenly(len(entering), most_times)]
    return times, rows, len(rows) == len(seen) and len(times) == len(entering)


def first_bad_gradient(found: Flow) -> str | None:
    """Name the first leaf of params whose gradient is not finite though those of all states are.

    A gradient that overflows on its way through the states is a finding, not an error.
    """
    finite = lambda numbers: bool(np.all(np.isfinite(np.asarray(numbers))))
    # The rest is not finite if any leaf is not, and is small.
    if finite(found.total_rest) or not finite(found.lag_norms):
        return None
    return next(iter(not_finite("", found.gradient)), None)
