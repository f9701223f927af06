"""Simple recurrent networks: Elman's, the pre-activation form, and the one that starts at identity."""

import dataclasses
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from seqjax import checks
from seqjax.cell import GatedCell
from seqjax.cells.packed import PackedCell, draw_kernels
from seqjax.fields import check_fields
from seqjax.gates import STEEPEST, Activation, activate, name_gate, packed_gates
from seqjax.initializers import Initializer, Normal, ScaledIdentity
from seqjax.numerics import add_vector, compute_dtype, matmul, state_dtype


class ElmanParams(NamedTuple):
    """W, U and b of an Elman network."""

    input_kernel: Float[Array, "in_features features"]
    recurrent_kernel: Float[Array, "features features"]
    bias: Float[Array, " features"]


class ElmanState(NamedTuple):
    """The hidden state, at least float32."""

    h: Float[Array, "*batch features"]


@dataclasses.dataclass(frozen=True, repr=False)
class Elman(PackedCell[ElmanParams, ElmanState]):
    """h_t = φ(x_t W + h_{t-1} U + b)
    y_t = h_t

    φ is `activation`: tanh, sigmoid, relu or identity. A readout is a head, not part of the cell.
    With a `leak` α below 1 the units are leaky integrators, h_t = (1 - α) h_{t-1} + α φ(…), which forget
    over 1 / α steps; the default of 1 is the plain network.
    W: [in_features, features], U: [features, features], b: [features].
    In stacked form the same network is h_t = φ([h_{t-1}, x_t] W̃ + b) with W̃ = [U; W].

    Raises a ValueError for features below 1, a leak outside (0, 1], and an unknown activation or
    initialiser.
    References: Elman 1990, "Finding structure in time"; the leak: Jaeger, Lukoševičius, Popovici,
    Siewert 2007, "Optimization and applications of echo state networks with leaky-integrator neurons".
    Choose it to learn how recurrence works, and for short memories: it is the smallest and fastest.
    """

    state_type = ElmanState
    additive = True
    saves_gates = True
    memory_path = "1 - α"
    longer_memory = "a smaller leak"

    features: int
    activation: Activation = "tanh"
    input_init: Initializer | str = "glorot"
    recurrent_init: Initializer | str = "orthogonal"
    bias_init: Initializer | str = "zeros"
    param_dtype: DTypeLike = jnp.float32
    dtype: DTypeLike | None = None
    leak: float = 1.0

    def __post_init__(self) -> None:
        """Validate hyperparameters."""
        super().__post_init__()
        if not checks.is_number(self.leak) or not 0 < self.leak <= 1:
            raise ValueError(f"Elman: leak: expected a share in (0, 1], got {self.leak!r}")

    def init(self, key: Array, in_features: int) -> ElmanParams:
        """W by `input_init`, U by `recurrent_init`, b by `bias_init`."""
        return ElmanParams(*draw_kernels(self, key, in_features, (self.bias_init,)))

    def gate(
        self, gate_params: tuple[()], z: Array, r: Array, state: ElmanState
    ) -> tuple[ElmanState, Array]:
        """h_t = φ(z_t + r_t), of which a leak lets in its share."""
        (h,) = packed_gates(z + r, φ=self.activation)
        if self.leak != 1:
            name_gate("1 - α", jnp.full_like(h, 1 - float(self.leak)), None)
            h = (1 - float(self.leak)) * state.h + float(self.leak) * h
        state = ElmanState(h)
        return state, self.emit(state)

    def jacobian_bound(self, recurrent_norm: Any) -> Any:
        """1 - α + α γ‖U‖ ≥ ‖∂h_t/∂h_{t-1}‖, as ∂h_t/∂h_{t-1} = diag(φ') Uᵀ where α = 1."""
        leak = float(self.leak)
        return 1 - leak + leak * STEEPEST[self.activation] * recurrent_norm


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
    Choose it where sums over hundreds of steps matter and gates are too slow.

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
class PreActivationRNN(GatedCell[PreActivationParams, PreActivationState]):
    """h_t = ψ(x_t V) + φ(h_{t-1}) W - θ
    y_t = φ(h_t)

    The state is the pre-activation h, the form in which the vanishing gradient is often derived:
    ∂h_t/∂h_{t-1} = diag(φ'(h_{t-1})) W. φ is `activation`, ψ is `input_activation`.
    V: [in_features, features], W: [features, features], θ: [features].

    Raises a ValueError for features below 1 and for an unknown activation or initialiser.
    Reference: Pascanu, Mikolov, Bengio 2013, "On the difficulty of training recurrent neural
    networks", equation 2.
    Choose it to follow derivations of the vanishing gradient to the letter.
    """

    additive = True

    features: int
    activation: Activation = "tanh"
    input_activation: Activation = "identity"
    input_init: Initializer | str = "glorot"
    recurrent_init: Initializer | str = "orthogonal"
    threshold_init: Initializer | str = "zeros"
    param_dtype: DTypeLike = jnp.float32
    dtype: DTypeLike | None = None

    def __post_init__(self) -> None:
        """Validate hyperparameters."""
        check_fields(self)

    def init(self, key: Array, in_features: int) -> PreActivationParams:
        """V by `input_init`, W by `recurrent_init`, θ by `threshold_init`."""
        return PreActivationParams(*draw_kernels(self, key, in_features, (self.threshold_init,)))

    def initial_state(
        self,
        params: PreActivationParams,
        batch_shape: tuple[int, ...] = (),
        *,
        key: Array | None = None,
    ) -> PreActivationState:
        """h_0 = 0."""
        return PreActivationState(h=jnp.zeros((*batch_shape, self.features), state_dtype(self)))

    def project(self, params: PreActivationParams, x: Array) -> Array:
        """z_t = ψ(x_t V) - θ."""
        checks.trailing("PreActivationRNN: x", x, params.input_kernel.shape[0])
        z = activate(self.input_activation, matmul(x, params.input_kernel, compute_dtype(self)))
        return add_vector(z, -params.threshold)

    def recurrent_input(self, state: PreActivationState) -> Array:
        """φ(h_{t-1})."""
        return activate(self.activation, state.h)

    def recurrent_kernel(self, params: PreActivationParams) -> Array:
        """W."""
        return params.recurrent_kernel.astype(compute_dtype(self))

    def gate(
        self, gate_params: tuple[()], z: Array, r: Array, state: PreActivationState
    ) -> tuple[PreActivationState, Array]:
        """h_t = z_t + r_t, y_t = φ(h_t)."""
        h = z + r
        name_gate("φ", activate(self.activation, h), self.activation)
        state = PreActivationState(h)
        return state, self.emit(state)

    def emit(self, state: PreActivationState) -> Array:
        """y_t = φ(h_t)."""
        return activate(self.activation, state.h).astype(compute_dtype(self))

    def jacobian_bound(self, recurrent_norm: Any) -> Any:
        """γ‖W‖ ≥ ‖∂h_t/∂h_{t-1}‖, as ∂h_t/∂h_{t-1} = Wᵀ diag(φ')."""
        return STEEPEST[self.activation] * recurrent_norm
