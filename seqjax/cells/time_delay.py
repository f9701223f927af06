"""No recurrence at all: a layer over the last few inputs, which shows what memory buys."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from seqjax import checks
from seqjax.cell import Cell, check_state
from seqjax.fields import check_fields
from seqjax.gates import Activation, activate
from seqjax.initializers import Initializer, draw
from seqjax.numerics import affine, compute_dtype, state_dtype


class TimeDelayParams(NamedTuple):
    """W, the rows of the oldest input first, and b."""

    input_kernel: Float[Array, "window*in_features features"]
    bias: Float[Array, " features"]


class TimeDelayState(NamedTuple):
    """The last inputs, the oldest first, at least float32."""

    inputs: Float[Array, "*batch window in_features"]


@dataclasses.dataclass(frozen=True, repr=False)
class TimeDelay(Cell[TimeDelayParams, TimeDelayState]):
    """y_t = φ([x_{t-window+1}, …, x_t] W + b)

    A network that is fed forward alone, slid over the sequence: what lies `window` steps back is lost
    without a trace. Its state is the window itself, zeros before the first step. φ is `activation`:
    tanh, sigmoid, relu or identity.
    W: [window · in_features, features], b: [features].

    As the cell of a language model it is that of Bengio et al. 2003; `sj.models.NGram` counts instead.

    Raises a ValueError for features or a window below 1, an unknown activation or initialiser.
    References: Waibel, Hanazawa, Hinton, Shikano, Lang 1989, "Phoneme recognition using time-delay
    neural networks"; Bengio, Ducharme, Vincent, Jauvin 2003, "A neural probabilistic language model".
    Choose it as the baseline that has no memory: what a recurrent cell does better, memory does.

    >>> import jax, jax.numpy as jnp, seqjax as sj
    >>> ones = sj.initializers.Constant(1.0)
    >>> cell = sj.TimeDelay(features=1, window=3, activation="identity", input_init=ones)
    >>> params = cell.init(jax.random.key(0), in_features=1)
    >>> _, ys = sj.unroll(cell, params, jnp.array([[1.0], [2.0], [3.0], [4.0], [5.0]]))
    >>> print(ys[:, 0])
    [ 1.  3.  6.  9. 12.]
    """

    features: int
    window: int
    activation: Activation = "tanh"
    input_init: Initializer | str = "glorot"
    bias_init: Initializer | str = "zeros"
    param_dtype: DTypeLike = jnp.float32
    dtype: DTypeLike | None = None

    def __post_init__(self) -> None:
        """Validate hyperparameters."""
        checks.positive("TimeDelay: window", self.window)
        check_fields(self)

    def init(self, key: Array, in_features: int) -> TimeDelayParams:
        """W by `input_init`, b by `bias_init`."""
        checks.size("TimeDelay: in_features", in_features)
        input_key, bias_key = jax.random.split(key)
        shape = (self.window * in_features, self.features)
        return TimeDelayParams(
            draw(self.input_init, input_key, shape, self.param_dtype),
            draw(self.bias_init, bias_key, (self.features,), self.param_dtype),
        )

    def initial_state(
        self,
        params: TimeDelayParams,
        batch_shape: tuple[int, ...] = (),
        *,
        key: Array | None = None,
    ) -> TimeDelayState:
        """A window of zeros."""
        shape = (*batch_shape, self.window, params.input_kernel.shape[0] // self.window)
        return TimeDelayState(jnp.zeros(shape, state_dtype(self)))

    def step(
        self, params: TimeDelayParams, state: TimeDelayState, x: Array
    ) -> tuple[TimeDelayState, Array]:
        """The oldest input out, x_t in."""
        window = state.inputs
        checks.trailing("TimeDelay: x", x, params.input_kernel.shape[0] // self.window)
        check_state(self, params, state, x)
        newest = x.astype(window.dtype)[..., None, :]
        state = TimeDelayState(jnp.concatenate([window[..., 1:, :], newest], axis=-2))
        return state, self.output(params, state, x)

    def output(self, params: TimeDelayParams, state: TimeDelayState, x: Array) -> Array:
        """y_t = φ([x_{t-window+1}, …, x_t] W + b)."""
        window = state.inputs.reshape(*state.inputs.shape[:-2], params.input_kernel.shape[0])
        dtype = compute_dtype(self)
        a = affine("TimeDelay: window", window, params.input_kernel, params.bias, dtype)
        return activate(self.activation, a).astype(dtype)
