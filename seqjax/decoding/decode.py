"""Generate a text in one compiled scan, stream it token by token, or score a given one."""

import functools
import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from seqjax import checks
from seqjax.cell import State
from seqjax.decoding.sampling import check_sampling, sample
from seqjax.losses import token_cross_entropy


@runtime_checkable
class Generative(Protocol):
    """What generation asks of a model: hashable, and these three functions."""

    def initial_state(self, params: Any, batch_shape: tuple[int, ...] = ()) -> State:
        """The state before the first token."""
        ...

    def apply(self, params: Any, state: State, tokens: Array) -> tuple[State, Array]:
        """tokens: [time, *batch] -> the state after them, logits [time, *batch, vocabulary]."""
        ...

    def step(self, params: Any, state: State, token: Array) -> tuple[State, Array]:
        """token: [*batch] -> the state after it, logits [*batch, vocabulary]."""
        ...


class Generated(NamedTuple):
    """What a model wrote.

    tokens: [length, *batch], 0 after a stop token.
    lengths: how many of them are real; a stop token counts.
    log_probs: log p of each token under the model itself (temperature 1, nothing cut), in nats; 0
        after a stop token.
    """

    tokens: Int[Array, "length *batch"]
    lengths: Int[Array, "*batch"]
    log_probs: Float[Array, "length *batch"]


def generate(
    model: Generative,
    params: Any,
    key: Array,
    prompt: ArrayLike,
    length: int,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    stop: int | None = None,
) -> Generated:
    """`length` tokens that continue `prompt`, as one compiled scan.

    model: a `sj.models.LanguageModel`, or anything with its `initial_state`, `apply` and `step`.
    prompt: int[time, *batch] with at least one token; each sequence of the batch draws its own.
    temperature: 0 is greedy. temperature and top_p may change without a new compilation.
    stop: the token that ends a text; a sequence that has drawn it only waits for the others.

    Raises a ValueError for an empty prompt, a length below 1, a temperature below 0, a top_k below 1,
    and a top_p outside (0, 1].

    >>> import seqjax as sj
    >>> model = sj.models.LanguageModel(vocabulary=9, cell=sj.GRU(8), embedding=4)
    >>> params = model.init(jax.random.key(0))
    >>> generate(model, params, jax.random.key(1), jnp.array([3]), 20).tokens.shape
    (20,)
    """
    prompt = as_prompt(prompt)
    checks.positive("generate: length", length)
    check_sampling(temperature, top_k, top_p)
    return _generate(model, params, key, prompt, length, temperature, top_k, top_p, stop)


@functools.partial(jax.jit, static_argnames=("model", "length", "top_k", "stop"))
def _generate(model, params, key, prompt, length, temperature, top_k, top_p, stop):
    state, logits = read(model, params, prompt)
    done = jnp.zeros(prompt.shape[1:], jnp.bool_)

    def body(carry, number):
        state, logits, done = carry
        # Token n draws from fold_in(key, n): the same text at every length, and from `stream`.
        token_key = jax.random.fold_in(key, number)
        token = sample(token_key, logits, temperature=temperature, top_k=top_k, top_p=top_p)
        token = jnp.where(done, 0, token)
        log_prob = -token_cross_entropy(logits, token, mask=~done)
        state, logits = model.step(params, state, token)
        real = ~done
        if stop is not None:
            done = done | (token == stop)
        return (state, logits, done), (token, log_prob, real)

    _, (tokens, log_probs, real) = lax.scan(body, (state, logits, done), jnp.arange(length))
    return Generated(tokens, jnp.sum(real, axis=0, dtype=jnp.int32), log_probs)


def stream(
    model: Generative,
    params: Any,
    key: Array,
    prompt: ArrayLike,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    stop: int | None = None,
) -> Iterator[int]:
    """The tokens that continue `prompt`, one by one and without end, in constant memory.

    prompt: int[time], one sequence. Ends after the `stop` token, which it gives, or when the caller
    stops asking. The other arguments are those of `generate`, which gives the same tokens for the same
    key. Raises a ValueError, at once, as `generate` does.
    """
    tokens = as_prompt(prompt)
    if tokens.ndim != 1:
        raise ValueError(f"stream: prompt has shape {tokens.shape}; expected one sequence, [time]")
    check_sampling(temperature, top_k, top_p)

    def draw() -> Iterator[int]:
        state, logits = _read(model, params, tokens)
        for number in itertools.count():
            token_key = jax.random.fold_in(key, number)
            state, logits, token = _next_token(
                model, params, state, logits, token_key, temperature, top_k, top_p
            )
            yield int(token)
            if stop is not None and int(token) == stop:
                return

    return draw()


def read(model: Generative, params: Any, prompt: Array) -> tuple[State, Array]:
    """The state after the prompt, and the logits of what follows it."""
    state = model.initial_state(params, prompt.shape[1:])
    # The logits of all but the last token would be thrown away.
    if prompt.shape[0] > 1:
        state, _ = model.apply(params, state, prompt[:-1])
    return model.step(params, state, prompt[-1])


_read = jax.jit(read, static_argnames="model")


@functools.partial(jax.jit, static_argnames=("model", "top_k"))
def _next_token(model, params, state, logits, key, temperature, top_k, top_p):
    token = sample(key, logits, temperature=temperature, top_k=top_k, top_p=top_p)
    state, logits = model.step(params, state, token)
    return state, logits, token


def as_prompt(prompt: ArrayLike) -> Array:
    """The prompt as an array; a ValueError where it holds no token."""
    tokens = jnp.asarray(prompt)
    if tokens.ndim == 0 or tokens.shape[0] == 0 or not jnp.issubdtype(tokens.dtype, jnp.integer):
        raise ValueError(
            f"prompt is {tokens.dtype}{list(tokens.shape)}; "
            "expected int[time, *batch] with at least one token"
        )
    return tokens


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
