import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seqjax as sj
from seqjax.decoding import decode


@pytest.fixture(scope="module")
def model():
    return sj.models.LanguageModel(vocabulary=6, cell=sj.LSTM(8), embedding=4)


@pytest.fixture(scope="module")
def params(model):
    return jax.tree.map(lambda p: 2 * p, model.init(jax.random.key(0)))


PROMPT = jnp.array([1, 4, 2])


def compiled() -> int:
    """How often generation has been compiled."""
    generate: Any = decode._generate
    return generate._cache_size()


def test_greedy_generation_is_the_loop_a_person_would_write(model, params):
    written = sj.generate(model, params, jax.random.key(0), PROMPT, 12, temperature=0.0)
    tokens = PROMPT.tolist()
    for _ in range(5):
        _, logits = model.apply(params, model.initial_state(params), jnp.array(tokens))
        tokens.append(int(jnp.argmax(logits[-1])))
    assert written.tokens[:5].tolist() == tokens[3:]
    assert int(written.lengths) == 12


def test_log_probs_are_those_that_score_gives(model, params):
    written = sj.generate(model, params, jax.random.key(1), PROMPT, 9, temperature=1.3)
    whole = jnp.concatenate([PROMPT, written.tokens])
    scored = sj.score(model, params, whole)
    np.testing.assert_allclose(written.log_probs, scored.log_probs[2:], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(scored.total, scored.log_probs.sum(), rtol=1e-6)


def test_streaming_gives_one_token_at_a_time_and_the_greedy_text(model, params):
    written = sj.generate(model, params, jax.random.key(0), PROMPT, 12, temperature=0.0)
    stream = sj.stream(model, params, jax.random.key(5), PROMPT, temperature=0.0)
    assert list(itertools.islice(stream, 12)) == written.tokens.tolist()


def test_the_same_key_gives_the_same_text_at_every_length_and_from_a_stream(model, params):
    long, short = (
        sj.generate(model, params, jax.random.key(4), PROMPT, n, temperature=1.2).tokens.tolist()
        for n in (20, 9)
    )
    stream = sj.stream(model, params, jax.random.key(4), PROMPT, temperature=1.2)
    assert short == long[:9]
    assert list(itertools.islice(stream, 20)) == long


def test_a_stop_token_ends_a_text(model, params):
    greedy = sj.generate(model, params, jax.random.key(0), PROMPT, 12, temperature=0.0)
    stop = int(greedy.tokens[0])
    written = sj.generate(model, params, jax.random.key(0), PROMPT, 12, temperature=0.0, stop=stop)
    assert int(written.lengths) == 1
    assert written.tokens.tolist() == [stop] + [0] * 11
    assert written.log_probs[1:].tolist() == [0.0] * 11
    assert list(
        sj.stream(model, params, jax.random.key(0), PROMPT, temperature=0.0, stop=stop)
    ) == [stop]


def test_each_sequence_of_a_batch_stops_by_itself(model, params):
    prompts = jnp.array([[1, 2, 3, 4], [0, 5, 1, 2]])
    written = sj.generate(model, params, jax.random.key(2), prompts, 30, stop=3)
    for lane in range(4):
        tokens, length = written.tokens[:, lane].tolist(), int(written.lengths[lane])
        assert 3 not in tokens[: length - 1]
        assert length == 30 or tokens[length - 1] == 3
        assert tokens[length:] == [0] * (30 - length)


def test_a_batch_of_greedy_texts_is_each_text_alone(model, params):
    prompts = jnp.array([[1, 2, 3], [0, 5, 1]])
    together = sj.generate(model, params, jax.random.key(0), prompts, 7, temperature=0.0).tokens
    for lane in range(3):
        alone = sj.generate(
            model, params, jax.random.key(0), prompts[:, lane], 7, temperature=0.0
        ).tokens
        assert together[:, lane].tolist() == alone.tolist()


def test_the_same_key_writes_the_same_text(model, params):
    a, b, c = (
        sj.generate(model, params, jax.random.key(seed), PROMPT, 20).tokens.tolist()
        for seed in (1, 1, 2)
    )
    assert a == b != c


def test_another_temperature_does_not_compile_again(model, params):
    options = {"top_k": 4}
    sj.generate(model, params, jax.random.key(0), PROMPT, 5, temperature=0.5, **options)
    before = compiled()
    equal = sj.models.LanguageModel(vocabulary=6, cell=sj.LSTM(8), embedding=4)
    for temperature in (0.0, 0.9, 1.7):
        sj.generate(equal, params, jax.random.key(0), PROMPT, 5, temperature=temperature, **options)
    assert compiled() == before


def test_top_p_cuts_a_text_as_it_cuts_one_draw(model, params):
    """So small a p leaves one token; another p does not compile again."""
    greedy = sj.generate(model, params, jax.random.key(0), PROMPT, 5, temperature=0.0).tokens
    narrow = sj.generate(model, params, jax.random.key(9), PROMPT, 5, top_p=1e-6).tokens
    assert narrow.tolist() == greedy.tolist()
    before = compiled()
    wide = sj.generate(model, params, jax.random.key(9), PROMPT, 5, top_p=1.0).tokens
    assert compiled() == before
    free = sj.generate(model, params, jax.random.key(9), PROMPT, 5, top_k=6).tokens
    assert wide.tolist() == free.tolist()  # both leave all six tokens
    streamed = sj.stream(model, params, jax.random.key(9), PROMPT, top_p=1e-6)
    assert list(itertools.islice(streamed, 5)) == greedy.tolist()


def test_score_is_the_log_probability_of_a_text(model, params):
    """Over all texts of two tokens that follow one, the probabilities sum to one."""
    texts = jnp.array([(3, a, b) for a in range(6) for b in range(6)]).T
    total = sj.score(model, params, texts).total
    np.testing.assert_allclose(jnp.exp(total).sum(), 1, rtol=1e-5)


def test_a_token_outside_the_vocabulary_has_no_probability(model, params):
    scored = sj.score(model, params, jnp.array([1, 2, 6]))
    assert np.isnan(float(scored.total))
    assert np.isfinite(float(scored.log_probs[0]))


@pytest.mark.parametrize("prompt", [jnp.zeros((0,), jnp.int32), jnp.zeros((3,)), jnp.array(1)])
def test_a_prompt_without_a_token_is_refused(model, params, prompt):
    with pytest.raises(ValueError, match="with at least one token"):
        sj.generate(model, params, jax.random.key(0), prompt, 3)
    with pytest.raises(ValueError, match="with at least one token"):
        sj.stream(model, params, jax.random.key(0), prompt)


def test_bad_settings_are_refused(model, params):
    key = jax.random.key(0)
    with pytest.raises(ValueError, match="generate: length: expected a positive integer"):
        sj.generate(model, params, key, PROMPT, 0)
    with pytest.raises(ValueError, match="top_k"):
        sj.generate(model, params, key, PROMPT, 3, top_k=-1)
    with pytest.raises(ValueError, match="expected one sequence"):
        sj.stream(model, params, key, PROMPT[:, None])
    with pytest.raises(ValueError, match="at least two tokens"):
        sj.score(model, params, jnp.array([1]))
