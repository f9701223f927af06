"""Beam search: the likeliest sequences, instead of one that is drawn."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int

from seqjax import checks
from seqjax.cell import State
from seqjax.decoding.decode import Generative, as_prompt
from seqjax.numerics import accumulator, where_rows

PENALTIES = ("wu", "length")

Step = Callable[[State, Array], tuple[State, Array]]


class Hypotheses(NamedTuple):
    """The best sequences that a search found, the best one first.

    tokens: 0 after the end. lengths: how many of them are real; the stop token counts.
    log_probs: log p of the whole sequence, in nats. scores: log_probs over the length penalty.
    cut: True where a sequence has `max_length` tokens and no stop among them.

    Where there are fewer sequences than beams, the rest has length 0 and a score of -∞.
    """

    tokens: Int[Array, "length *batch beam"]
    lengths: Int[Array, "*batch beam"]
    scores: Float[Array, "*batch beam"]
    log_probs: Float[Array, "*batch beam"]
    cut: Bool[Array, "*batch beam"]


class _Ended(NamedTuple):
    """Ended hypotheses, by falling score; every leaf leads with [*batch, beam]."""

    tokens: Array
    lengths: Array
    scores: Array
    log_probs: Array
    cut: Array


class _Open(NamedTuple):
    """Hypotheses that go on, by falling log p; -∞ where there is none."""

    state: State
    tokens: Array
    log_probs: Array


def beam_search(
    step: Step,
    state: State,
    start: Int[Array, "*batch"],
    *,
    beam: int,
    max_length: int,
    stop: int | None,
    min_length: int = 1,
    alpha: float | Array = 0.6,
    penalty: str = "wu",
) -> Hypotheses:
    """y* = argmax_y log p(y) / lp(|y|), among the extensions of the `beam` likeliest beginnings

    y is a sequence that ends with `stop`, or one of `max_length` tokens without it, which is then `cut`;
    over all of them p sums to 1.

    Of the extensions of all open hypotheses the `beam` likeliest are looked at: those by `stop` are
    ended, and kept aside with their score; the `beam` likeliest of the others stay open. An ended
    hypothesis competes with ended ones alone. The search stops where no open one can come among the
    `beam` best any more, whatever it goes on with, which changes nothing of what is found.

    step: (state, tokens) -> (state, logits). tokens: int[*batch, beam], every leaf of the state
        [*batch, beam, ...], logits: [*batch, beam, vocabulary]. A logit of -∞ forbids a token.
    state: before `start`; its leaves lead with [*batch], and are repeated for the beams.
    start: the token that comes before the first one that is written.
    beam: how many hypotheses are open, and how many are given back. 1 with alpha=0 is greedy decoding.
    stop: the token that ends a hypothesis; None ends them all at `max_length`.
    min_length: the stop token is forbidden before so many tokens, itself among them.
    alpha, penalty: lp(n) = ((5 + n) / 6)^α of "wu" (Wu et al. 2016), n^α of "length", which at α = 1 is
        the mean of log p over the tokens. 0 is no penalty; more favours longer sequences. It may be
        traced.

    One compiled loop; O(max_length · beam · vocabulary) beside the steps. It is not compiled by itself:
    call it within your own `jax.jit`.
    Raises a ValueError for sizes below 1, a min_length above max_length, an α below 0, an unknown
    penalty, leaves of the state without the batch, and a step of another form.
    References: Sutskever, Vinyals, Le 2014; the penalty: Wu et al. 2016, "Google's neural machine
    translation system", section 7; when to stop: Huang, Zhao, Ma 2017, "When to finish?".
    """
    _check_search(beam, max_length, stop, min_length, alpha, penalty)
    start = jnp.asarray(start, jnp.int32)
    batch_shape, shape = start.shape, (*start.shape, beam)
    axis = len(batch_shape)
    _check_state(state, batch_shape)
    lp = lambda length: _length_penalty(penalty, alpha, length)

    def pick(tree: Any, beams: Array) -> Any:
        """Of leaves [*batch, n, ...] those at `beams`, int[*batch, k]."""
        take = lambda leaf, index: leaf[index]
        for _ in batch_shape:
            take = jax.vmap(take)
        return jax.tree.map(lambda leaf: take(leaf, beams), tree)

    def ended(tokens: Array, number: Array, log_probs: Array, *, cut: bool) -> _Ended:
        """Hypotheses of `number` tokens; one of -∞ is none."""
        none = jnp.isneginf(log_probs)
        return _Ended(
            tokens=where_rows(none, jnp.zeros_like(tokens), tokens),
            lengths=jnp.where(none, jnp.zeros_like(number), number),
            scores=log_probs / lp(number.astype(log_probs.dtype)),
            log_probs=log_probs,
            cut=~none & cut,
        )

    def best_of(kept: _Ended, more: _Ended) -> _Ended:
        """The best of both; among equals those of `kept`, as `top_k` takes the first."""
        both = jax.tree.map(lambda a, b: jnp.concatenate([a, b], axis), kept, more)
        return pick(both, lax.top_k(both.scores, beam)[1])

    def extend(carry: tuple[Array, _Open, _Ended]) -> tuple[Array, _Open, _Ended]:
        """Every open hypothesis by one token."""
        before, going, kept = carry
        number = before + 1
        last = jnp.take(going.tokens, jnp.maximum(before - 1, 0), axis=-1)
        first = jnp.broadcast_to(start[..., None], shape)
        state, logits = step(going.state, jnp.where(before == 0, first, last))
        log_p = log_softmax(logits)
        if stop is not None:
            early = (jnp.arange(log_p.shape[-1]) == stop) & (number < min_length)
            log_p = jnp.where(jnp.broadcast_to(early, log_p.shape), -jnp.inf, log_p)
        # What is no hypothesis stays none, whatever its logits are.
        total = jnp.broadcast_to(going.log_probs[..., None], log_p.shape)
        total = jnp.where(jnp.isneginf(total), total, total + log_p)

        # At most `beam` extensions are by stop, so twice as many hold `beam` others.
        vocabulary = log_p.shape[-1]
        several = min(beam if stop is None else 2 * beam, beam * vocabulary)
        total, index = lax.top_k(total.reshape(*batch_shape, beam * vocabulary), several)
        parents, token = index // vocabulary, index % vocabulary
        tokens = pick(going.tokens, parents)
        here = jnp.broadcast_to(jnp.arange(max_length) == before, tokens.shape)
        tokens = jnp.where(here, jnp.broadcast_to(token[..., None], tokens.shape), tokens)
        if stop is not None:
            among = jnp.broadcast_to(jnp.arange(several) < beam, token.shape)
            stopped = jnp.where((token == stop) & among, total, -jnp.inf)
            lengths = jnp.broadcast_to(number, token.shape)
            kept = best_of(kept, ended(tokens, lengths, stopped, cut=False))
            total = jnp.where(token == stop, -jnp.inf, total)
        total, best = lax.top_k(total, beam)
        tokens, parents = pick((tokens, parents), best)
        return number, _Open(pick(state, parents), tokens, total), kept

    def can_change(carry: tuple[Array, _Open, _Ended]) -> Array:
        """Whether an open hypothesis may still come among the best."""
        number, going, kept = carry
        # log p only falls and lp only grows: no end of an open hypothesis scores above this.
        bound = going.log_probs[..., 0] / lp(jnp.asarray(max_length, going.log_probs.dtype))
        beaten = bound <= kept.scores[..., -1]  # never of a NaN, which is to be seen
        return (number < max_length) & ~jnp.all(beaten)

    state = jax.tree.map(
        lambda leaf: jnp.broadcast_to(jnp.expand_dims(leaf, axis), (*shape, *leaf.shape[axis:])),
        state,
    )
    dtype = _checked_step(step, state, shape)
    numbers = jnp.zeros(shape, jnp.int32)
    nothing = jnp.full(shape, -jnp.inf, dtype)
    tokens = jnp.zeros((*shape, max_length), jnp.int32)
    # One beginning, and not `beam` equal ones.
    going = _Open(state, tokens, nothing.at[..., 0].set(0))
    carry = jnp.zeros((), jnp.int32), going, ended(tokens, numbers, nothing, cut=False)
    number, going, kept = lax.while_loop(can_change, extend, carry)
    left = jnp.where(number == max_length, going.log_probs, -jnp.inf)
    lengths = jnp.broadcast_to(number, shape)
    kept = best_of(kept, ended(going.tokens, lengths, left, cut=True))
    return Hypotheses(jnp.moveaxis(kept.tokens, -1, 0), *kept[1:])


def continuations(
    model: Generative,
    params: Any,
    prompt: ArrayLike,
    max_length: int,
    *,
    beam: int = 4,
    stop: int | None = None,
    min_length: int = 1,
    alpha: float | Array = 0.6,
    penalty: str = "wu",
) -> Hypotheses:
    """The likeliest continuations of `prompt` that beam search finds, as one compiled loop.

    model: a `sj.models.LanguageModel`, or anything with its `initial_state`, `apply` and `step`.
    prompt: int[time, *batch] with at least one token. The other arguments are those of `beam_search`;
    another alpha does not compile again. Raises its ValueErrors, and one for an empty prompt.

    >>> import seqjax as sj
    >>> model = sj.models.LanguageModel(vocabulary=9, cell=sj.GRU(8), embedding=4)
    >>> params = model.init(jax.random.key(0))
    >>> found = continuations(model, params, jnp.array([3]), 20, beam=2, stop=1)
    >>> found.tokens.shape, bool(found.scores[0] >= found.scores[1])
    ((20, 2), True)
    """
    prompt = as_prompt(prompt)
    _check_search(beam, max_length, stop, min_length, alpha, penalty)
    options = {"beam": beam, "stop": stop, "min_length": min_length, "penalty": penalty}
    return _continuations(model, params, prompt, max_length, alpha, **options)


_STATIC = ("model", "max_length", "beam", "stop", "min_length", "penalty")


@functools.partial(jax.jit, static_argnames=_STATIC)
def _continuations(model, params, prompt, max_length, alpha, *, stop, **options):
    state = model.initial_state(params, prompt.shape[1:])
    if prompt.shape[0] > 1:
        state, _ = model.apply(params, state, prompt[:-1])
    # The beams are one axis more, and what the params hold of each row is not repeated for them.
    axis = prompt.ndim - 1
    step = jax.vmap(functools.partial(model.step, params), in_axes=axis, out_axes=axis)
    options = {"max_length": max_length, "stop": stop, "alpha": alpha, **options}
    return beam_search(step, state, prompt[-1], **options)


def log_softmax(logits: Float[Array, "*any vocabulary"]) -> Float[Array, "*any vocabulary"]:
    """Log softmax(logits) in at least float32; -∞ where the logit is, though all of a row be."""
    logits = logits.astype(accumulator(logits.dtype))
    return jnp.where(jnp.isneginf(logits), logits, jax.nn.log_softmax(logits))


def _length_penalty(penalty: str, alpha: float | Array, length: Array) -> Array:
    """((5 + n) / 6)^α or n^α; 1 of no tokens, which are no hypothesis."""
    base = (5 + length) / 6 if penalty == "wu" else jnp.maximum(length, 1)
    return base ** jnp.asarray(alpha, base.dtype)


def _checked_step(step: Step, state: State, shape: tuple[int, ...]) -> Any:
    """The dtype of the scores; a ValueError for a step of another form."""
    tokens = jax.ShapeDtypeStruct(shape, jnp.int32)
    after, logits = jax.eval_shape(step, state, tokens)
    checks.same_tree("beam_search: the state that step gives", after, state, "the state given")
    if logits.shape[:-1] != shape or not jnp.issubdtype(logits.dtype, jnp.floating):
        raise ValueError(
            f"beam_search: step gives logits {logits.dtype}{list(logits.shape)}; "
            f"expected floating point [*batch, beam, vocabulary], {list(shape)} and the vocabulary"
        )
    return accumulator(logits.dtype)


def _check_state(state: State, batch_shape: tuple[int, ...]) -> None:
    """Every leaf leads with the batch."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        if jnp.shape(leaf)[: len(batch_shape)] != batch_shape:
            raise ValueError(
                f"beam_search: state{jax.tree_util.keystr(path)} has shape {jnp.shape(leaf)}; "
                f"expected it to lead with the batch of start, {batch_shape}"
            )


def _check_search(
    beam: int,
    max_length: int,
    stop: int | None,
    min_length: int,
    alpha: float | Array,
    penalty: str,
) -> None:
    """Refuse settings that describe no search."""
    checks.positive("beam_search: beam", beam)
    checks.positive("beam_search: max_length", max_length)
    checks.positive("beam_search: min_length", min_length)
    if min_length > max_length:
        raise ValueError(
            f"beam_search: min_length: expected at most the max_length of {max_length}, "
            f"got {min_length}"
        )
    if stop is not None:
        checks.size("beam_search: stop", stop)
    if checks.is_number(alpha):
        checks.not_negative("beam_search: alpha", alpha)
    checks.one_of("beam_search: penalty", penalty, PENALTIES)
