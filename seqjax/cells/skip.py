"""Simple recurrent network with a second connection that skips steps back in time."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from seqjax import checks
from seqjax.cell import GatedCell
from seqjax.cells.packed import draw_kernels
from seqjax.fields import check_fields
from seqjax.gates import Activation, activate, name_gate
from seqjax.initializers import Initializer, draw
from seqjax.numerics import affine, compute_dtype, state_dtype


class SkipRNNParams(NamedTuple):
    """W, U, V and b."""

    input_kernel: Float[Array, "in_features features"]
    recurrent_kernel: Float[Array, "features features"]
    skip_kernel: Float[Array, "features features"]
    bias: Float[Array, " features"]


class SkipRNNState(NamedTuple):
    """The last k hidden states, the latest last, at least float32."""

    h: Float[Array, "*batch skip features"]


@dataclasses.dataclass(frozen=True, repr=False)
class SkipRNN(GatedCell[SkipRNNParams, SkipRNNState]):
    """h_t = φ(x_t W + h_{t-1} U + h_{t-k} V + b)
    y_t = h_t

    k is `skip`, φ is `activation`. From step t back to step t - nk there is a path of n factors
    diag(φ') Vᵀ, where h_{t-1} U alone would need nk, so a gradient that shrinks by each factor reaches k
    times further back. The state holds h_{t-k} … h_{t-1}, [*batch, skip, features], zeros at first, and
    each step moves them by one place.
    W: [in_features, features], U and V: [features, features], each drawn by itself, b: [features].

    This is not the Skip RNN of Campos et al. 2018, which learns to skip updates of the state.

    Raises a ValueError for features or a skip below 1, and an unknown activation or initialiser.
    References: Lin, Horne, Tiňo, Giles 1996, "Learning long-term dependencies in NARX recurrent neural
    networks"; Zhang et al. 2016, "Architectural complexity measures of recurrent neural networks";
    Goodfellow, Bengio, Courville 2016, section 10.9.1.
    Choose it where one lag is known to matter, such as a season or a line's length, and gates are too
    slow.
    """

    additive = True

    features: int
    skip: int
    activation: Activation = "tanh"
    input_init: Initializer | str = "glorot"
    recurrent_init: Initializer | str = "orthogonal"
    bias_init: Initializer | str = "zeros"
    param_dtype: DTypeLike = jnp.float32
    dtype: DTypeLike | None = None

    def __post_init__(self) -> None:
        """Validate hyperparameters."""
        check_fields(self)
        if self.skip == 0:
            raise ValueError(
                "SkipRNN: skip: expected how many steps back the second connection reaches, at least 1, "
                "got 0; sj.Elman is the network without one"
            )
        checks.positive("SkipRNN: skip", self.skip)

    def init(self, key: Array, in_features: int) -> SkipRNNParams:
        """W by `input_init`, U and V each by `recurrent_init`, b by `bias_init`."""
        W, U, b = draw_kernels(self, key, in_features, (self.bias_init,))
        key = jax.random.fold_in(key, 1)
        V = draw(self.recurrent_init, key, (self.features, self.features), self.param_dtype)
        return SkipRNNParams(W, U, V, b)

    def initial_state(
        self, params: SkipRNNParams, batch_shape: tuple[int, ...] = (), *, key: Array | None = None
    ) -> SkipRNNState:
        """h_{1-k} = … = h_0 = 0."""
        return SkipRNNState(jnp.zeros((*batch_shape, self.skip, self.features), state_dtype(self)))

    def project(self, params: SkipRNNParams, x: Array) -> Array:
        """z_t = x_t W + b."""
        return affine("SkipRNN: x", x, params.input_kernel, params.bias, compute_dtype(self))

    def recurrent_input(self, state: SkipRNNState) -> Array:
        """[h_{t-1}, h_{t-k}], [*batch, 2 · features]."""
        return jnp.concatenate([state.h[..., -1, :], state.h[..., 0, :]], axis=-1)

    def recurrent_kernel(self, params: SkipRNNParams) -> Array:
        """[U; V], [2 · features, features]."""
        kernel = jnp.concatenate([params.recurrent_kernel, params.skip_kernel])
        return kernel.astype(compute_dtype(self))

    def gate(
        self, gate_params: tuple[()], z: Array, r: Array, state: SkipRNNState
    ) -> tuple[SkipRNNState, Array]:
        """h_t = φ(z_t + r_t), which takes the place of h_{t-k}."""
        h = name_gate("φ", activate(self.activation, z + r), self.activation)
        last = jnp.concatenate([state.h[..., 1:, :], h[..., None, :]], axis=-2)
        state = SkipRNNState(last)
        return state, self.emit(state)

    def emit(self, state: SkipRNNState) -> Array:
        """y_t = h_t."""
        return state.h[..., -1, :].astype(compute_dtype(self))
