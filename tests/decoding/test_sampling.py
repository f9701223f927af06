import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqjax.decoding import sample
from seqjax.decoding.sampling import keep_top_p

P = np.array([0.5, 0.25, 0.15, 0.1])
LOGITS = jnp.log(jnp.array(P, jnp.float32))


def frequencies(logits=LOGITS, **options):
    keys = jax.random.split(jax.random.key(0), 20_000)
    drawn = jax.vmap(lambda k: sample(k, logits, **options))(keys)
    return np.bincount(np.asarray(drawn), minlength=4) / len(keys)


def test_samples_follow_the_softmax():
    np.testing.assert_allclose(frequencies(), P, atol=0.015)


def test_temperature_sharpens():
    sharp = P**2 / (P**2).sum()
    np.testing.assert_allclose(frequencies(temperature=0.5), sharp, atol=0.015)


def test_greedy_is_the_likeliest():
    np.testing.assert_array_equal(frequencies(temperature=0.0), [1, 0, 0, 0])


def test_top_k_keeps_k_and_renormalises():
    np.testing.assert_allclose(frequencies(top_k=2), [2 / 3, 1 / 3, 0, 0], atol=0.015)
    np.testing.assert_allclose(frequencies(top_k=99), P, atol=0.015)
    np.testing.assert_allclose(frequencies(top_p=1.0), P, atol=0.015)


def test_top_p_keeps_the_smallest_set_that_reaches_p():
    kept = lambda p: np.isfinite(np.asarray(keep_top_p(LOGITS, p))).tolist()
    assert kept(0.4) == [True, False, False, False]
    assert kept(0.6) == [True, True, False, False]
    assert kept(0.8) == [True, True, True, False]
    assert kept(1.0) == [True, True, True, True]
    assert kept(1e-9) == [True, False, False, False]


def test_top_p_finds_the_set_in_any_order():
    order = jnp.array([2, 0, 3, 1])
    np.testing.assert_allclose(
        frequencies(LOGITS[order], top_p=0.6), [0, 2 / 3, 0, 1 / 3], atol=0.015
    )


def test_top_p_counts_among_what_top_k_leaves():
    # 0.5, 0.25 and 0.15 of 0.9: the first two hold 0.83 of them.
    found = frequencies(top_k=3, top_p=0.8)
    np.testing.assert_allclose(found, [2 / 3, 1 / 3, 0, 0], atol=0.015)


def test_top_k_keeps_k_tokens_of_ties_those_of_smaller_number():
    found = frequencies(jnp.array([1.0, 2.0, 1.0, 0.0]), top_k=2)
    assert np.flatnonzero(found).tolist() == [0, 1]


@pytest.mark.parametrize("options", [{}, {"top_k": 3}, {"top_p": 0.8}, {"top_k": 3, "top_p": 0.8}])
def test_a_traced_temperature_draws_what_the_number_draws(options):
    key, logits = jax.random.key(3), jax.random.normal(jax.random.key(4), (50, 9))
    traced = jax.jit(lambda t: sample(key, logits, temperature=t, **options))
    for temperature in (0.0, 0.7, 1.0):
        expected = sample(key, logits, temperature=temperature, **options)
        np.testing.assert_array_equal(traced(temperature), expected)
        assert traced(temperature).dtype == jnp.int32
    at_once = jax.vmap(lambda t: sample(key, logits, temperature=t, **options))
    np.testing.assert_array_equal(at_once(jnp.array([0.0, 0.7]))[0], jnp.argmax(logits, axis=-1))
    np.testing.assert_array_equal(at_once(jnp.array([0.0, 0.7]))[1], traced(0.7))


def test_a_batch_draws_row_by_row():
    logits = jnp.stack([LOGITS, LOGITS[::-1]])
    assert sample(jax.random.key(0), logits, temperature=0.0).tolist() == [0, 3]


def test_narrow_logits_are_sampled_in_float32():
    narrow = jnp.array([1.0, 3.0, 2.0], jnp.float16)
    assert int(sample(jax.random.key(0), narrow, temperature=1e-5)) == 1
    flat = jnp.zeros(4000, jnp.bfloat16)
    keys = jax.random.split(jax.random.key(0), 2000)
    drawn = np.asarray(jax.vmap(lambda key: sample(key, flat))(keys))
    assert len(set(drawn.tolist())) > 1400  # 4000 · (1 - e^-½) = 1574 are expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -1.0}, "temperature: expected a number of at least 0"),
        ({"temperature": float("nan")}, "temperature: expected a number of at least 0"),
        ({"temperature": np.float32(-1)}, "temperature: expected a number of at least 0"),
        ({"top_k": 0}, "top_k: expected a positive integer, got 0"),
        ({"top_p": 0.0}, r"top_p: expected a probability in \(0, 1\]"),
        ({"top_p": 1.5}, r"top_p: expected a probability in \(0, 1\]"),
    ],
)
def test_settings_that_describe_no_distribution_are_refused(options, message, unchecked):
    with pytest.raises(ValueError, match=message):
        sample(jax.random.key(0), LOGITS, **options)
