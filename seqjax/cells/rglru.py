"""Real-gated linear recurrent unit: a diagonal recurrence whose decay the input sets."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from seqjax import checks
from seqjax.cell import LinearCell
from seqjax.fields import check_fields
from seqjax.gates import name_gate
from seqjax.initializers import Initializer, draw_gates
from seqjax.numerics import affine, compute_dtype, state_dtype

SHARPNESS = 8.0
"""c, as in the paper: it spreads a_t over more of (0, 1) than σ(Λ) alone would."""


class RGLRUParams(NamedTuple):
    """W and b of both gates, packed in the order r, i (the paper's W_a, W_x), and Λ."""

    input_kernel: Float[Array, "features 2*features"]
    bias: Float[Array, " 2*features"]
    decay_logit: Float[Array, " features"]


class RGLRUState(NamedTuple):
    """The hidden state, at least float32."""

    h: Float[Array, "*batch features"]


@dataclasses.dataclass(frozen=True, repr=False)
class RGLRU(LinearCell[RGLRUParams, RGLRUState]):
    """r_t = σ(W_a x_t + b_a)
    i_t = σ(W_x x_t + b_x)
    log a_t = -c softplus(-Λ) ⊙ r_t, which is a_t = a^{c r_t} with a = σ(Λ) and c = 8
    h_t = a_t ⊙ h_{t-1} + √(1 - a_t²) ⊙ (i_t ⊙ x_t)
    y_t = h_t

    Packed: W [features, 2 · features], b [2 · features]; Λ [features]. x_t enters unit by unit, so
    in_features equals features; the paper puts a linear layer and a short convolution before it. Where
    r is shut a unit keeps all and takes nothing. Λ is drawn so that a^c, the decay of a step with r
    open, is uniform in [decay_min, decay_max].

    Raises a ValueError for features below 1, for decays that are not 0 < decay_min < decay_max < 1,
    for an unknown initialiser, and in `init` where in_features is not features.
    Reference: De, Smith, Fernando, Botev et al. 2024, "Griffin: mixing gated linear recurrences with
    local attention for efficient language models".
    Choose it for long sequences, in deep stacks, where the input should say what to keep.
    """

    longer_memory = "a decay_min nearer to 1"

    features: int
    decay_min: float = 0.9
    decay_max: float = 0.999
    input_init: Initializer | str = "glorot"
    bias_init: Initializer | str = "zeros"
    param_dtype: DTypeLike = jnp.float32
    dtype: DTypeLike | None = None

    def __post_init__(self) -> None:
        """Validate hyperparameters."""
        check_fields(self)
        checks.finite("RGLRU: decay_min", self.decay_min)
        checks.finite("RGLRU: decay_max", self.decay_max)
        if not 0 < self.decay_min < self.decay_max < 1:
            raise ValueError(
                "RGLRU: decay_min, decay_max: expected decays with 0 < decay_min < decay_max < 1, "
                f"got {self.decay_min!r} and {self.decay_max!r}"
            )

    def init(self, key: Array, in_features: int) -> RGLRUParams:
        """W and b of each gate by its own draw; Λ by the range of a^c."""
        if in_features != self.features:
            raise ValueError(
                f"RGLRU: in_features is {in_features} but the cell has {self.features} features; "
                "x_t enters unit by unit: project it to that size first"
            )
        kernel_key, bias_key, decay_key = jax.random.split(key, 3)
        wide = state_dtype(self)
        # 1 - a^c rather than a^c, which rounds to 1 where the unit keeps for long.
        least, most = 1 - float(self.decay_max), 1 - float(self.decay_min)
        deficit = jax.random.uniform(decay_key, (self.features,), wide, least, most)
        log_a = jnp.log1p(-deficit) / SHARPNESS
        logit = log_a - jnp.log(-jnp.expm1(log_a))  # log a - log(1 - a)
        shape = (in_features, self.features)
        return RGLRUParams(
            draw_gates((self.input_init,) * 2, kernel_key, shape, self.param_dtype),
            draw_gates((self.bias_init,) * 2, bias_key, (self.features,), self.param_dtype),
            logit.astype(self.param_dtype),
        )

    def initial_state(
        self, params: RGLRUParams, batch_shape: tuple[int, ...] = (), *, key: Array | None = None
    ) -> RGLRUState:
        """h_0 = 0."""
        return RGLRUState(h=jnp.zeros((*batch_shape, self.features), state_dtype(self)))

    def coefficients(self, params: RGLRUParams, x: Array) -> tuple[Array, Array]:
        """a_t and b_t = √(1 - a_t²) ⊙ (i_t ⊙ x_t)."""
        wide = state_dtype(self)
        r, i = jnp.split(
            affine("RGLRU: x", x, params.input_kernel, params.bias, compute_dtype(self)),
            2,
            axis=-1,
        )
        r, i = name_gate("r", jax.nn.sigmoid(r)), name_gate("i", jax.nn.sigmoid(i))
        rate = SHARPNESS * jax.nn.softplus(-params.decay_logit.astype(wide))
        log_a = -jnp.broadcast_to(rate, r.shape) * r
        # 1 - a² by expm1: a itself rounds to 1 where the unit keeps for long.
        return jnp.exp(log_a), _root(-jnp.expm1(2 * log_a)) * (i * x.astype(wide))

    def readout(self, params: RGLRUParams, h: Array, x: Array) -> Array:
        """y_t = h_t."""
        return h.astype(compute_dtype(self))


def _root(squared: Array) -> Array:
    """√(1 - a²), with the gradient 0 where that is 0.

    As a → 1 the slope of the root goes to ∞, and what 1 - a² is made of, r and softplus(-Λ), falls
    faster: with respect to the logits the gradient goes to 0. The chain rule would give ∞ · 0.
    """
    positive = squared > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, squared, 1.0)), 0.0)
