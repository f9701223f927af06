"""Linear recurrent unit: a diagonal complex recurrence, stable by the form of its parameters."""

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Complex, Float

from seqjax import checks
from seqjax.cell import LinearCell
from seqjax.fields import check_fields
from seqjax.initializers import Initializer, Normal, draw
from seqjax.numerics import compute_dtype, matmul, state_dtype


class LRUParams(NamedTuple):
    """log ν, log θ and log γ; B and C by their real and imaginary parts; D. All are real."""

    nu_log: Float[Array, " state_features"]
    theta_log: Float[Array, " state_features"]
    gamma_log: Float[Array, " state_features"]
    input_real: Float[Array, "in_features state_features"]
    input_imag: Float[Array, "in_features state_features"]
    output_real: Float[Array, "state_features features"]
    output_imag: Float[Array, "state_features features"]
    feedthrough: Float[Array, "in_features features"]


class LRUState(NamedTuple):
    """The complex state, at least complex64."""

    h: Complex[Array, "*batch state_features"]


@dataclasses.dataclass(frozen=True, repr=False)
class LRU(LinearCell[LRUParams, LRUState]):
    """λ = exp(-exp(ν_log) + i exp(θ_log))
    h_t = λ ⊙ h_{t-1} + exp(γ_log) ⊙ (B x_t)
    y_t = Re(C h_t) + D x_t

    h is complex, [*batch, state_features]; `state_features` is `features` where it is None. B is
    [in_features, state_features] and C [state_features, features], each kept as a real and an
    imaginary part; D [in_features, features]. |λ| < 1 whatever the parameters, up to rounding. There is
    no bias and no nonlinearity: `sj.GLU` brings it, around each layer of a stack.

    At first λ is uniform on the ring r_min ≤ |λ| ≤ r_max with phases in [0, max_phase]: |λ|² is uniform
    in [r_min², r_max²]. γ = √(1 - |λ|²), so that white noise of variance 1 in B x_t gives a state of
    variance 1. The parts of B are N(0, 1 / (2 · in_features)) and those of C N(0, 1 / state_features);
    D is drawn by `feedthrough_init`.
    With `dtype=jnp.bfloat16` the matmuls take the real and the imaginary part of h apart, in that
    dtype; λ and h stay complex64.

    Raises a ValueError for sizes below 1, for radii that are not 0 ≤ r_min < r_max ≤ 1, for a
    max_phase that is not above 0, and for an unknown initialiser.
    Reference: Orvieto, Smith, Gu, Fernando, Gulcehre, Pascanu, De 2023, "Resurrecting recurrent neural
    networks for long sequences".
    Choose it for very long sequences, in deep stacks, where what to keep need not depend on the input.
    """

    longer_memory = "an r_min nearer to 1"

    features: int
    state_features: int | None = None
    r_min: float = 0.0
    r_max: float = 1.0
    max_phase: float = 2 * math.pi
    feedthrough_init: Initializer | str = "glorot"
    param_dtype: DTypeLike = jnp.float32
    dtype: DTypeLike | None = None

    def __post_init__(self) -> None:
        """Validate hyperparameters."""
        check_fields(self)
        if self.state_features is not None:
            checks.positive("LRU: state_features", self.state_features)
        checks.finite("LRU: r_min", self.r_min)
        checks.finite("LRU: r_max", self.r_max)
        if not 0 <= self.r_min < self.r_max <= 1:
            raise ValueError(
                "LRU: r_min, r_max: expected radii with 0 <= r_min < r_max <= 1, "
                f"got {self.r_min!r} and {self.r_max!r}"
            )
        checks.finite_positive("LRU: max_phase", self.max_phase)

    @property
    def width(self) -> int:
        """The size of h: `state_features`, or `features` where that is None."""
        return self.features if self.state_features is None else self.state_features

    def init(self, key: Array, in_features: int) -> LRUParams:
        """λ on the ring, γ = √(1 - |λ|²), Gaussian B and C, D by `feedthrough_init`."""
        checks.size("LRU: in_features", in_features)
        radius_key, phase_key, D_key, *kernel_keys = jax.random.split(key, 7)
        n, dtype = self.width, self.param_dtype
        # Off 0 by less than a rounding error of 1: its logarithm would be -∞, for ever.
        wide, least = state_dtype(self), jnp.finfo(state_dtype(self)).eps / 4
        # |λ|² and 1 - |λ|² each by itself, as either may be so small that the other rounds to 1.
        u = jax.random.uniform(radius_key, (n,), wide, least)
        squared = self.r_min**2 + (self.r_max**2 - self.r_min**2) * (1 - u)
        deficit = 1 - self.r_max**2 + (self.r_max**2 - self.r_min**2) * u
        nu = -jnp.where(deficit < 0.5, jnp.log1p(-deficit), jnp.log(squared)) / 2
        theta = self.max_phase * jax.random.uniform(phase_key, (n,), wide, least)
        B, C = Normal((2 * max(1, in_features)) ** -0.5), Normal(n**-0.5)
        return LRUParams(
            nu_log=jnp.log(nu).astype(dtype),
            theta_log=jnp.log(theta).astype(dtype),
            gamma_log=(jnp.log(deficit) / 2).astype(dtype),
            input_real=draw(B, kernel_keys[0], (in_features, n), dtype),
            input_imag=draw(B, kernel_keys[1], (in_features, n), dtype),
            output_real=draw(C, kernel_keys[2], (n, self.features), dtype),
            output_imag=draw(C, kernel_keys[3], (n, self.features), dtype),
            feedthrough=draw(self.feedthrough_init, D_key, (in_features, self.features), dtype),
        )

    def initial_state(
        self, params: LRUParams, batch_shape: tuple[int, ...] = (), *, key: Array | None = None
    ) -> LRUState:
        """h_0 = 0."""
        zeros = jnp.zeros((*batch_shape, self.width), state_dtype(self))
        return LRUState(h=jax.lax.complex(zeros, zeros))

    def coefficients(self, params: LRUParams, x: Array) -> tuple[Array, Array]:
        """λ [state_features] as a, the same at each step, and b_t = exp(γ_log) ⊙ (B x_t)."""
        checks.trailing("LRU: x", x, params.input_real.shape[0])
        dtype, wide = compute_dtype(self), state_dtype(self)
        nu, theta = jnp.exp(params.nu_log.astype(wide)), jnp.exp(params.theta_log.astype(wide))
        radius, gamma = jnp.exp(-nu), jnp.exp(params.gamma_log.astype(wide))
        eigenvalues = jax.lax.complex(radius * jnp.cos(theta), radius * jnp.sin(theta))
        real, imag = matmul(x, params.input_real, dtype), matmul(x, params.input_imag, dtype)
        gamma = jnp.broadcast_to(gamma, real.shape)
        return eigenvalues, jax.lax.complex(gamma * real, gamma * imag)

    def readout(self, params: LRUParams, h: Array, x: Array) -> Array:
        """y_t = Re(C h_t) + D x_t."""
        dtype = compute_dtype(self)
        y = (
            matmul(h.real, params.output_real, dtype)
            - matmul(h.imag, params.output_imag, dtype)
            + matmul(x, params.feedthrough, dtype)
        )
        return y.astype(dtype)
