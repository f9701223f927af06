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

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array

from seqjax import checks
from seqjax.arithmetic import accumulator


class Initializer(abc.ABC):
    """A rule that draws one array: `rule(key, shape, dtype)`. Leaves are frozen dataclasses."""

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

    def __call__(self, key: Array, shape: Sequence[int], dtype: DTypeLike) -> Array:
        """Uniform over orthogonal matrices, up to `scale`."""
        if 0 in shape:
            return jnp.zeros(tuple(shape), dtype)
        # The QR decomposition knows no dtype narrower than float32.
        draw = jax.nn.initializers.orthogonal(self.scale)
        return draw(key, tuple(shape), accumulator(dtype)).astype(dtype)


@dataclasses.dataclass(frozen=True)
class ScaledIdentity(Initializer):
    """`scale` times the identity matrix (Le, Jaitly, Hinton 2015)."""

    scale: float = 1.0

    def __call__(self, key: Array, shape: Sequence[int], dtype: DTypeLike) -> Array:
        """The scaled identity; only for square matrices. The key is not used."""
        if len(shape) != 2 or shape[0] != shape[1]:
            raise ValueError(
                f"ScaledIdentity: expected a square matrix, got shape {tuple(shape)}; "
                "use it for recurrent kernels"
            )
        return self.scale * jnp.eye(shape[0], dtype=dtype)


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

    def __call__(self, key: Array, shape: Sequence[int], dtype: DTypeLike) -> Array:
        """Independent uniform entries with the variance 2 / (fan_in + fan_out)."""
        if 0 in shape:
            return jnp.zeros(tuple(shape), dtype)
        return jax.nn.initializers.glorot_uniform()(key, tuple(shape), dtype)


NAMED: dict[str, Initializer] = {
    "orthogonal": Orthogonal(),
    "identity": ScaledIdentity(),
    "uniform_fan_in": UniformFanIn(),
    "glorot": Glorot(),
    "zeros": Constant(0.0),
}


def check_initializer(where: str, rule: Initializer | str) -> None:
    """Raise a ValueError that lists the known names, where `rule` is neither a rule nor a name."""
    if not isinstance(rule, Initializer):
        checks.one_of(where, rule, tuple(NAMED))


def draw(rule: Initializer | str, key: Array, shape: Sequence[int], dtype: DTypeLike) -> Array:
    """One array of `shape`, by the rule or by the rule of that name.

    >>> draw("identity", jax.random.key(0), (2, 2), jnp.float32)
    Array([[1., 0.],
           [0., 1.]], dtype=float32)
    """
    if isinstance(rule, str):
        check_initializer("initialiser", rule)
        rule = NAMED[rule]
    return rule(key, shape, dtype)


def draw_gates(
    rules: Sequence[Initializer | str], key: Array, shape: Sequence[int], dtype: DTypeLike
) -> Array:
    """One array packed along its last axis: a block of `shape` for each rule, each drawn alone."""
    keys = jax.random.split(key, len(rules))
    return jnp.concatenate(
        [draw(rule, k, shape, dtype) for rule, k in zip(rules, keys, strict=True)], axis=-1
    )
