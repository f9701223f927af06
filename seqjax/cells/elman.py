"""Simple recurrent networks: Elman's, the pre-activation form, and the one that starts at identity."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from seqjax import checks
from seqjax.activations import Activation, activate, check_activation
from seqjax.arithmetic import accumulator, add_vector, affine, compute_dtype, matmul
from seqjax.cell import GatedCell
from seqjax.initializers import (
    Initializer,
    Normal,
    ScaledIdentity,
    check_initializer,
    draw,
)


class ElmanParams(NamedTuple):
    """W, U and b of an Elman network."""

    input_kernel: Float[Array, "in_features features"]
    recurrent_kernel: Float[Array, "features features"]
    bias: Float[Array, " features"]


class ElmanState(NamedTuple):
    """The hidden state, at least float32."""

    h: Float[Array, "*batch features"]


@dataclasses.dataclass(frozen=True, repr=False)
class Elman(GatedCell):
    """h_t = φ(x_t W + h_{t-1} U + b)
    y_t = h_t

    φ is `activation`: tanh, sigmoid, relu or identity. A readout is a head, not part of the cell.
    W: [in_features, features], U: [features, features], b: [features].
    In stacked form the same network is h_t = φ([h_{t-1}, x_t] W̃ + b) with W̃ = [U; W].

    Raises a ValueError for features below 1 and for an unknown activation or initialiser.
    Reference: Elman 1990, "Finding structure in time".
    """

    features: int
    activation: Activation = "tanh"
    input_init: Initializer | str = "glorot"
    recurrent_init: Initializer | str = "orthogonal"
    bias_init: Initializer | str = "zeros"
    param_dtype: DTypeLike = jnp.float32
    dtype: DTypeLike | None = None

    def __post_init__(self) -> None:
        """Refuse hyperparameters that make no cell."""
        checks.positive("Elman: features", self.features)
        checks.floating("Elman: param_dtype", self.param_dtype)
        checks.floating("Elman: dtype", self.dtype)
        check_activation("Elman: activation", self.activation)
        check_initializer("Elman: input_init", self.input_init)
        check_initializer("Elman: recurrent_init", self.recurrent_init)
        check_initializer("Elman: bias_init", self.bias_init)

    def init(self, key: Array, in_features: int) -> ElmanParams:
        """W by `input_init`, U by `recurrent_init`, b by `bias_init`."""
        input_key, recurrent_key, bias_key = jax.random.split(key, 3)
        size, dtype = self.features, self.param_dtype
        return ElmanParams(
            input_kernel=draw(self.input_init, input_key, (in_features, size), dtype),
            recurrent_kernel=draw(self.recurrent_init, recurrent_key, (size, size), dtype),
            bias=draw(self.bias_init, bias_key, (size,), dtype),
        )

    def initial_state(
        self, params: ElmanParams, batch_shape: tuple[int, ...] = (), *, key: Array | None = None
    ) -> ElmanState:
        """h_0 = 0."""
        dtype = compute_dtype(self.dtype, self.param_dtype)
        return ElmanState(h=jnp.zeros((*batch_shape, self.features), accumulator(dtype)))

    def project(self, params: ElmanParams, x: Array) -> Array:
        """z_t = x_t W + b."""
        dtype = compute_dtype(self.dtype, self.param_dtype)
        return affine("Elman: x", x, params.input_kernel, params.bias, dtype)

    def recurrent_input(self, state: ElmanState) -> Array:
        """h_{t-1}."""
        return state.h

    def recurrent_kernel(self, params: ElmanParams) -> Array:
        """U."""
        return params.recurrent_kernel.astype(compute_dtype(self.dtype, self.param_dtype))

    def gate(
        self, gate_params: tuple[()], z: Array, r: Array, state: ElmanState
    ) -> tuple[ElmanState, Array]:
        """h_t = φ(z_t + r_t)."""
        h = activate(self.activation, z + r)
        return ElmanState(h), h.astype(compute_dtype(self.dtype, self.param_dtype))


def IRNN(
    features: int,
    *,
    scale: float = 1.0,
    input_stddev: float = 0.001,
    param_dtype: DTypeLike = jnp.float32,
    dtype: DTypeLike | None = None,
) -> Elman:
    """h_t = relu(x_t W + h_{t-1} U + b), with U = scale · I, b = 0 and W ~ N(0, input_stddev²) at first.

    An `Elman` network that starts by adding its inputs up, so that gradients neither vanish nor
    explode at first; a scale below 1 forgets.

    Reference: Le, Jaitly, Hinton 2015, "A simple way to initialize recurrent networks of rectified
    linear units".

    >>> IRNN(features=8).activation
    'relu'
    """
    return Elman(
        features,
        activation="relu",
        input_init=Normal(input_stddev),
        recurrent_init=ScaledIdentity(scale),
        param_dtype=param_dtype,
        dtype=dtype,
    )


class PreActivationParams(NamedTuple):
    """V, W and θ of a network whose state is the pre-activation."""

    input_kernel: Float[Array, "in_features features"]
    recurrent_kernel: Float[Array, "features features"]
    threshold: Float[Array, " features"]


class PreActivationState(NamedTuple):
    """The pre-activation, at least float32."""

    h: Float[Array, "*batch features"]


@dataclasses.dataclass(frozen=True, repr=False)
class PreActivationRNN(GatedCell):
    """h_t = ψ(x_t V) + φ(h_{t-1}) W - θ
    y_t = φ(h_t)

    The state is the pre-activation h, the form in which the vanishing gradient is often derived:
    ∂h_t/∂h_{t-1} = diag(φ'(h_{t-1})) W. φ is `activation`, ψ is `input_activation`.
    V: [in_features, features], W: [features, features], θ: [features].

    Raises a ValueError for features below 1 and for an unknown activation or initialiser.
    Reference: Pascanu, Mikolov, Bengio 2013, "On the difficulty of training recurrent neural
    networks", equation 2.
    """

    features: int
    activation: Activation = "tanh"
    input_activation: Activation = "identity"
    input_init: Initializer | str = "glorot"
    recurrent_init: Initializer | str = "orthogonal"
    threshold_init: Initializer | str = "zeros"
    param_dtype: DTypeLike = jnp.float32
    dtype: DTypeLike | None = None

    def __post_init__(self) -> None:
        """Refuse hyperparameters that make no cell."""
        checks.positive("PreActivationRNN: features", self.features)
        checks.floating("PreActivationRNN: param_dtype", self.param_dtype)
        checks.floating("PreActivationRNN: dtype", self.dtype)
        check_activation("PreActivationRNN: activation", self.activation)
        check_activation("PreActivationRNN: input_activation", self.input_activation)
        check_initializer("PreActivationRNN: input_init", self.input_init)
        check_initializer("PreActivationRNN: recurrent_init", self.recurrent_init)
        check_initializer("PreActivationRNN: threshold_init", self.threshold_init)

    def init(self, key: Array, in_features: int) -> PreActivationParams:
        """V by `input_init`, W by `recurrent_init`, θ by `threshold_init`."""
        input_key, recurrent_key, threshold_key = jax.random.split(key, 3)
        size, dtype = self.features, self.param_dtype
        return PreActivationParams(
            input_kernel=draw(self.input_init, input_key, (in_features, size), dtype),
            recurrent_kernel=draw(self.recurrent_init, recurrent_key, (size, size), dtype),
            threshold=draw(self.threshold_init, threshold_key, (size,), dtype),
        )

    def initial_state(
        self,
        params: PreActivationParams,
        batch_shape: tuple[int, ...] = (),
        *,
        key: Array | None = None,
    ) -> PreActivationState:
        """h_0 = 0."""
        dtype = compute_dtype(self.dtype, self.param_dtype)
        return PreActivationState(h=jnp.zeros((*batch_shape, self.features), accumulator(dtype)))

    def project(self, params: PreActivationParams, x: Array) -> Array:
        """z_t = ψ(x_t V) - θ."""
        checks.trailing("PreActivationRNN: x", x, params.input_kernel.shape[0])
        dtype = compute_dtype(self.dtype, self.param_dtype)
        z = activate(self.input_activation, matmul(x, params.input_kernel, dtype))
        return add_vector(z, -params.threshold)

    def recurrent_input(self, state: PreActivationState) -> Array:
        """φ(h_{t-1})."""
        return activate(self.activation, state.h)

    def recurrent_kernel(self, params: PreActivationParams) -> Array:
        """W."""
        return params.recurrent_kernel.astype(compute_dtype(self.dtype, self.param_dtype))

    def gate(
        self, gate_params: tuple[()], z: Array, r: Array, state: PreActivationState
    ) -> tuple[PreActivationState, Array]:
        """h_t = z_t + r_t, y_t = φ(h_t)."""
        h = z + r
        y = activate(self.activation, h).astype(compute_dtype(self.dtype, self.param_dtype))
        return PreActivationState(h), y
