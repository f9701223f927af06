"""A gated linear unit on what a cell emits: what stands between linear recurrences."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from seqjax import checks
from seqjax.numerics import affine
from seqjax.cell import Cell, Layered, Params, Run, State
from seqjax.fields import check_fields
from seqjax.initializers import Initializer, draw_gates
from seqjax.plan import Plan


class GLUParams(NamedTuple):
    """The params of the cell; V and W side by side, and b and c."""

    cell: Params
    kernel: Float[Array, "features 2*features"]
    bias: Float[Array, " 2*features"]


@dataclasses.dataclass(frozen=True, repr=False)
class GLU(Layered):
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

    cell: Cell
    kernel_init: Initializer | str = "glorot"
    param_dtype: DTypeLike = jnp.float32

    def __post_init__(self) -> None:
        """Refuse what is no cell."""
        checks.instance("GLU: cell", self.cell, Cell)
        check_fields(self)

    @property
    def features(self) -> int:
        """As many as the inner cell emits."""
        return self.cell.out_features

    def init(self, key: Array, in_features: int) -> GLUParams:
        """Those of the cell, and V and W each by its own draw of `kernel_init`."""
        cell_key, kernel_key = jax.random.split(key)
        size, dtype = self.features, self.param_dtype
        return GLUParams(
            self.cell.init(cell_key, in_features),
            draw_gates((self.kernel_init,) * 2, kernel_key, (size, size), dtype),
            jnp.zeros((2 * size,), dtype),
        )

    def initial_state(
        self, params: GLUParams, batch_shape: tuple[int, ...] = (), *, key: Array | None = None
    ) -> State:
        """The inner cell's initial state."""
        return self.cell.initial_state(params.cell, batch_shape, key=key)

    def step(self, params: GLUParams, state: State, x: Array) -> tuple[State, Array]:
        """The inner step, and the unit on what it emits."""
        state, y = self.cell.step(params.cell, state, x)
        return state, self.unit(params, y)

    def unroll_with(
        self, run: Run, params: GLUParams, state: State, xs: Array, plan: Plan
    ) -> tuple[State, Array]:
        """The inner run, and the unit on all its outputs at once."""
        state, ys = run(self.cell, params.cell, state, xs, plan)
        return state, self.unit(params, ys)

    def output(self, params: GLUParams, state: State, x: Array) -> Array:
        """The unit on the inner output."""
        return self.unit(params, self.cell.output(params.cell, state, x))

    def unit(
        self, params: GLUParams, y: Float[Array, "*any features"]
    ) -> Float[Array, "*any features"]:
        """(u V + b) ⊙ σ(u W + c) with u = gelu(y), in the dtype of y."""
        u = jax.nn.gelu(y, approximate=False)
        both = affine("GLU: y", u, params.kernel, params.bias, y.dtype).astype(y.dtype)
        value, gate = jnp.split(both, 2, axis=-1)
        return value * jax.nn.sigmoid(gate)

    def redraw(self, state: State, key: Array) -> State:
        """The inner cell's noise."""
        return self.cell.redraw(state, key)

    def deterministic(self) -> "GLU":
        """The inner cell for evaluation."""
        return dataclasses.replace(self, cell=self.cell.deterministic())

    @property
    def causal(self) -> bool:
        """Where the inner cell is."""
        return self.cell.causal

    @property
    def mixing(self):
        """That of the inner cell: the state does not see the unit."""
        return self.cell.mixing
