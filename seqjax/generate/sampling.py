"""From logits to a token: greedy, temperature, top-k, top-p."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from seqjax import checks
from seqjax.arithmetic import accumulator


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
    top_k: only the k likeliest tokens; ties at the border are all kept.
    top_p: only the smallest set of likeliest tokens whose probability, at that temperature and after
        `top_k`, reaches p (Holtzman et al. 2020). It may be traced too.

    Raises a ValueError for a temperature below 0, a k below 1, or a p outside (0, 1].

    >>> sample(jax.random.key(0), jnp.array([0.0, 3.0, 1.0]), temperature=0.0)
    Array(1, dtype=int32)
    """
    check_sampling(temperature, top_k, top_p)
    logits = logits.astype(accumulator(logits.dtype))  # bfloat16 noise repeats itself
    temperature = jnp.asarray(temperature, logits.dtype)
    greedy = jnp.argmax(logits, axis=-1)
    scaled = logits / jnp.where(temperature > 0, temperature, 1)
    if top_k is not None:
        scaled = keep_top_k(scaled, top_k)
    if top_p is not None:
        scaled = keep_top_p(scaled, top_p)
    drawn = jax.random.categorical(key, scaled, axis=-1)
    return jnp.where(temperature > 0, drawn, greedy).astype(jnp.int32)


def keep_top_k(
    logits: Float[Array, "*batch vocabulary"], k: int
) -> Float[Array, "*batch vocabulary"]:
    """-∞ at every logit below the k-th largest."""
    k = min(k, logits.shape[-1])
    # The least of all k, not the last: XLA:CPU takes a sort in place of a `top_k` that is sliced.
    border = jnp.min(jax.lax.top_k(logits, k)[0], axis=-1, keepdims=True)
    return jnp.where(logits >= jnp.broadcast_to(border, logits.shape), logits, -jnp.inf)


def keep_top_p(
    logits: Float[Array, "*batch vocabulary"], p: float | Float[Array, ""]
) -> Float[Array, "*batch vocabulary"]:
    """-∞ outside the smallest set of likeliest tokens whose probability reaches p.

    A token stays while the tokens before it, in falling order, hold less than p: the first always
    does.
    """
    order = jnp.argsort(-logits, axis=-1)
    falling = jnp.take_along_axis(jax.nn.softmax(logits, axis=-1), order, axis=-1)
    before = jnp.cumsum(falling, axis=-1) - falling
    kept = jnp.take_along_axis(before < p, jnp.argsort(order, axis=-1), axis=-1)
    return jnp.where(kept, logits, -jnp.inf)


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
