"""Layers of deep stacks: a residual connection around a cell, and a gated linear unit after it."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from seqjax.cell import Cell, P, Params, RunChild, S
from seqjax.fields import check_fields
from seqjax.initializers import Initializer, draw_gates
from seqjax.numerics import affine
from seqjax.plan import Plan
from seqjax.wrappers.wrapper import Wrapper


@dataclasses.dataclass(frozen=True, repr=False)
class Residual(Wrapper[P, S]):
    """y_t = x_t + cell(x)_t

    The gradient has a path around the cell at every step, which makes deep stacks trainable. Params
    and states are those of the inner cell.

    Raises a ValueError where in_features and the features of the cell differ.
    Reference: He et al. 2016; in recurrent stacks: Wu et al. 2016, section 3.1.
    Choose it in stacks of more than three layers.
    """

    cell: Cell[P, S]

    def init(self, key: Array, in_features: int) -> P:
        """Draw the params of the wrapped cell."""
        if in_features != self.cell.out_features:
            raise ValueError(
                f"Residual: in_features is {in_features} but the cell has {self.cell.out_features} "
                "features; x + y needs them equal"
            )
        return self.cell.init(key, in_features)

    def step(self, params: P, state: S, x: Array) -> tuple[S, Array]:
        """Compute a step of the wrapped cell and add x."""
        state, y = self.cell.step(params, state, x)
        return state, x.astype(y.dtype) + y

    def unroll_with(
        self, run: RunChild, params: P, state: S, xs: Array, plan: Plan
    ) -> tuple[S, Array]:
        """Run the wrapped cell and add xs."""
        (child,) = self.children()
        state, ys = run(child, params, state, xs, plan)
        return state, xs.astype(ys.dtype) + ys


class GLUParams(NamedTuple):
    """The params of the wrapped cell; V and W side by side, and b and c."""

    cell: Params
    kernel: Float[Array, "features 2*features"]
    bias: Float[Array, " 2*features"]


@dataclasses.dataclass(frozen=True, repr=False)
class GLU(Wrapper[GLUParams, S]):
    """u_t = gelu(cell(x)_t)
    y_t = (u_t V + b) ⊙ σ(u_t W + c)

    It stands after the recurrence and runs for all steps at once; the state is that of the inner cell. A
    stack of linear recurrences alone is a linear recurrence again, and this is what makes it more.
    V, W: [features, features], packed as kernel [features, 2 · features]; b, c: [features], 0 at first.

    Raises a ValueError for what is no cell and for an unknown initialiser.
    References: Dauphin, Fan, Auli, Grangier 2017, "Language modeling with gated convolutional networks";
    around a linear recurrence: Orvieto et al. 2023, "Resurrecting recurrent neural networks for long
    sequences", in `sj.Residual`.
    Choose it around each `sj.LRU` or other linear cell of a stack: `sj.Residual(sj.GLU(sj.LRU(64)))`.
    """

    cell: Cell[Any, S]
    kernel_init: Initializer | str = "glorot"
    param_dtype: DTypeLike = jnp.float32

    def __post_init__(self) -> None:
        """Validate the wrapped cell and the hyperparameters."""
        super().__post_init__()
        check_fields(self)

    def inner_params(self, params: GLUParams) -> Params:
        """Select the params beside those of the unit."""
        return params.cell

    def init(self, key: Array, in_features: int) -> GLUParams:
        """Draw the params of the cell, and V and W each by its own draw of `kernel_init`."""
        cell_key, kernel_key = jax.random.split(key)
        size, dtype = self.features, self.param_dtype
        return GLUParams(
            self.cell.init(cell_key, in_features),
            draw_gates((self.kernel_init,) * 2, kernel_key, (size, size), dtype),
            jnp.zeros((2 * size,), dtype),
        )

    def step(self, params: GLUParams, state: S, x: Array) -> tuple[S, Array]:
        """Compute a step of the wrapped cell and apply the unit to its output."""
        state, y = self.cell.step(params.cell, state, x)
        return state, self.unit(params, y)

    def unroll_with(
        self, run: RunChild, params: GLUParams, state: S, xs: Array, plan: Plan
    ) -> tuple[S, Array]:
        """Run the wrapped cell and apply the unit to all outputs at once."""
        (child,) = self.children()
        state, ys = run(child, params, state, xs, plan)
        return state, self.unit(params, ys)

    def output(self, params: GLUParams, state: S, x: Array) -> Array:
        """Apply the unit to the output of the wrapped cell."""
        return self.unit(params, self.cell.output(params.cell, state, x))

    def unit(
        self, params: GLUParams, y: Float[Array, "*any features"]
    ) -> Float[Array, "*any features"]:
        """Compute (u V + b) ⊙ σ(u W + c) with u = gelu(y), in the dtype of y."""
        u = jax.nn.gelu(y, approximate=False)
        both = affine("GLU: y", u, params.kernel, params.bias, y.dtype).astype(y.dtype)
        value, gate = jnp.split(both, 2, axis=-1)
        return value * jax.nn.sigmoid(gate)
