"""Initial values: small frozen dataclasses, so that two cells made alike compare equal.

The functions behind them are those of `jax.nn.initializers`; two calls of `orthogonal()` there give
two functions that are not equal, which would make every cell a new static argument and recompile.
An initialiser sees the matrix of one gate at a time, never a packed matrix of several gates: an
orthogonal [H, 4H] matrix does not have orthogonal [H, H] blocks.
"""

import abc
import dataclasses
import math
from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from seqjax import checks
from seqjax.numerics import accumulator, one_by_one


class Initializer(abc.ABC):
    """A rule that draws one array: `rule(key, shape, dtype)`. Leaves are frozen dataclasses.

    least_rank: 1 where the rule can draw a bias, 2 where it needs a matrix.
    """

    least_rank: ClassVar[int] = 1

    @abc.abstractmethod
    def __call__(self, key: Array, shape: Sequence[int], dtype: DTypeLike) -> Array:
        """An array of `shape` and `dtype`, drawn with `key`."""


@dataclasses.dataclass(frozen=True)
class Constant(Initializer):
    """Every entry is `value`."""

    value: float = 0.0

    def __call__(self, key: Array, shape: Sequence[int], dtype: DTypeLike) -> Array:
        """An array filled with `value`; the key is not used."""
        return jnp.full(tuple(shape), self.value, dtype)


@dataclasses.dataclass(frozen=True)
class Normal(Initializer):
    """Entries from N(0, `stddev`²)."""

    stddev: float = 1.0

    def __call__(self, key: Array, shape: Sequence[int], dtype: DTypeLike) -> Array:
        """Independent Gaussian entries."""
        return jax.nn.initializers.normal(self.stddev)(key, tuple(shape), dtype)


@dataclasses.dataclass(frozen=True)
class Orthogonal(Initializer):
    """`scale` times a matrix with orthonormal rows or columns (Saxe, McClelland, Ganguli 2014).

    All singular values equal `scale`, so a linear recurrence neither shrinks nor grows a gradient at
    scale 1.
    """

    scale: float = 1.0
    least_rank: ClassVar[int] = 2

    def __call__(self, key: Array, shape: Sequence[int], dtype: DTypeLike) -> Array:
        """Uniform over orthogonal matrices, up to `scale`."""
        if 0 in shape:
            return jnp.zeros(tuple(shape), dtype)
        rule = jax.nn.initializers.orthogonal(self.scale)
        # The QR decomposition knows no dtype narrower than float32.
        draw = one_by_one(lambda key: rule(key, tuple(shape), accumulator(dtype)))
        return draw(key).astype(dtype)


@dataclasses.dataclass(frozen=True)
class ScaledIdentity(Initializer):
    """`scale` times the identity matrix (Le, Jaitly, Hinton 2015)."""

    scale: float = 1.0
    least_rank: ClassVar[int] = 2

    def __call__(self, key: Array, shape: Sequence[int], dtype: DTypeLike) -> Array:
        """The scaled identity; only for square matrices. The key is not used."""
        if len(shape) != 2 or shape[0] != shape[1]:
            raise ValueError(
                f"ScaledIdentity: expected a square matrix, got shape {tuple(shape)}; "
                "use it for recurrent kernels"
            )
        return float(self.scale) * jnp.eye(shape[0], dtype=dtype)


@dataclasses.dataclass(frozen=True)
class UniformFanIn(Initializer):
    """Entries from U(-b, b) with b = `scale` / √fan_in (LeCun et al. 1998).

    With scale 1 the recurrent kernel is drawn as PyTorch draws it.
    """

    scale: float = 1.0

    def __call__(self, key: Array, shape: Sequence[int], dtype: DTypeLike) -> Array:
        """Independent uniform entries; fan_in is the number of rows."""
        bound = self.scale / math.sqrt(max(1, shape[0]))
        return jax.random.uniform(key, tuple(shape), dtype, -bound, bound)


@dataclasses.dataclass(frozen=True)
class Glorot(Initializer):
    """Entries from U(-b, b) with b = √(6 / (fan_in + fan_out)) (Glorot, Bengio 2010)."""

    least_rank: ClassVar[int] = 2

    def __call__(self, key: Array, shape: Sequence[int], dtype: DTypeLike) -> Array:
        """Independent uniform entries with the variance 2 / (fan_in + fan_out)."""
        if 0 in shape:
            return jnp.zeros(tuple(shape), dtype)
        return jax.nn.initializers.glorot_uniform()(key, tuple(shape), dtype)


@dataclasses.dataclass(frozen=True)
class SpectralRadius(Initializer):
    """A Gaussian matrix scaled until its largest |eigenvalue| is `radius`; only square matrices.

    Below 1 a linear recurrence forgets, above 1 it explodes; an echo state network lives just below
    (Jaeger 2001). Unlike an orthogonal matrix it shrinks most directions, and may grow some of them
    for a while.
    """

    radius: float = 1.0
    least_rank: ClassVar[int] = 2

    def __post_init__(self) -> None:
        """Refuse what is no radius."""
        checks.finite_positive("SpectralRadius: radius", self.radius)

    def __call__(self, key: Array, shape: Sequence[int], dtype: DTypeLike) -> Array:
        """Gaussian entries, all scaled by one number."""
        if len(shape) != 2 or shape[0] != shape[1]:
            raise ValueError(
                f"SpectralRadius: expected a square matrix, got shape {tuple(shape)}; "
                "use it for recurrent kernels"
            )
        drawn = jax.random.normal(key, tuple(shape), accumulator(dtype))
        return (float(self.radius) / spectral_radius(drawn) * drawn).astype(dtype)


