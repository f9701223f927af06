"""From logits to a token: greedy, temperature, top-k, top-p."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from seqjax import checks
from seqjax.numerics import accumulator


def sample(
    key: Array,
    logits: Float[Array, "*batch vocabulary"],
    *,
    temperature: float | Float[Array, ""] = 1.0,
    top_k: int | None = None,
    top_p: float | Float[Array, ""] | None = None,
) -> Int[Array, "*batch"]:
    """Token ~ softmax(logits / temperature), cut to the likeliest.

    temperature: 0 takes the likeliest token (greedy; `top_k` and `top_p` then change nothing). It
        may be traced, so that another temperature does not recompile.
    top_k: only the k likeliest tokens; of equally likely ones at the border those of smaller number.
    top_p: only the smallest set of likeliest tokens whose probability, at that temperature and after
        `top_k`, reaches p (Holtzman et al. 2020). It may be traced too.

    Raises a ValueError for a temperature below 0, a k below 1, or a p outside (0, 1].

    >>> sample(jax.random.key(0), jnp.array([0.0, 3.0, 1.0]), temperature=0.0)
    Array(1, dtype=int32)
    """
    check_sampling(temperature, top_k, top_p)
    logits = logits.astype(accumulator(logits.dtype))  # bfloat16 noise repeats itself
    greedy = lambda: lax.top_k(logits, 1)[1][..., 0]  # on a CPU many times as fast as `argmax`
    random = lambda: _drawn(key, logits, temperature, top_k, top_p).astype(jnp.int32)
    if checks.is_number(temperature):
        return random() if temperature > 0 else greedy()
    # Noise for a whole vocabulary takes longer than most models need for a token.
    return lax.cond(temperature > 0, random, greedy)


def _drawn(
    key: Array,
    logits: Float[Array, "*batch vocabulary"],
    temperature: float | Array,
    top_k: int | None,
    top_p: float | Array | None,
) -> Int[Array, "*batch"]:
    """A token at a temperature above 0; noise is drawn for those alone that `top_k` leaves."""
    scaled = logits / jnp.asarray(temperature, logits.dtype)
    if top_k is None and top_p is None:
        return jax.random.categorical(key, scaled, axis=-1)
    vocabulary = logits.shape[-1]
    left, tokens = lax.top_k(scaled, vocabulary if top_k is None else min(top_k, vocabulary))
    if top_p is not None:
        left = keep_top_p(left, top_p)
    place = jax.random.categorical(key, left, axis=-1)
    return jnp.take_along_axis(tokens, place[..., None], axis=-1)[..., 0]


def keep_top_p(
    falling: Float[Array, "*batch tokens"], p: float | Array
) -> Float[Array, "*batch tokens"]:
    """-∞ outside the smallest set of likeliest tokens whose probability reaches p.

    falling: logits, the largest first. A token stays while those before it hold less than p: the first
    always does.
    """
    likely = jax.nn.softmax(falling, axis=-1)
    before = jnp.cumsum(likely, axis=-1) - likely
    return jnp.where(before < p, falling, -jnp.inf)


def check_sampling(
    temperature: float | Array, top_k: int | None, top_p: float | Array | None
) -> None:
    """Refuse settings that describe no distribution, where they are numbers and not traced."""
    if checks.is_number(temperature) and not temperature >= 0:
        raise ValueError(f"temperature: expected a number of at least 0, got {temperature!r}")
    if top_k is not None:
        checks.positive("top_k", top_k)
    if checks.is_number(top_p) and not 0 < top_p <= 1:
        raise ValueError(f"top_p: expected a probability in (0, 1], got {top_p!r}")
