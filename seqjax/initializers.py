"""Initialisers as small frozen dataclasses, so that equal cells compare equal.

Most wrap `jax.nn.initializers`, where two calls of `orthogonal()` return unequal functions: as fields
of a cell, which is a static argument, they would recompile. Each gate is drawn by itself, since an
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
    """A rule that draws one array, `rule(key, shape, dtype)`; subclasses are frozen dataclasses.

    least_rank: 1 if the rule can draw a vector, 2 if it needs a matrix.
    """

    least_rank: ClassVar[int] = 1

    @abc.abstractmethod
    def __call__(self, key: Array, shape: Sequence[int], dtype: DTypeLike) -> Array:
        """Draw an array of `shape` and `dtype`."""


@dataclasses.dataclass(frozen=True)
class Constant(Initializer):
    """Every entry is `value`."""

    value: float = 0.0

    def __call__(self, key: Array, shape: Sequence[int], dtype: DTypeLike) -> Array:
        """Fill with `value`; the key is not used."""
        return jnp.full(tuple(shape), self.value, dtype)


@dataclasses.dataclass(frozen=True)
class Normal(Initializer):
    """Entries from N(0, `stddev`²)."""

    stddev: float = 1.0

    def __call__(self, key: Array, shape: Sequence[int], dtype: DTypeLike) -> Array:
        """Draw independent Gaussian entries."""
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
        """Draw uniformly from the orthogonal matrices, up to `scale`."""
        if 0 in shape:
            return jnp.zeros(tuple(shape), dtype)
        rule = jax.nn.initializers.orthogonal(self.scale)
        # The QR decomposition needs at least float32.
        draw = one_by_one(lambda key: rule(key, tuple(shape), accumulator(dtype)))
        return draw(key).astype(dtype)


@dataclasses.dataclass(frozen=True)
class ScaledIdentity(Initializer):
    """`scale` times the identity matrix; square matrices only (Le, Jaitly, Hinton 2015)."""

    scale: float = 1.0
    least_rank: ClassVar[int] = 2

    def __call__(self, key: Array, shape: Sequence[int], dtype: DTypeLike) -> Array:
        """Return the scaled identity; the key is not used."""
        _check_square("ScaledIdentity", shape)
        return float(self.scale) * jnp.eye(shape[0], dtype=dtype)


@dataclasses.dataclass(frozen=True)
class UniformFanIn(Initializer):
    """Entries from U(-b, b) with b = `scale` / √rows (LeCun et al. 1998).

    With scale 1 a recurrent kernel is drawn as in PyTorch.
    """

    scale: float = 1.0

    def __call__(self, key: Array, shape: Sequence[int], dtype: DTypeLike) -> Array:
        """Draw independent uniform entries."""
        bound = self.scale / math.sqrt(max(1, shape[0]))
        return jax.random.uniform(key, tuple(shape), dtype, -bound, bound)


@dataclasses.dataclass(frozen=True)
class Glorot(Initializer):
    """Entries from U(-b, b) with b = √(6 / (fan_in + fan_out)) (Glorot, Bengio 2010)."""

    least_rank: ClassVar[int] = 2

    def __call__(self, key: Array, shape: Sequence[int], dtype: DTypeLike) -> Array:
        """Draw independent uniform entries."""
        if 0 in shape:
            return jnp.zeros(tuple(shape), dtype)
        return jax.nn.initializers.glorot_uniform()(key, tuple(shape), dtype)


@dataclasses.dataclass(frozen=True)
class SpectralRadius(Initializer):
    """A Gaussian matrix scaled so that its largest |eigenvalue| is `radius`; square matrices only.

    Below 1 a linear recurrence forgets, above 1 it explodes; echo state networks stay just below
    (Jaeger 2001). Unlike an orthogonal matrix it shrinks most directions and may grow some for a while.
    """

    radius: float = 1.0
    least_rank: ClassVar[int] = 2

    def __post_init__(self) -> None:
        checks.finite_positive("SpectralRadius: radius", self.radius)

    def __call__(self, key: Array, shape: Sequence[int], dtype: DTypeLike) -> Array:
        """Draw Gaussian entries and scale them by one number."""
        _check_square("SpectralRadius", shape)
        drawn = jax.random.normal(key, tuple(shape), accumulator(dtype))
        return (float(self.radius) / spectral_radius(drawn) * drawn).astype(dtype)


def spectral_radius(matrix: Float[Array | np.ndarray, "n n"], squarings: int = 32) -> Any:
    """ρ(A) = max |eigenvalue| = lim ‖Aᵏ‖^(1/k), with k = 2^`squarings` (Gelfand 1941).

    A is squared and rescaled repeatedly and log ‖Aᵏ‖ / k accumulated, so nothing overflows. Unlike an
    eigenvalue solver this runs under jit on every device, and rounding does not grow: an error of the
    j-th squaring counts 1 / 2ʲ. A NumPy array is computed by NumPy, on the host.

    >>> print(spectral_radius(jnp.array([[0.0, 2.0], [-2.0, 0.0]])))  # eigenvalues ±2i
    2.0
    """
    # First divide by the largest entry, whose square may overflow. A nilpotent matrix has a power of 0.
    xp = np if isinstance(matrix, np.ndarray) else jnp
    with jax.default_matmul_precision("highest"), np.errstate(divide="ignore"):
        power, log_radius = _scaled(xp, matrix, xp.max(xp.abs(matrix)))
        for j in range(squarings + 1):
            power, log_norm = _scaled(xp, power, xp.linalg.norm(power))
            log_radius += log_norm / 2.0**j
            power = power @ power
    return xp.exp(log_radius)


def _scaled(xp: Any, matrix: Any, norm: Any) -> tuple[Any, Any]:
    """`matrix` / norm and log norm; a matrix of zeros stays, with -∞."""
    divisor = xp.broadcast_to(xp.where(norm > 0, norm, xp.ones_like(norm)), matrix.shape)
    return matrix / divisor, xp.log(norm)


@dataclasses.dataclass(frozen=True)
class Chrono(Initializer):
    """b = log u, u ~ U(1, `longest` - 1): biases of forget gates for memories of many lengths.

    A gate at σ(b) keeps its memory for about 1 + eᵇ steps, so the units of a layer remember for 2 to
    `longest` steps. Use it for `forget_bias` of an `LSTM` or `MinLSTM`, whose input gates then start at
    -b, and for `update_bias` of a `GRU`; use `negated` for gates that overwrite when open (`MGU`,
    `MinGRU`).

    Raises:
        ValueError: `longest` is below 2 or above 2^31.

    Reference: Tallec, Ollivier 2018, "Can recurrent neural networks warp time?".
    """

    longest: int
    negated: bool = False

    def __post_init__(self) -> None:
        if not checks.is_number(self.longest) or not 2 <= self.longest <= 2**31:
            raise ValueError(
                f"Chrono: longest: expected a number of steps from 2 to 2^31, got {self.longest!r}"
            )
        checks.instance("Chrono: negated", self.negated, bool)

    def __call__(self, key: Array, shape: Sequence[int], dtype: DTypeLike) -> Array:
        """Draw independent entries, log u or -log u."""
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
    """Raise a ValueError unless `rule` is a rule or a known name that can draw `rank` axes."""
    fitting = tuple(name for name, named in NAMED.items() if named.least_rank <= rank)
    if not isinstance(rule, Initializer):
        checks.one_of(where, rule, fitting)
    elif rule.least_rank > rank:
        raise ValueError(f"{where}: {rule} draws matrices only, and this is a vector")


def as_rule(rule: Initializer | str | float) -> Initializer:
    """The rule itself, the rule of that name, or `Constant` of that number."""
    if isinstance(rule, str):
        check_initializer("initialiser", rule)
        return NAMED[rule]
    return rule if isinstance(rule, Initializer) else Constant(rule)


def draw(
    rule: Initializer | str | float, key: Array, shape: Sequence[int], dtype: DTypeLike
) -> Array:
    """Draw one array of `shape` by a rule, the name of one, or a constant.

    >>> draw("identity", jax.random.key(0), (2, 2), jnp.float32)
    Array([[1., 0.],
           [0., 1.]], dtype=float32)
    """
    return as_rule(rule)(key, shape, dtype)


def draw_gates(
    rules: Sequence[Initializer | str | float], key: Array, shape: Sequence[int], dtype: DTypeLike
) -> Array:
    """Draw a block of `shape` by each rule, and pack them along the last axis."""
    keys = jax.random.split(key, len(rules))
    return jnp.concatenate(
        [draw(rule, k, shape, dtype) for rule, k in zip(rules, keys, strict=True)], axis=-1
    )


def _check_square(name: str, shape: Sequence[int]) -> None:
    if len(shape) != 2 or shape[0] != shape[1]:
        raise ValueError(
            f"{name}: expected a square matrix, got shape {tuple(shape)}; "
            "use it for recurrent kernels"
        )