def spectral_radius(matrix: Float[Array | np.ndarray, "n n"], squarings: int = 32) -> Any:
    """ρ(A) = max |eigenvalue| = lim ‖Aᵏ‖^(1/k), with k = 2^`squarings` (Gelfand 1941).

    log ‖Aᵏ‖ / k is summed while A is squared and scaled again and again, so nothing overflows. Unlike
    a solver of eigenvalues this runs under jit on every device, and rounding does not grow: an error
    of the j-th squaring counts 1 / 2ʲ. A NumPy array stays with NumPy, on the host.

    >>> print(spectral_radius(jnp.array([[0.0, 2.0], [-2.0, 0.0]])))  # eigenvalues ±2i
    2.0
    """
    # By the largest entry first, whose square may overflow; of a nilpotent matrix some power is 0.
    xp = np if isinstance(matrix, np.ndarray) else jnp
    with jax.default_matmul_precision("highest"), np.errstate(divide="ignore"):
        power, log_radius = _scaled(xp, matrix, xp.max(xp.abs(matrix)))
        for j in range(squarings + 1):
            power, log_norm = _scaled(xp, power, xp.linalg.norm(power))
            log_radius += log_norm / 2.0**j
            power = power @ power
    return xp.exp(log_radius)


def _scaled(xp: Any, matrix: Any, norm: Any) -> tuple[Any, Any]:
    """`matrix` over its norm, and the logarithm of that; a matrix of zeros as it is, and -∞."""
    divisor = xp.broadcast_to(xp.where(norm > 0, norm, xp.ones_like(norm)), matrix.shape)
    return matrix / divisor, xp.log(norm)


@dataclasses.dataclass(frozen=True)
class Chrono(Initializer):
    """b = log u, u ~ U(1, `longest` - 1): the bias of a gate that keeps, for memories of many lengths.

    A gate that stays at σ(b) keeps for about 1 + eᵇ steps, so the units of a layer remember for 2 to
    `longest` steps. For `forget_bias` of an `LSTM` or `MinLSTM`, whose input gates then start at -b, and
    for `update_bias` of a `GRU`; `negated` is for a gate that overwrites where it is open, as those of
    `MGU` and `MinGRU`.

    Raises a ValueError for a `longest` below 2 or above 2^31.
    Reference: Tallec, Ollivier 2018, "Can recurrent neural networks warp time?".
    """

    longest: int
    negated: bool = False

    def __post_init__(self) -> None:
        """Refuse lengths that leave nothing to draw from."""
        if not checks.is_number(self.longest) or not 2 <= self.longest <= 2**31:
            raise ValueError(
                f"Chrono: longest: expected a number of steps from 2 to 2^31, got {self.longest!r}"
            )
        checks.instance("Chrono: negated", self.negated, bool)

    def __call__(self, key: Array, shape: Sequence[int], dtype: DTypeLike) -> Array:
        """Independent entries, log u or -log u."""
        u = jax.random.uniform(key, tuple(shape), accumulator(dtype), 1.0, self.longest - 1.0)
        return (-jnp.log(u) if self.negated else jnp.log(u)).astype(dtype)


NAMED: dict[str, Initializer] = {
    "orthogonal": Orthogonal(),
    "identity": ScaledIdentity(),
    "uniform_fan_in": UniformFanIn(),
    "glorot": Glorot(),
    "zeros": Constant(0.0),
}


def check_initializer(where: str, rule: Initializer | str, rank: int = 2) -> None:
    """Raise a ValueError where `rule` is neither a rule nor a name, listing the names that draw an
    array of `rank` axes, and where it cannot draw one.
    """
    fitting = tuple(name for name, named in NAMED.items() if named.least_rank <= rank)
    if not isinstance(rule, Initializer):
        checks.one_of(where, rule, fitting)
    elif rule.least_rank > rank:
        raise ValueError(f"{where}: {rule} draws matrices only, and this is a vector")


def as_rule(rule: Initializer | str | float) -> Initializer:
    """The rule itself, the rule of that name, or the rule that gives that number everywhere."""
    if isinstance(rule, str):
        check_initializer("initialiser", rule)
        return NAMED[rule]
    return rule if isinstance(rule, Initializer) else Constant(rule)


def draw(
    rule: Initializer | str | float, key: Array, shape: Sequence[int], dtype: DTypeLike
) -> Array:
    """One array of `shape`: by the rule, by the rule of that name, or of that number everywhere.

    >>> draw("identity", jax.random.key(0), (2, 2), jnp.float32)
    Array([[1., 0.],
           [0., 1.]], dtype=float32)
    """
    return as_rule(rule)(key, shape, dtype)


def draw_gates(
    rules: Sequence[Initializer | str | float], key: Array, shape: Sequence[int], dtype: DTypeLike
) -> Array:
    """One array packed along its last axis: a block of `shape` for each rule, each drawn alone."""
    keys = jax.random.split(key, len(rules))
    return jnp.concatenate(
        [draw(rule, k, shape, dtype) for rule, k in zip(rules, keys, strict=True)], axis=-1
    )
