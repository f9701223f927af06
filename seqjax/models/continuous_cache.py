"""Words that came lately come again: a language model beside a memory of its own recent outputs."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int

from seqjax import checks, losses
from seqjax.cell import State
from seqjax.data import Batch
from seqjax.gradients import Metrics
from seqjax.models.language_model import LanguageModel, LanguageModelParams
from seqjax.numerics import where_rows

LOGITS_OF_STEPS = 16
"""Steps of a window whose logits exist at once."""


class ContinuousCacheParams(NamedTuple):
    """Those of the model, θ and λ: numbers, so that a search over them compiles nothing again."""

    model: LanguageModelParams
    sharpness: Float[Array, ""]
    weight: Float[Array, ""]


class ContinuousCacheState(NamedTuple):
    """What was read: the state of the cell, and pairs of an output and the word that came after it.

    keys: h_i, the oldest first; words: x_{i+1}, -1 where there is none yet. last: the newest output,
    whose word has not come; begun: whether there is one.
    """

    cell: State
    keys: Float[Array, "*batch size features"]
    words: Int[Array, "*batch size"]
    last: Float[Array, "*batch features"]
    begun: Bool[Array, "*batch"]


@dataclasses.dataclass(frozen=True)
class ContinuousCache:
    """p(w) = (1 - λ) p_model(w) + λ Σ_{i: x_{i+1} = w} a_i,   a = softmax_i(θ h_t · h_i)

    over the last `size` pairs of an output h_i and the word x_{i+1} that came after it: what was seen
    where the model was in a state like this one. Nothing is trained: a trained model is asked with it,
    for its perplexity or to write. θ (sharpness) and λ (weight) are chosen on held-out text. While
    there are no pairs, p is p_model.

    model: a `LanguageModel`. size: how many pairs. A document's end (`Batch.resets`) empties the cache.

    Raises a ValueError for a size below 1, and a model of another kind.
    Reference: Grave, Joulin, Usunier 2017, "Improving neural language models with a continuous cache".

    >>> import jax, seqjax as sj
    >>> model = sj.models.LanguageModel(vocabulary=9, cell=sj.GRU(8), embedding=4)
    >>> cache = ContinuousCache(model, size=100)
    >>> params = cache.around(model.init(jax.random.key(0)), sharpness=0.3, weight=0.1)
    >>> sj.score(cache, params, jax.numpy.arange(9)).log_probs.shape
    (8,)
    """

    model: LanguageModel
    size: int = 2000

    def __post_init__(self) -> None:
        """Refuse what makes no cache."""
        checks.instance("ContinuousCache: model", self.model, LanguageModel)
        checks.positive("ContinuousCache: size", self.size)

    def around(
        self, params: LanguageModelParams, sharpness: ArrayLike = 0.3, weight: ArrayLike = 0.1
    ) -> ContinuousCacheParams:
        """The params of a model with θ, at least 0, and λ in [0, 1); arrays are not looked at."""
        if checks.is_number(sharpness):
            checks.not_negative("ContinuousCache: sharpness", sharpness)
        if checks.is_number(weight):
            checks.fraction("ContinuousCache: weight", weight)
        numbers = (jnp.asarray(value, jnp.float32) for value in (sharpness, weight))
        return ContinuousCacheParams(params, *numbers)

    def initial_state(
        self,
        params: ContinuousCacheParams,
        batch_shape: tuple[int, ...] = (),
        *,
        key: Array | None = None,
    ) -> ContinuousCacheState:
        """Nothing was read. The key is that of the cell's own noise."""
        features = self.model.cell.out_features
        return ContinuousCacheState(
            cell=self.model.initial_state(params.model, batch_shape, key=key),
            keys=jnp.zeros((*batch_shape, self.size, features), jnp.float32),
            words=jnp.full((*batch_shape, self.size), -1, jnp.int32),
            last=jnp.zeros((*batch_shape, features), jnp.float32),
            begun=jnp.zeros(batch_shape, bool),
        )

    def step(
        self, params: ContinuousCacheParams, state: ContinuousCacheState, token: ArrayLike
    ) -> tuple[ContinuousCacheState, Float[Array, "*batch vocabulary"]]:
        """One token, int[*batch]: the state after it, and log p of the next one."""
        token = jnp.asarray(token).astype(jnp.int32)
        cell, h = self.model.advance(params.model, state.cell, token)
        log_p = jax.nn.log_softmax(self.model.readout(params.model, h).astype(jnp.float32))
        word = jnp.where(state.begun, token, jnp.full_like(token, -1))
        push = lambda old, new: jnp.concatenate([old, jnp.expand_dims(new, token.ndim)], token.ndim)
        drop = lambda pairs: lax.slice_in_dim(pairs, 1, None, axis=token.ndim)
        keys, words = drop(push(state.keys, state.last)), drop(push(state.words, word))
        h = h.astype(jnp.float32)
        shares = _softmax(params.sharpness * jnp.einsum("...h,...nh->...n", h, keys), words >= 0)
        # By words, of which each may stand in several pairs.
        among = jnp.zeros_like(log_p)
        rows = jnp.meshgrid(*map(jnp.arange, token.shape), indexing="ij", sparse=True)
        places = (*(row[..., None] for row in rows), jnp.maximum(words, 0))
        mixed = self._mixed(
            params, log_p, among.at[places].add(shares), jnp.any(words >= 0, axis=-1)
        )
        return ContinuousCacheState(cell, keys, words, h, jnp.ones_like(state.begun)), mixed

    def apply(
        self, params: ContinuousCacheParams, state: ContinuousCacheState, tokens: ArrayLike
    ) -> tuple[ContinuousCacheState, Float[Array, "time *batch vocabulary"]]:
        """The state after the last token, int[time, *batch], and log p of the one that follows each."""
        step = lambda state, token: self.step(params, state, token)
        return lax.scan(step, state, jnp.asarray(tokens))

    def loss(
        self,
        params: ContinuousCacheParams,
        carry: ContinuousCacheState,
        batch: Batch,
        key: Array | None,
    ) -> tuple[Float[Array, ""], tuple[ContinuousCacheState, Metrics]]:
        """-mean log p(target) over the real tokens of a window, in nats, for `sj.training.evaluate`.

        All steps at once, [time, *batch, size + time] products. Raises a ValueError for a key: a cache
        is asked, not trained.
        """
        if key is not None:
            raise ValueError("ContinuousCache.loss: expected no key; train the model itself")
        inputs, targets, mask, resets = (jnp.asarray(field) for field in batch)
        cell, hs = self.model.outputs(params.model, carry.cell, inputs, resets=resets)

        def of_model(step: tuple[Array, Array]) -> Array:
            h, target = step
            return -losses.token_cross_entropy(self.model.readout(params.model, h), target)

        safe = jnp.where(mask, targets, jnp.zeros_like(targets))
        log_p = lax.map(of_model, (hs, safe), batch_size=LOGITS_OF_STEPS).astype(jnp.float32)
        hs = hs.astype(jnp.float32)
        pairs, usable, after = self._pairs(carry, inputs, mask, resets, hs)
        products = jnp.einsum("t...h,...nh->t...n", hs, pairs.keys)
        shares = _softmax(params.sharpness * products, usable)
        hits = jnp.broadcast_to(pairs.words[None], usable.shape) == safe[..., None].astype(
            jnp.int32
        )
        among = jnp.sum(jnp.where(hits & usable, shares, 0), axis=-1)
        nats = -self._mixed(params, log_p, among, jnp.any(usable, axis=-1))
        mean = losses.mean_over(nats, mask)
        return mean.value, (after._replace(cell=cell), {"nats": mean})

    def _pairs(
        self, carry: ContinuousCacheState, inputs: Array, mask: Array, resets: Array, hs: Array
    ) -> tuple[ContinuousCacheState, Bool[Array, "time *batch pairs"], ContinuousCacheState]:
        """Carried pairs and those of the window, which of them each step may use, and what goes on."""
        time, axis = inputs.shape[0], inputs.ndim - 1
        to_rows = lambda steps: jnp.moveaxis(steps, 0, axis)
        before = jnp.concatenate([carry.last[None], hs[:-1]])
        begun = jnp.concatenate([carry.begun[None], jnp.ones_like(resets[1:])])
        words = jnp.where(mask & begun & ~resets, inputs.astype(jnp.int32), -1)
        keys = jnp.concatenate([carry.keys, to_rows(before)], axis=axis)
        words = jnp.concatenate([carry.words, to_rows(words)], axis=axis)
        # Documents are counted, those that were begun before as 0: pairs of another one do not count.
        document = jnp.cumsum(resets.astype(jnp.int32), axis=0)
        of_pairs = jnp.concatenate([jnp.zeros_like(carry.words), to_rows(document)], axis=axis)
        number, step = jnp.arange(self.size + time), jnp.arange(time)
        # Of the pairs up to this step the last `size`.
        near = (number[None] <= self.size + step[:, None]) & (number[None] > step[:, None])
        near = near.reshape(time, *(1,) * axis, self.size + time)
        usable = (words >= 0)[None] & (of_pairs[None] == document[..., None])
        usable = usable & jnp.broadcast_to(near, usable.shape)
        kept = of_pairs == jnp.expand_dims(document[-1], axis)
        last = lambda pairs: lax.slice_in_dim(pairs, time, None, axis=axis)
        after = ContinuousCacheState(
            cell=None,
            keys=last(keys),
            words=last(jnp.where(kept, words, -1)),
            last=hs[-1],
            begun=jnp.ones_like(carry.begun),
        )
        return carry._replace(keys=keys, words=words), usable, after

    def _mixed(
        self, params: ContinuousCacheParams, log_p: Array, among: Array, some: Array
    ) -> Array:
        """Log((1 - λ) p + λ q), and log p where there are no pairs."""
        weight = params.weight
        share = jnp.log(weight) + jnp.log(among)
        return where_rows(some, jnp.logaddexp(jnp.log1p(-weight) + log_p, share), log_p)


def _softmax(scores: Array, usable: Array) -> Array:
    """Over the last axis, of what is usable; zeros where nothing is."""
    scores = jnp.where(usable, scores, -jnp.inf)
    largest = jnp.max(scores, axis=-1, keepdims=True, initial=jnp.finfo(scores.dtype).min)
    weights = jnp.exp(scores - jnp.broadcast_to(largest, scores.shape))
    total = jnp.sum(weights, axis=-1, keepdims=True)
    return weights / jnp.broadcast_to(jnp.where(total > 0, total, 1), weights.shape)
