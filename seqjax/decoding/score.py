"""The probability that a model gives to a text."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from seqjax.decoding.decode import Generative
from seqjax.losses import token_cross_entropy


class Score(NamedTuple):
    """log p of a text, in nats.

    log_probs: [time - 1, *batch], of each token but the first, given all before it.
    total: their sum, [*batch].
    """

    log_probs: Float[Array, "steps *batch"]
    total: Float[Array, "*batch"]


def score(model: Generative, params: Any, tokens: ArrayLike) -> Score:
    """Log p(token_2 … token_T | token_1) = Σ_t log p(token_{t+1} | token_1 … token_t), in nats.

    tokens: int[time, *batch] with at least two tokens; the first is the context of the others.
    The perplexity of the text is exp(-total / (time - 1)).

    A token outside the vocabulary has log p = NaN. Raises a ValueError for fewer than two tokens.
    """
    tokens = jnp.asarray(tokens)
    if tokens.ndim == 0 or tokens.shape[0] < 2 or not jnp.issubdtype(tokens.dtype, jnp.integer):
        raise ValueError(
            f"score: tokens is {tokens.dtype}{list(tokens.shape)}; "
            "expected int[time, *batch] with at least two tokens, the first of them as context"
        )
    return _score(model, params, tokens)


@functools.partial(jax.jit, static_argnames="model")
def _score(model, params, tokens):
    state = model.initial_state(params, tokens.shape[1:])
    _, logits = model.apply(params, state, tokens[:-1])
    log_probs = -token_cross_entropy(logits, tokens[1:])
    return Score(log_probs, jnp.sum(log_probs, axis=0))
