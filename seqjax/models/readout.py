"""The affine readout that every model ends in."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from seqjax.initializers import Initializer, draw
from seqjax.numerics import affine, scale_kept


class Readout(NamedTuple):
    """V and b of y V + b."""

    kernel: Float[Array, "features outputs"]
    bias: Float[Array, " outputs"]

    @classmethod
    def init(
        cls, key: Array, features: int, outputs: int, rule: Initializer | str, dtype: DTypeLike
    ) -> "Readout":
        """V by `rule`, b = 0."""
        return cls(draw(rule, key, (features, outputs), dtype), jnp.zeros((outputs,), dtype))

    def __call__(
        self, name: str, y: Float[Array, "*batch features"], dtype: DTypeLike
    ) -> Float[Array, "*batch outputs"]:
        """Y V + b, operands in `dtype`; a ValueError that names `name` where y has another width."""
        return affine(name, y, self.kernel, self.bias, dtype)


def dropped(x: Array, rate: float, key: Array | None) -> Array:
    """Each entry zero at `rate`, the others scaled by 1 / (1 - rate); x where the key is None."""
    if key is None or rate == 0:
        return x
    return scale_kept(x, jax.random.bernoulli(key, 1 - rate, x.shape), rate)
