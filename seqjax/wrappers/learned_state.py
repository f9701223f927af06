"""A state to begin with that is learned."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from seqjax.cell import Cell, Params, RunChild, S, noise_only
from seqjax.plan import Plan
from seqjax.wrappers.wrapper import Wrapper


class LearnedStateParams(NamedTuple):
    """The inner params, and the initial state of one row.

    state: as the inner state, without the batch; None in place of what is not learned, and
    `RealAndImaginary` in place of a complex leaf.
    """

    cell: Params
    state: Any


class RealAndImaginary(NamedTuple):
    """A complex array as two real ones, since params are real."""

    real: Float[Array, "..."]
    imaginary: Float[Array, "..."]


@dataclasses.dataclass(frozen=True, repr=False)
class LearnedState(Wrapper[LearnedStateParams, S]):
    """s_0 = θ, the same for every row and document; θ starts at the initial state of the inner cell.

    Every floating leaf of memory is learned, in the dtype that it has; of a complex one the real and the
    imaginary part. (Of an sLSTM h alone moves: at n = 0, where it starts, its memory is empty, and what
    c and m hold has no say.) Clocks, masks and keys are as the inner cell makes them. With resets each
    document starts from θ. States are those of the inner cell, and a state that is carried over from
    another window is taken as it is.

    Reference: Hinton, "Neural networks for machine learning", lecture 7, 2012: the initial state is one
    more set of parameters.
    Choose it where sequences are short, or begin alike, and the first steps count.
    """

    cell: Cell[Any, S]

    def inner_params(self, params: LearnedStateParams) -> Params:
        """Select the params beside the learned state."""
        return params.cell

    def init(self, key: Array, in_features: int) -> LearnedStateParams:
        """The inner cell's params and its initial state, which the noise in it does not enter."""
        cell_key, noise_key = jax.random.split(key)
        params = self.cell.init(cell_key, in_features)
        state = self.cell.initial_state(params, key=noise_key)
        learned = lambda noise, leaf: None if noise else _as_real(leaf)
        return LearnedStateParams(
            params, jax.tree.map(learned, noise_only(self.cell, state), state)
        )

    def initial_state(
        self,
        params: LearnedStateParams,
        batch_shape: tuple[int, ...] = (),
        *,
        key: Array | None = None,
    ) -> S:
        """θ in every row, and the rest as the inner cell makes it."""
        state = self.cell.initial_state(params.cell, batch_shape, key=key)
        leaves, structure = jax.tree.flatten(state)
        learned = structure.flatten_up_to(params.state)
        new = [_in_each_row(a, b) for a, b in zip(learned, leaves, strict=True)]
        return jax.tree.unflatten(structure, new)

    def step(self, params: LearnedStateParams, state: S, x: Array) -> tuple[S, Array]:
        """Compute a step of the wrapped cell."""
        return self.cell.step(params.cell, state, x)

    def unroll_with(
        self, run: RunChild, params: LearnedStateParams, state: S, xs: Array, plan: Plan
    ) -> tuple[S, Array]:
        """Run the wrapped cell; θ is in the state that comes in, and in the plan."""
        (child,) = self.children()
        return run(child, params, state, xs, plan)


def _as_real(leaf: Array) -> Array | RealAndImaginary | None:
    """What is learned of a leaf: nothing of clocks and masks, two parts of a complex one."""
    if jnp.issubdtype(leaf.dtype, jnp.complexfloating):
        return RealAndImaginary(leaf.real, leaf.imag)
    # A copy: leaves that are one array, as zeros may be, could not be donated as params.
    return jnp.array(leaf) if jnp.issubdtype(leaf.dtype, jnp.floating) else None


def _in_each_row(learned: Any, leaf: Array) -> Array:
    """What is learned, repeated over the batch, in the shape and dtype of `leaf`."""
    if learned is None:
        return leaf
    if isinstance(learned, RealAndImaginary):
        learned = jax.lax.complex(*learned)
    # A copy: without a batch the state would otherwise be the params themselves, and donated with them.
    return jnp.array(jnp.broadcast_to(learned.astype(leaf.dtype), leaf.shape))
