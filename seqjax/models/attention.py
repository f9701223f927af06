"""Attention: what one query finds in the outputs of an encoder."""

import abc
import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Bool, Float

from seqjax import checks
from seqjax.fields import check_fields
from seqjax.initializers import Initializer, draw
from seqjax.models.outputs import real_steps
from seqjax.numerics import accumulator, compute_dtype, matmul, where_rows


class Memory(NamedTuple):
    """What is attended to: the outputs of an encoder, their projections, and which of them are real.

    values: 0 in the padding. Values and keys are at least float32, as gradients of all queries meet in
    them.
    """

    values: Float[Array, "time *batch features"]
    keys: Float[Array, "time *batch key_features"]
    real: Bool[Array, "time *batch"]


class Attention(abc.ABC):
    """e_s = score(q, m_s)
    a_s = exp(e_s) / Σ_r exp(e_r) over the real steps r
    c = Σ_s a_s m_s

    The score, less the part of it that sees the memory alone, which `remember` computes once for all
    queries. Steps in the padding have a_s = 0 exactly, and what they hold, even NaN, changes neither
    values nor gradients; without a real step all a_s are 0, and c is.

    Concrete ones are frozen dataclasses with the fields param_dtype and dtype, define `init`, `project`
    and `score`, and hold no arrays.
    """

    @abc.abstractmethod
    def init(self, key: Array, query_features: int, memory_features: int) -> Any:
        """The params, for queries and a memory of these widths."""

    @abc.abstractmethod
    def project(
        self, params: Any, values: Float[Array, "time *batch features"]
    ) -> Float[Array, "time *batch key_features"]:
        """The keys: all of the score that no query has a say in."""

    @abc.abstractmethod
    def score(
        self,
        params: Any,
        keys: Float[Array, "time *batch key_features"],
        query: Float[Array, "*batch query_features"],
    ) -> Float[Array, "time *batch"]:
        """e_1 … e_T."""

    def remember(
        self,
        params: Any,
        values: Float[Array, "time *batch features"],
        lengths: ArrayLike | None = None,
    ) -> Memory:
        """The memory that queries are applied to.

        lengths: int[*batch], None where all steps are real.
        Raises a ValueError for lengths of another shape, or none that are integers.
        """
        real = real_steps("Attention: lengths", lengths, values.shape[:-1])
        values = values.astype(accumulator(values.dtype))
        # Before anything is computed from it: a weight of 0 alone would leave 0 · NaN.
        values = where_rows(real, values, jnp.zeros_like(values))
        return Memory(values, self.project(params, values), real)

    def apply(
        self, params: Any, memory: Memory, query: Float[Array, "*batch query_features"]
    ) -> tuple[Float[Array, "*batch features"], Float[Array, "time *batch"]]:
        """(c, a) of one query for each row. For many at once: `jax.vmap` over `query`."""
        e = self.score(params, memory.keys, query)
        a = masked_softmax(e, memory.real)
        return jnp.einsum("t...,t...f->...f", a, memory.values), a


def masked_softmax(
    e: Float[Array, "time *batch"], real: Bool[Array, "time *batch"]
) -> Float[Array, "time *batch"]:
    """exp(e_s) / Σ_r exp(e_r) over the real steps r; 0 at those that are not, and where none is."""
    e = jnp.where(real, e, -jnp.inf)
    top = jax.lax.stop_gradient(jnp.max(e, axis=0, initial=-jnp.inf, keepdims=True))
    top = jnp.where(jnp.isneginf(top), jnp.zeros_like(top), top)  # -∞ + ∞ is NaN
    p = jnp.exp(e - jnp.broadcast_to(top, e.shape))
    total = jnp.sum(p, axis=0, keepdims=True)
    total = jnp.where(total == 0, jnp.ones_like(total), total)
    return p / jnp.broadcast_to(total, p.shape)


class AdditiveParams(NamedTuple):
    """W, U and v of an additive score."""

    query_kernel: Float[Array, "query_features units"]
    memory_kernel: Float[Array, "memory_features units"]
    vector: Float[Array, " units"]


