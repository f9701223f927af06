"""Unbiased online recurrent optimisation: the influence as one random product of two vectors."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from seqjax._tree import to_vector
from seqjax.cell import Cell, Params, State
from seqjax.gradients.online import (
    OnlineBatch,
    OnlineParams,
    OnlineRule,
    OnlineStep,
    StepLoss,
    in_each_row,
    present,
    restarted,
    widest,
)
from seqjax.gradients.structure import start_by_vector, step_by_vector
from seqjax.numerics import where_rows, widened

EPSILON = 1e-7
"""Keeps the scales off zero; whatever they are, they change the variance alone."""


class UOROState(NamedTuple):
    """The recurrent state; s̃ and θ̃ with E[s̃ ⊗ θ̃] = ∂s_t/∂θ; and for each row the key of the next signs.

    param_trace: shaped like params, each leaf [*batch, *leaf].
    """

    cell: State
    state_trace: Float[Array, "*batch n"]
    param_trace: Params
    key: Key[Array, "*batch"]


@dataclasses.dataclass(frozen=True)
class UORO(OnlineRule):
    """s̃_t = ρ_0 D_t s̃_{t-1} + ρ_1 ν_t,   θ̃_t = θ̃_{t-1} / ρ_0 + ν_tᵀ I_t / ρ_1
    ρ_0 = √(‖θ̃_{t-1}‖ / ‖D_t s̃_{t-1}‖),   ρ_1 = √(‖ν_tᵀ I_t‖ / ‖ν_t‖)
    dL_t/dθ ≈ (∂L_t/∂s_{t-1} · s̃_{t-1}) θ̃_{t-1} + ∂⁺L_t/∂θ

    Unbiased online recurrent optimisation, an `OnlineRule`. D_t = ∂s_t/∂s_{t-1}, I_t = ∂⁺s_t/∂θ, and
    ν_t are n signs, drawn at each step, +1 or -1 with the same probability. With params held constant
    the mean over the draws is the gradient of RTRL, and so of BPTT; a single draw is noisy, the more so
    the larger the state.

    A row of the batch has traces and signs of its own. With n entries of the state and P params, each
    row needs memory O(n + P), and time O(P): one JVP and one VJP of the step. `init` needs a key, for
    the signs; so does a batch without a carry.

    Args:
        cell: Any causal cell, stacks included; clocks, masks and keys in its state are passed by.
        every: Steps from one update to the next; None is one update a batch.

    Raises a ValueError for a cell that has no step, and for an init without a key.
    Reference: Tallec, Ollivier 2018, "Unbiased online recurrent optimization".
    """

    cell: Cell
    every: int | None = 1

    def begin(self, params: OnlineParams, x: Any, state: State, key: Array | None) -> UOROState:
        """Return the first state and its traces, which are 0 for a state that is given."""
        if key is None:
            raise ValueError(
                "uoro: key is None; expected a key, which draws the signs: init(params, ..., key=key)"
            )
        cell_key, sign_key = jax.random.split(key)
        given, batch_shape = state, x.shape[:-1]
        if state is None:
            state = self.cell.initial_state(params.cell, batch_shape, key=cell_key)
        keys, *traces = self._first(params, jax.random.split(sign_key, batch_shape))
        if given is not None:
            traces = jax.tree.map(jnp.zeros_like, traces)
        return UOROState(state, *traces, key=keys)

    def step(
        self, loss: StepLoss, params: OnlineParams, online_state: Any, inputs: OnlineBatch
    ) -> OnlineStep:
        """Use the traces of the past, then carry them through this step."""
        cell, (x, _, reset), (state, s, theta, keys) = self.cell, inputs, online_state
        if reset is not None:
            state = restarted(cell, params.cell, state, reset)
            keys, *first = self._first(params, keys)
            restart = lambda f, old: where_rows(reset, f, old)
            s, theta = jax.tree.map(restart, tuple(first), (s, theta))
        after, ds, result = present(self, loss, params, state, inputs)
        weight = jnp.vecdot(ds, s.astype(ds.dtype))
        weigh = lambda th: jnp.tensordot(weight.astype(th.dtype), th, weight.ndim)
        past = jax.tree.map(weigh, theta)

        def advance(state: State, x: Array, s: Array, theta: Params, key: Array) -> Any:
            return advanced(cell, params.cell, state, x, s, theta, key)

        s, theta, keys = in_each_row(advance, x.shape[:-1])(state, x, s, theta, keys)
        return result(UOROState(after, s, theta, keys), past)

    def _first(self, params: OnlineParams, keys: Array) -> Any:
        """The keys that are left, and the first traces, of each row."""
        return in_each_row(lambda k: first_traces(self.cell, params.cell, k), keys.shape)(keys)


uoro = UORO


def first_traces(cell: Cell, params: Params, key: Array) -> tuple[Array, Array, Params]:
    """The key that is left, and s̃_0 and θ̃_0 of one row: ∂s_0/∂θ, where the initial state is learned."""
    key, sign_key = jax.random.split(key)
    s, pull = jax.vjp(lambda params: start_by_vector(cell, params), params)
    signs = random_signs(sign_key, s)
    pulled = widened(pull(signs)[0])[0]
    rho = scale(norm(pulled), norm(signs))
    return key, rho.astype(s.dtype) * signs, jax.tree.map(lambda p: p / rho.astype(p.dtype), pulled)


def advanced(
    cell: Cell, params: Params, state: State, x: Array, s: Array, theta: Params, key: Array
) -> tuple[Array, Params, Array]:
    """s̃_t, θ̃_t and the key that is left, of one row; s and theta are those of the step before."""
    key, sign_key = jax.random.split(key)
    at, step = to_vector(state), step_by_vector(cell, params, state, x)
    after, pushed = jax.jvp(step, (at,), (s,))
    _, pull = jax.vjp(lambda params: step(at, params), params)
    signs = random_signs(sign_key, after)
    pulled = widened(pull(signs)[0])[0]
    rho_0 = scale(norm(theta), norm(pushed))
    rho_1 = scale(norm(pulled), norm(signs))
    s = rho_0.astype(s.dtype) * pushed + rho_1.astype(s.dtype) * signs
    theta = jax.tree.map(
        lambda th, p: th / rho_0.astype(th.dtype) + p / rho_1.astype(th.dtype), theta, pulled
    )
    return s, theta, key


def norm(tree: Any) -> Float[Array, ""]:
    """‖v‖ over all leaves."""
    leaves = jax.tree.leaves(tree)
    wide = widest(*(leaf.dtype for leaf in leaves))
    return jnp.sqrt(sum((jnp.sum(jnp.square(a.astype(wide))) for a in leaves), jnp.zeros((), wide)))


def scale(above: Float[Array, ""], below: Float[Array, ""]) -> Float[Array, ""]:
    """√(above / below), kept off zero."""
    wide = widest(above.dtype, below.dtype)
    return jnp.sqrt(above.astype(wide) / (below.astype(wide) + EPSILON)) + EPSILON


def random_signs(key: Array, like: Float[Array, " n"]) -> Float[Array, " n"]:
    """+1 or -1, each with probability 1/2."""
    return jax.random.rademacher(key, like.shape, like.dtype)
