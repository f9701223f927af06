"""The continuous cache: against a loop over pairs in NumPy, in windows, and token by token."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seqjax as sj
from seqjax.data import Batch

MODEL = sj.models.LanguageModel(vocabulary=7, cell=sj.GRU(5), embedding=4)
THETA, WEIGHT = 1.7, 0.3
outputs = jax.jit(MODEL.outputs)


def problem(batch_shape=(2,), time=11, size=4, seed=0):
    """A cache, its params, tokens [time + 1, *batch], and resets at a few places."""
    cache = sj.models.ContinuousCache(MODEL, size)
    params = cache.around(MODEL.init(jax.random.key(0)), THETA, WEIGHT)
    random = np.random.default_rng(seed)
    tokens = jnp.asarray(random.integers(7, size=(time + 1, *batch_shape)), jnp.int32)
    resets = jnp.asarray(random.random((time, *batch_shape)) < 0.2)
    return cache, params, tokens, resets


def batch_of(tokens, mask, resets):
    """A window, its targets -1 where they are not real."""
    targets = jnp.where(mask, tokens[1:], -1)
    return Batch(*map(np.asarray, (tokens[:-1], targets, mask, resets)))


def by_a_loop(params, tokens, size, resets=None, real=None):
    """p(w) of every word after each token of one sequence, pair by pair in float64."""
    resets = np.zeros(len(tokens), bool) if resets is None else np.asarray(resets)
    real = np.ones(len(tokens), bool) if real is None else np.asarray(real)
    _, hs = outputs(params.model, MODEL.initial_state(params.model), tokens, resets=resets)
    logits = np.asarray(MODEL.readout(params.model, hs), np.float64)
    hs, pairs, found = np.asarray(hs, np.float64), [], []
    for t, word in enumerate(np.asarray(tokens)):
        if resets[t]:
            pairs = []
        elif t > 0:
            pairs.append((hs[t - 1], word if real[t] else None))
        p = np.exp(logits[t] - logits[t].max())
        p /= p.sum()
        near = [(h, w) for h, w in pairs[-size:] if w is not None]
        if near:
            a = np.array([np.exp(THETA * hs[t] @ h) for h, _ in near])
            q = np.zeros_like(p)
            for share, (_, w) in zip(a / a.sum(), near, strict=True):
                q[w] += share
            p = (1 - WEIGHT) * p + WEIGHT * q
        found.append(p)
    return np.array(found)


def in_windows(cache, params, batch, cuts):
    """The mean loss over windows that are cut there, with the state carried."""
    carry = cache.initial_state(params, batch.inputs.shape[1:])
    loss = jax.jit(cache.loss)
    total = losses = 0.0
    for a, b in zip([0, *cuts], [*cuts, len(batch.inputs)], strict=True):
        window = Batch(*(field[a:b] for field in batch))
        _, (carry, metrics) = loss(params, carry, window, None)
        total, losses = total + metrics["nats"].count, losses + metrics["nats"].total
    return losses / total


@pytest.mark.parametrize("size", [1, 4, 100])
@pytest.mark.parametrize("cuts", [(), pytest.param((1,), marks=pytest.mark.full), (3, 4, 9)])
def test_the_loss_is_a_loop_over_pairs_however_it_is_cut(size, cuts):
    cache, params, tokens, resets = problem(size=size)
    mask = jnp.ones(resets.shape, bool)
    batch = batch_of(tokens, mask, resets)
    expected = [
        -np.log(by_a_loop(params, tokens[:-1, b], size, resets[:, b])[t, tokens[t + 1, b]])
        for b in range(2)
        for t in range(len(resets))
    ]
    np.testing.assert_allclose(in_windows(cache, params, batch, cuts), np.mean(expected), rtol=1e-5)


def test_padding_is_no_pair_and_does_not_count():
    cache, params, tokens, resets = problem(batch_shape=(), size=100)
    mask = jnp.arange(len(resets)) % 3 > 0
    batch = batch_of(tokens, mask, resets)
    found = in_windows(cache, params, batch, (4,))
    p = by_a_loop(params, tokens[:-1], 100, resets, mask)
    expected = [-np.log(p[t, tokens[t + 1]]) for t in np.flatnonzero(mask)]
    np.testing.assert_allclose(found, np.mean(expected), rtol=1e-5)


@pytest.mark.parametrize("batch_shape", [(), pytest.param((1,), marks=pytest.mark.full), (2, 3)])
@pytest.mark.parametrize("size", [1, 3, 50])
def test_token_by_token_it_is_the_same_loop(batch_shape, size):
    cache, params, tokens, _ = problem(batch_shape, size=size)
    state = cache.initial_state(params, batch_shape)
    after, log_p = jax.jit(cache.apply)(params, state, tokens)
    assert jax.tree.map(lambda a: (a.shape, a.dtype), after) == jax.tree.map(
        lambda a: (a.shape, a.dtype), state
    )
    flat = np.asarray(log_p).reshape(len(tokens), -1, 7)
    for row, words in enumerate(np.asarray(tokens).reshape(len(tokens), -1).T):
        expected = by_a_loop(params, jnp.asarray(words), size)
        np.testing.assert_allclose(np.exp(flat[:, row]), expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(np.exp(log_p).sum(-1), 1, rtol=1e-5)


def test_the_states_of_both_ways_go_on_alike():
    cache, params, tokens, _ = problem(size=4)
    state = cache.initial_state(params, (2,))
    ones, zeros = jnp.ones((11, 2), bool), jnp.zeros((11, 2), bool)
    _, (by_loss, _) = jax.jit(cache.loss)(params, state, batch_of(tokens, ones, zeros), None)
    by_steps, _ = jax.jit(cache.apply)(params, state, tokens[:-1])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), by_loss, by_steps)


def test_without_weight_it_is_the_model():
    cache, params, tokens, _ = problem()
    params = cache.around(params.model, 1.0, 0.0)
    alone = sj.score(MODEL, params.model, tokens)
    np.testing.assert_allclose(
        sj.score(cache, params, tokens).log_probs, alone.log_probs, rtol=1e-5
    )


def test_a_text_that_repeats_itself_is_likelier_with_a_cache():
    cache = sj.models.ContinuousCache(MODEL, 50)
    params = cache.around(MODEL.init(jax.random.key(0)), 10.0, 0.5)
    tokens = jnp.tile(jnp.array([3, 1, 4, 1, 5, 2, 6]), 8)
    assert sj.score(cache, params, tokens).total > sj.score(MODEL, params.model, tokens).total + 10


def test_a_search_over_both_numbers_is_one_program():
    cache, params, tokens, _ = problem()
    grid = jnp.array([0.0, 1.7, 3.0]), jnp.array([0.1, 0.3, 0.9])
    total = lambda theta, weight: (
        sj.score(cache, cache.around(params.model, theta, weight), tokens).total
    )
    found = jax.vmap(total)(*grid)
    np.testing.assert_allclose(found[1], sj.score(cache, params, tokens).total, rtol=1e-5)
    assert len(set(np.asarray(found[:, 0]).tolist())) == 3


def test_it_writes():
    cache, params, tokens, _ = problem(batch_shape=())
    written = sj.generate(cache, params, jax.random.key(1), tokens, 6)
    assert written.tokens.shape == (6,)
    assert set(np.asarray(written.tokens).tolist()) <= set(range(7))


def test_what_makes_no_cache_is_refused():
    cache, params, tokens, resets = problem()
    with pytest.raises(ValueError, match="ContinuousCache: size"):
        sj.models.ContinuousCache(MODEL, 0)
    with pytest.raises(ValueError, match="sharpness: expected a number of at least 0, got -1"):
        cache.around(params.model, sharpness=-1)
    with pytest.raises(ValueError, match="ContinuousCache: weight"):
        cache.around(params.model, weight=1.0)
    batch = batch_of(tokens, jnp.ones(resets.shape, bool), resets)
    with pytest.raises(ValueError, match="expected no key; train the model itself"):
        cache.loss(params, cache.initial_state(params, (2,)), batch, jax.random.key(0))
