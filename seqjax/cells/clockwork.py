"""Clockwork RNN: modules that tick at their own periods."""

import dataclasses
import itertools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from seqjax import checks
from seqjax.cells.packed import PackedCell
from seqjax.gates import Activation, activate, name_gate
from seqjax.initializers import Initializer, ScaledIdentity, SpectralRadius, as_rule, draw
from seqjax.numerics import compute_dtype, state_dtype


class ClockworkParams(NamedTuple):
    """W, U and b. The entries of U from a faster module to a slower one are zero and stay so."""

    input_kernel: Float[Array, "in_features features"]
    recurrent_kernel: Float[Array, "features features"]
    bias: Float[Array, " features"]


class ClockworkState(NamedTuple):
    """The hidden state, at least float32, and the clock: the number of the step to come."""

    h: Float[Array, "*batch features"]
    t: Int[Array, "*batch"]


@dataclasses.dataclass(frozen=True, repr=False)
class ClockworkRNN(PackedCell[ClockworkParams, ClockworkState]):
    """h_{t,i} = φ(x_t W_i + Σ_{j: T_j ≥ T_i} h_{t-1,j} U_{ji} + b_i)  where t mod T_i = 0
    h_{t,i} = h_{t-1,i}                                              elsewhere
    y_t = h_t

    The units are cut into modules of one size, one for each of the `periods` T_1 < T_2 < …. Module i
    ticks at every T_i-th step and keeps its h in between; it reads the modules that are as slow as
    itself or slower. t counts from 0, so that every module sees the first input, and again after a
    reset. The state keeps t modulo the least common multiple of the periods, so it never overflows.

    W: [in_features, features] and b: [features], for the modules side by side. U: [features, features],
    where the blocks from a faster module to a slower one are zero and stay so: the recurrence masks
    them, so that neither values nor gradients come through. (The paper writes W_H = Uᵀ, block upper
    triangular, and counts t from 1.) What one module reads is drawn as one matrix, so that a rule sees
    its true fan-in and "orthogonal" gives each module orthonormal columns. All units are computed at
    every step: the periods buy memory, not time.

    Raises a ValueError for periods that are not a tuple of increasing positive integers or have a
    common multiple of 2^31 or more, features that are not a multiple of their number, an
    unknown activation or initialiser, and a recurrent one for square matrices alone.
    Reference: Koutník, Greff, Gomez, Schmidhuber 2014, "A clockwork RNN".
    Choose it where the data have known slow and fast rhythms, and gates are too slow.
    """

    state_type = ClockworkState
    additive = True

    features: int
    periods: tuple[int, ...] = (1, 2, 4, 8)
    activation: Activation = "tanh"
    input_init: Initializer | str = "glorot"
    recurrent_init: Initializer | str = "orthogonal"
    bias_init: Initializer | str = "zeros"
    param_dtype: DTypeLike = jnp.float32
    dtype: DTypeLike | None = None

    def __post_init__(self) -> None:
        """Validate hyperparameters."""
        super().__post_init__()
        self._check_periods()
        if self.features % len(self.periods):
            raise ValueError(
                f"ClockworkRNN: features: expected a multiple of {len(self.periods)}, "
                f"the number of periods, got {self.features}"
            )
        rule = as_rule(self.recurrent_init)
        if isinstance(rule, ScaledIdentity | SpectralRadius) and len(self.periods) > 1:
            raise ValueError(
                "ClockworkRNN: recurrent_init: expected a rule for matrices of any shape, as a module "
                f"reads more units than it has, got {self.recurrent_init!r}"
            )

    def _check_periods(self) -> None:
        """Validate the periods."""
        periods = self.periods
        if (
            not isinstance(periods, tuple)
            or not periods
            or not all(isinstance(T, int | np.integer) and not isinstance(T, bool) for T in periods)
            or periods[0] < 1
            or any(T >= U for T, U in itertools.pairwise(periods))
        ):
            raise ValueError(
                "ClockworkRNN: periods: expected a tuple of increasing positive integers, "
                f"got {periods!r}"
            )
        if math.lcm(*periods) >= 2**31:
            raise ValueError(
                "ClockworkRNN: periods: expected a least common multiple below 2^31, which the clock "
                f"counts to, got {periods!r} with {math.lcm(*periods)}"
            )

    def init(self, key: Array, in_features: int) -> ClockworkParams:
        """W by `input_init`, each module's columns of U by `recurrent_init`, b by `bias_init`."""
        checks.size("ClockworkRNN: in_features", in_features)
        input_key, recurrent_key, bias_key = jax.random.split(key, 3)
        size, dtype = self.features, self.param_dtype
        width = size // len(self.periods)
        columns = []
        for i, module_key in enumerate(jax.random.split(recurrent_key, len(self.periods))):
            unread = i * width
            read = draw(self.recurrent_init, module_key, (size - unread, width), dtype)
            columns.append(jnp.concatenate([jnp.zeros((unread, width), dtype), read]))
        return ClockworkParams(
            draw(self.input_init, input_key, (in_features, size), dtype),
            jnp.concatenate(columns, axis=1),
            draw(self.bias_init, bias_key, (size,), dtype),
        )

    def initial_state(
        self,
        params: ClockworkParams,
        batch_shape: tuple[int, ...] = (),
        *,
        key: Array | None = None,
    ) -> ClockworkState:
        """h_0 = 0, and t = 0 for the first step, at which all modules tick."""
        return ClockworkState(
            h=jnp.zeros((*batch_shape, self.features), state_dtype(self)),
            t=jnp.zeros(batch_shape, jnp.int32),
        )

    def _unit_periods(self) -> np.ndarray:
        """The period of each unit."""
        return np.repeat(np.array(self.periods, np.int32), self.features // len(self.periods))

    def recurrent_kernel(self, params: ClockworkParams) -> Array:
        """U, zero from unit j to unit i where T_j < T_i."""
        T = self._unit_periods()
        # `where` and not a product: what stands in a masked entry never matters, not even a NaN.
        kernel = jnp.where(T[:, None] >= T[None], params.recurrent_kernel, 0)
        return kernel.astype(compute_dtype(self))

    def gate(
        self, gate_params: tuple[()], z: Array, r: Array, state: ClockworkState
    ) -> tuple[ClockworkState, Array]:
        """h_t = φ(z_t + r_t) in the modules that tick, h_{t-1} in the others."""
        shape = z.shape
        T = jnp.broadcast_to(self._unit_periods(), shape)
        ticks = jnp.broadcast_to(state.t[..., None], shape) % T == 0
        h = name_gate("φ", activate(self.activation, z + r), self.activation)
        h = jnp.where(ticks, h, state.h)
        t = (state.t + 1) % math.lcm(*self.periods)
        state = ClockworkState(h, t)
        return state, self.emit(state)