@dataclasses.dataclass(frozen=True)
class AdditiveAttention(Attention):
    """e_s = vᵀ tanh(W q + U m_s)

    A network of one hidden layer, for a query and a memory of any widths. The hidden layer exists for
    all steps of the memory and all queries at once in reverse mode; `remat` of a model may keep less.

    Raises a ValueError for units below 1 and an unknown initialiser.
    Reference: Bahdanau, Cho, Bengio 2015, "Neural machine translation by jointly learning to align and
    translate", section A.1.2.

    >>> attention = AdditiveAttention(units=8)
    >>> params = attention.init(jax.random.key(0), query_features=3, memory_features=4)
    >>> memory = attention.remember(params, jnp.ones((5, 2, 4)), lengths=jnp.array([4, 0]))
    >>> context, weights = attention.apply(params, memory, jnp.ones((2, 3)))
    >>> print(weights.T)
    [[0.25 0.25 0.25 0.25 0.  ]
     [0.   0.   0.   0.   0.  ]]
    """

    units: int
    kernel_init: Initializer | str = "glorot"
    param_dtype: DTypeLike = jnp.float32
    dtype: DTypeLike | None = None

    def __post_init__(self) -> None:
        """Refuse hyperparameters that make no score."""
        checks.positive("AdditiveAttention: units", self.units)
        check_fields(self)

    def init(self, key: Array, query_features: int, memory_features: int) -> AdditiveParams:
        """Each by its own draw; v as a matrix of one column."""
        query_key, memory_key, vector_key = jax.random.split(key, 3)
        drawn = lambda key, rows, columns: draw(
            self.kernel_init, key, (rows, columns), self.param_dtype
        )
        return AdditiveParams(
            drawn(query_key, query_features, self.units),
            drawn(memory_key, memory_features, self.units),
            drawn(vector_key, self.units, 1)[:, 0],
        )

    def project(
        self, params: AdditiveParams, values: Float[Array, "time *batch features"]
    ) -> Float[Array, "time *batch units"]:
        """U m_s."""
        checks.trailing("AdditiveAttention: memory", values, params.memory_kernel.shape[0])
        return matmul(values, params.memory_kernel, compute_dtype(self))

    def score(
        self,
        params: AdditiveParams,
        keys: Float[Array, "time *batch units"],
        query: Float[Array, "*batch query_features"],
    ) -> Float[Array, "time *batch"]:
        """vᵀ tanh(W q + U m_s)."""
        checks.trailing("AdditiveAttention: query", query, params.query_kernel.shape[0])
        dtype = compute_dtype(self)
        Wq = matmul(query, params.query_kernel, dtype)
        hidden = jnp.tanh(jnp.broadcast_to(Wq[None], keys.shape) + keys)
        return matmul(hidden, params.vector[:, None], dtype)[..., 0]


class MultiplicativeParams(NamedTuple):
    """W of a multiplicative score, as it multiplies the memory."""

    kernel: Float[Array, "memory_features query_features"]


@dataclasses.dataclass(frozen=True)
class MultiplicativeAttention(Attention):
    """e_s = qᵀ W m_s

    Cheaper than the additive score. scaled: e_s / √d, where d is the width of q, which keeps the weights
    from starting out sharp where d is large (Vaswani et al. 2017).

    Raises a ValueError for an unknown initialiser.
    Reference: Luong, Pham, Manning 2015, "Effective approaches to attention-based neural machine
    translation", the score that is called "general".

    >>> attention = MultiplicativeAttention()
    >>> params = attention.init(jax.random.key(0), query_features=3, memory_features=4)
    >>> memory = attention.remember(params, jnp.ones((5, 2, 4)))
    >>> context, weights = attention.apply(params, memory, jnp.ones((2, 3)))
    >>> context.shape, weights.shape
    ((2, 4), (5, 2))
    """

    scaled: bool = False
    kernel_init: Initializer | str = "glorot"
    param_dtype: DTypeLike = jnp.float32
    dtype: DTypeLike | None = None

    def __post_init__(self) -> None:
        """Refuse hyperparameters that make no score."""
        checks.instance("MultiplicativeAttention: scaled", self.scaled, bool)
        check_fields(self)

    def init(self, key: Array, query_features: int, memory_features: int) -> MultiplicativeParams:
        """W by `kernel_init`."""
        shape = (memory_features, query_features)
        return MultiplicativeParams(draw(self.kernel_init, key, shape, self.param_dtype))

    def project(
        self, params: MultiplicativeParams, values: Float[Array, "time *batch features"]
    ) -> Float[Array, "time *batch query_features"]:
        """W m_s, over √d where the score is scaled."""
        checks.trailing("MultiplicativeAttention: memory", values, params.kernel.shape[0])
        keys = matmul(values, params.kernel, compute_dtype(self))
        return keys / math.sqrt(keys.shape[-1]) if self.scaled else keys

    def score(
        self,
        params: MultiplicativeParams,
        keys: Float[Array, "time *batch query_features"],
        query: Float[Array, "*batch query_features"],
    ) -> Float[Array, "time *batch"]:
        """qᵀ W m_s."""
        checks.trailing("MultiplicativeAttention: query", query, params.kernel.shape[1])
        return jnp.einsum("...f,t...f->t...", query.astype(keys.dtype), keys)
