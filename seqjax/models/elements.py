"""What a sequence is made of: how an element is read, how likely it is, how one is drawn."""

import abc
import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from seqjax import checks
from seqjax.decoding.sampling import sample
from seqjax.models.inputs import Tokens


class Elements(abc.ABC):
    """One kind of element, and the distribution that a model gives it by `outputs` numbers."""

    @property
    @abc.abstractmethod
    def features(self) -> int:
        """The width of an element as it is read."""

    @property
    @abc.abstractmethod
    def outputs(self) -> int:
        """How many numbers make the distribution of one element."""

    @abc.abstractmethod
    def init(self, key: Array) -> Any:
        """The params of reading; () where there are none."""

    @abc.abstractmethod
    def read(self, params: Any, elements: ArrayLike, key: Array | None = None) -> Array:
        """Vectors [*any, features]. key: draws what is dropped; None is evaluation."""

    @abc.abstractmethod
    def nats(self, outputs: Float[Array, "*any outputs"], elements: ArrayLike) -> Array:
        """-log p(element), [*any]."""

    @abc.abstractmethod
    def draw(self, key: Array, outputs: Array, temperature: float | Array) -> Array:
        """An element for each row of outputs; at temperature 0 the likeliest."""


@dataclasses.dataclass(frozen=True)
class Symbols(Elements):
    """One of a vocabulary: p = softmax(outputs). Elements are int[*any]."""

    tokens: Tokens

    def __post_init__(self) -> None:
        """Refuse what is no embedding."""
        checks.instance("Symbols: tokens", self.tokens, Tokens)

    @property
    def features(self) -> int:
        """The width of the embedding."""
        return self.tokens.features

    @property
    def outputs(self) -> int:
        """A logit for each symbol."""
        return self.tokens.vocabulary

    def init(self, key: Array) -> Array:
        """The embedding."""
        return self.tokens.init(key)

    def read(self, params: Array, elements: ArrayLike, key: Array | None = None) -> Array:
        """Rows of the embedding."""
        return self.tokens.apply(params, elements, key)

    def nats(self, outputs: Float[Array, "*any outputs"], elements: ArrayLike) -> Array:
        """-log softmax(outputs) at the element."""
        chosen = jnp.asarray(elements)[..., None]
        return -jnp.take_along_axis(jax.nn.log_softmax(outputs), chosen, axis=-1)[..., 0]

    def draw(self, key: Array, outputs: Array, temperature: float | Array) -> Array:
        """Symbol ~ softmax(outputs / temperature)."""
        return sample(key, outputs, temperature=temperature)


@dataclasses.dataclass(frozen=True)
class Bits(Elements):
    """`width` independent yes or no, such as the keys of a piano: p_i = σ(outputs_i).

    Elements are [*any, width] of 0 and 1, or probabilities between; read as they are.
    """

    width: int

    def __post_init__(self) -> None:
        """Refuse what is no width."""
        checks.positive("Bits: width", self.width)

    @property
    def features(self) -> int:
        """The width."""
        return self.width

    @property
    def outputs(self) -> int:
        """A logit for each bit."""
        return self.width

    def init(self, key: Array) -> tuple[()]:
        """None."""
        return ()

    def read(self, params: tuple[()], elements: ArrayLike, key: Array | None = None) -> Array:
        """The bits as numbers; a ValueError for another width."""
        bits = jnp.asarray(elements)
        checks.trailing("Bits: elements", bits, self.width)
        return bits if jnp.issubdtype(bits.dtype, jnp.floating) else bits.astype(jnp.float32)

    def nats(self, outputs: Float[Array, "*any outputs"], elements: ArrayLike) -> Array:
        """Σ_i softplus(o_i) - e_i o_i, which is -Σ_i log p(e_i)."""
        bits = self.read((), elements).astype(outputs.dtype)
        return jnp.sum(jax.nn.softplus(outputs) - bits * outputs, axis=-1)

    def draw(self, key: Array, outputs: Array, temperature: float | Array) -> Array:
        """Each bit by itself; its odds to the power of 1 / temperature."""
        positive = jnp.asarray(temperature, outputs.dtype) > 0
        scaled = outputs / jnp.where(positive, jnp.asarray(temperature, outputs.dtype), 1)
        drawn = jax.random.bernoulli(key, jax.nn.sigmoid(scaled))
        return jnp.where(positive, drawn, outputs > 0).astype(jnp.float32)


@dataclasses.dataclass(frozen=True)
class Numbers(Elements):
    """`width` real numbers, each from N(μ_i, σ_i²): outputs are μ and then log σ.

    log σ is held in [-7, 7], so that one number that is hit exactly does not make the loss endless.
    """

    width: int

    def __post_init__(self) -> None:
        """Refuse what is no width."""
        checks.positive("Numbers: width", self.width)

    @property
    def features(self) -> int:
        """The width."""
        return self.width

    @property
    def outputs(self) -> int:
        """A mean and a log σ for each."""
        return 2 * self.width

    def init(self, key: Array) -> tuple[()]:
        """None."""
        return ()

    def read(self, params: tuple[()], elements: ArrayLike, key: Array | None = None) -> Array:
        """The numbers; a ValueError for another width, or integers."""
        numbers = jnp.asarray(elements)
        checks.trailing("Numbers: elements", numbers, self.width)
        if not jnp.issubdtype(numbers.dtype, jnp.floating):
            raise ValueError(f"Numbers: elements are {numbers.dtype}; expected floating point")
        return numbers

    def nats(self, outputs: Float[Array, "*any outputs"], elements: ArrayLike) -> Array:
        """Σ_i ½ ((e_i - μ_i) / σ_i)² + log σ_i + ½ log 2π, of a density."""
        mean, log_deviation = self._parts(outputs)
        z = (self.read((), elements).astype(outputs.dtype) - mean) * jnp.exp(-log_deviation)
        constant = 0.5 * math.log(2 * math.pi)
        return jnp.sum(0.5 * jnp.square(z) + log_deviation + constant, axis=-1)

    def draw(self, key: Array, outputs: Array, temperature: float | Array) -> Array:
        """μ + temperature · σ · noise."""
        mean, log_deviation = self._parts(outputs)
        noise = jax.random.normal(key, mean.shape, mean.dtype)
        return mean + jnp.asarray(temperature, mean.dtype) * jnp.exp(log_deviation) * noise

    def _parts(self, outputs: Array) -> tuple[Array, Array]:
        mean, log_deviation = jnp.split(outputs, 2, axis=-1)
        return mean, jnp.clip(log_deviation, -7, 7)
