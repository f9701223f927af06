"""What online rules share: one step at a time, no past, and gradients over cell and head."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from seqjax import checks
from seqjax._tree import from_vector, to_vector
from seqjax.cell import Cell, Params, State, fresh_memory
from seqjax.numerics import accumulator
from seqjax.plan import Plan

StepLoss: TypeAlias = Callable[[Any, Array, Any], Float[Array, ""]]
"""`step_loss(head, y, target) -> scalar`, y: [*batch, out_features]; a sum or a mean over the batch."""

Signal: TypeAlias = Callable[[Any, Array, Any], Float[Array, "*batch out_features"]]
"""`signal(head, y, target)` stands for ∂L_t/∂y_t, where a rule teaches the cell by other means."""


class OnlineParams(NamedTuple):
    """The params of the cell, and those of the loss: any pytree, () where it has none."""

    cell: Params
    head: Any = ()


class OnlineStep(NamedTuple):
    """What one step gives: `grads` is shaped like params, for any optax chain."""

    state: Any
    grads: OnlineParams
    loss: Float[Array, ""]
    y: Float[Array, "*batch out_features"]


class InitOnline(Protocol):
    """`init(params, batch_shape=(), *, state=None, key=None) -> online state`."""

    def __call__(
        self,
        params: OnlineParams,
        batch_shape: tuple[int, ...] = (),
        *,
        state: State = None,
        key: Array | None = None,
    ) -> Any:
        """The online state before the first step.

        state: the recurrent state to begin with, taken as it is: what params had to do with it is
        not known. None is the initial one, whose dependence on params counts. key: draws noise.
        """
        ...


class UpdateOnline(Protocol):
    """`update(params, online_state, x, target, *, reset=None) -> OnlineStep`."""

    def __call__(
        self,
        params: OnlineParams,
        online_state: Any,
        x: Float[Array, "*batch in_features"],
        target: Any,
        *,
        reset: Bool[Array, "*batch"] | None = None,
    ) -> OnlineStep:
        """One step of the cell, its loss, and the gradient of that loss.

        reset: True where a document begins at this step: the memory becomes the initial one, the noise
        is kept, and nothing of the past has any influence.
        """
        ...


class Online(NamedTuple):
    """An online rule for one cell and loss: two pure functions, for the caller to jit and to scan.

    The online state is a NamedTuple whose field `cell` is the recurrent state. Both raise a ValueError
    for params, states and inputs that are not those of the cell, of one batch and of this rule, and
    `update` for a loss that is no scalar.
    """

    init: InitOnline
    update: UpdateOnline


Rule: TypeAlias = Callable[[Cell, StepLoss], Online]
"""`sj.rtrl`, `sj.snap(n)`, `sj.uoro`, `sj.rflo` or `sj.eprop`."""


class Present(NamedTuple):
    """One step of the whole batch, and what its loss says of everything but the past.

    direct: ∂⁺L_t/∂θ, with s_{t-1} held fixed. past: ∂L_t/∂s_{t-1}, [*batch, n].
    """

    after: State
    y: Array
    loss: Array
    head: Any
    direct: Params
    past: Float[Array, "*batch n"]


def present(
    name: str,
    cell: Cell,
    step_loss: StepLoss,
    signal: Signal | None,
    params: OnlineParams,
    state: State,
    x: Array,
    target: Any,
) -> Present:
    """One VJP of (θ, s_{t-1}) -> y_t.

    By way of s_{t-1} and not of s_t, so that what y_t takes from params directly, as a readout or a
    residual connection does, is exact. Raises a ValueError for a loss that is no scalar, and for a
    signal of another shape than y.
    """

    def forward(cell_params: Params, s: Array) -> tuple[Array, State]:
        after, y = cell.step(cell_params, from_vector(state, s), x)
        return y, after

    y, pull, after = jax.vjp(forward, params.cell, to_vector(state, x.ndim - 1), has_aux=True)

    def loss_of(head: Any, y: Array) -> Array:
        return checks.scalar(f"{name}: step_loss", step_loss(head, y, target))

    loss, (head, dy) = jax.value_and_grad(loss_of, argnums=(0, 1))(params.head, y)
    if signal is not None:
        dy = checks.array(f"{name}: signal", signal(params.head, y, target)).astype(y.dtype)
        if dy.shape != y.shape:
            raise ValueError(
                f"{name}: signal gives shape {dy.shape}; expected that of y, {y.shape}"
            )
    direct, past = pull(dy)
    return Present(after, y, loss, head, direct, past)


def add_past(direct: Params, past: Params) -> Params:
    """The gradient of the cell: ∂⁺L_t/∂θ, and what came by way of s_{t-1}."""
    return jax.tree.map(lambda d, p: d + p.astype(d.dtype), direct, past)


def restarted(cell: Cell, params: Params, state: State, reset: Array) -> State:
    """The initial memory where `reset`; the noise stays."""
    return Plan(fresh=fresh_memory(cell, params, state, reset.shape)).restart(reset, state)


def widest(*dtypes: Any) -> Any:
    """The widest of real dtypes, at least float32; JAX promotes none by itself where it is strict."""
    return max(
        (accumulator(dtype) for dtype in dtypes),
        key=lambda d: d.itemsize,
        default=accumulator(jnp.float32),
    )


def in_each_row(function: Callable[..., Any], batch_shape: tuple[int, ...]) -> Callable[..., Any]:
    """`function` of one row for every row: rows never mix, and all arguments lead with the batch."""
    for _ in batch_shape:
        function = jax.vmap(function)
    return function
