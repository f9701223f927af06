"""Attention against a NumPy loop over rows and steps, and what the padding must not do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqjax.models import AdditiveAttention, Attention, MultiplicativeAttention
from tests import oracles

pytestmark = pytest.mark.usefixtures("quick_compilation")

TIME, BATCH, MEMORY, QUERY = 4, 3, 5, 2
LENGTHS = np.array([4, 2, 0])


def score(attention, weights, q, m):
    """One number, from the equation of the paper."""
    if isinstance(attention, AdditiveAttention):
        W, U, v = weights
        return v @ np.tanh(W.T @ q + U.T @ m)
    (W,) = weights
    return (q @ W.T @ m) / (np.sqrt(len(q)) if attention.scaled else 1)


def by_hand(attention, weights, memory, query):
    """(contexts [batch, MEMORY], weights [time, batch]), one row and one step after the other."""
    contexts, alphas = np.zeros((BATCH, MEMORY)), np.zeros((TIME, BATCH))
    for row, length in enumerate(LENGTHS):
        steps = memory[:length, row]
        e = [np.exp(score(attention, weights, query[row], m)) for m in steps]
        for s, m in enumerate(steps):
            alphas[s, row] = e[s] / sum(e)
            contexts[row] += alphas[s, row] * m
    return contexts, alphas


ATTENTIONS = pytest.mark.parametrize(
    "attention",
    [
        AdditiveAttention(3, param_dtype=jnp.float64),
        MultiplicativeAttention(param_dtype=jnp.float64),
        MultiplicativeAttention(scaled=True, param_dtype=jnp.float64),
    ],
    ids=["additive", "multiplicative", "scaled"],
)


def drawn(attention):
    """The params, a memory and a query, in float64 NumPy."""
    params = attention.init(jax.random.key(0), QUERY, MEMORY)
    draw = np.random.default_rng(0)
    memory, query = draw.normal(size=(TIME, BATCH, MEMORY)), draw.normal(size=(BATCH, QUERY))
    return params, memory, query


def attend(attention, params, memory, query, lengths=LENGTHS):
    return attention.apply(params, attention.remember(params, memory, lengths), query)


def weigh(contexts, weights):
    """One number out of all results."""
    return (contexts**2).sum() + (weights**3).sum() + contexts[0, 0]


@ATTENTIONS
def test_values_and_gradients_are_those_of_the_equations(attention: Attention, x64):
    params, memory, query = drawn(attention)
    found = attend(attention, params, jnp.asarray(memory), jnp.asarray(query))
    weights = [np.asarray(w) for w in params]
    for ours, expected in zip(found, by_hand(attention, weights, memory, query), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-12, atol=1e-12)

    def of_arrays(*arrays):
        return weigh(*by_hand(attention, arrays[:-2], *arrays[-2:]))

    ours = jax.jit(jax.grad(lambda p, m, q: weigh(*attend(attention, p, m, q)), argnums=(0, 1, 2)))
    gradients = jax.tree.leaves(ours(params, jnp.asarray(memory), jnp.asarray(query)))
    expected = oracles.finite_differences(of_arrays, *weights, memory, query)
    for gradient, difference in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(gradient, difference, rtol=1e-6, atol=1e-8)


@ATTENTIONS
def test_padding_has_weight_0_and_no_gradient_whatever_it_holds(attention: Attention, x64):
    params, memory, query = drawn(attention)
    spoiled = np.where(np.arange(TIME)[:, None, None] < LENGTHS[:, None], memory, np.nan)

    @jax.jit
    def measure(params, memory, query):
        def loss(*arguments):
            contexts, weights = attend(attention, *arguments)
            return weigh(contexts, weights), (contexts, weights)

        return jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True)(params, memory, query)

    clean, again = (measure(params, jnp.asarray(m), jnp.asarray(query)) for m in (memory, spoiled))
    jax.tree.map(np.testing.assert_array_equal, clean, again)
    (_, (contexts, weights)), (_, of_memory, of_query) = again
    padding = np.arange(TIME)[:, None] >= LENGTHS
    assert np.all(np.asarray(weights)[padding] == 0)
    assert np.all(np.asarray(of_memory)[padding] == 0)
    # Nothing to attend to: context 0, and no gradient.
    np.testing.assert_array_equal(contexts[2], np.zeros(MEMORY))
    np.testing.assert_array_equal(of_query[2], np.zeros(QUERY))


@ATTENTIONS
def test_the_memory_is_projected_once_for_all_queries(attention: Attention, x64):
    params, memory, query = drawn(attention)
    remembered = attention.remember(params, jnp.asarray(memory), LENGTHS)
    apply = lambda p: weigh(*attention.apply(p, remembered, jnp.asarray(query)))
    gradient = jax.jit(jax.grad(apply))(params)
    kernels = {"memory_kernel", "kernel"} & set(gradient._fields)
    assert len(kernels) == 1
    assert np.all(np.asarray(getattr(gradient, kernels.pop())) == 0)


@ATTENTIONS
def test_many_queries_by_vmap_are_each_query_alone(attention: Attention, x64):
    params, memory, _ = drawn(attention)
    remembered = attention.remember(params, jnp.asarray(memory), LENGTHS)
    queries = jax.random.normal(jax.random.key(1), (6, BATCH, QUERY), jnp.float64)
    apply = lambda query: attention.apply(params, remembered, query)
    contexts, weights = jax.vmap(apply)(queries)
    for i, query in enumerate(queries):
        context, alphas = apply(query)
        np.testing.assert_allclose(contexts[i], context, rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(weights[i], alphas, rtol=1e-12, atol=1e-14)


@pytest.mark.peer
def test_the_scaled_score_is_that_of_pytorch(x64):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    attention = MultiplicativeAttention(scaled=True, param_dtype=jnp.float64)
    params, memory, query = drawn(attention)
    lengths = np.array([4, 2, 1])  # of no steps PyTorch gives NaN
    ours, _ = attend(attention, params, jnp.asarray(memory), jnp.asarray(query), lengths)
    values = torch.as_tensor(memory.swapaxes(0, 1).copy())
    keys = values @ torch.as_tensor(np.array(params.kernel))
    mask = torch.as_tensor(np.arange(TIME)[None, None] < lengths[:, None, None])
    theirs = torch.nn.functional.scaled_dot_product_attention(
        torch.as_tensor(query)[:, None], keys, values, attn_mask=mask
    )
    np.testing.assert_allclose(ours, theirs[:, 0].numpy(), rtol=1e-12)


def test_scores_as_large_as_they_come_neither_overflow_nor_move_the_weights(x64):
    attention = MultiplicativeAttention(param_dtype=jnp.float64)
    params = attention.init(jax.random.key(0), 1, 1)._replace(kernel=jnp.ones((1, 1)))
    memory = jnp.array([1e6, 1e6 + 1, -1e6])[:, None, None]
    _, weights = attention.apply(params, attention.remember(params, memory), jnp.ones((1, 1)))
    near = 1 / (1 + np.e)
    np.testing.assert_allclose(weights[:, 0], [near, 1 - near, 0], rtol=1e-9)


@pytest.mark.parametrize("batch", [(), (2, 3)], ids=str)
def test_any_batch_axes_and_none(batch):
    attention = AdditiveAttention(3)
    params = attention.init(jax.random.key(0), QUERY, MEMORY)
    memory = jax.random.normal(jax.random.key(1), (TIME, *batch, MEMORY))
    query = jax.random.normal(jax.random.key(2), (*batch, QUERY))
    lengths = np.full(batch, 3, np.int8)
    context, weights = attend(attention, params, memory, query, lengths)
    index = (1,) * len(batch)
    at = (slice(None), *index)
    one, alphas = attend(attention, params, memory[at], query[index], np.array(3))
    np.testing.assert_allclose(context[index], one, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(weights[at], alphas, rtol=1e-5, atol=1e-7)


def test_bfloat16_scores_keep_weights_and_context_in_float32():
    wide, narrow = AdditiveAttention(3), AdditiveAttention(3, dtype=jnp.bfloat16)
    params = wide.init(jax.random.key(0), QUERY, MEMORY)
    memory = jax.random.normal(jax.random.key(1), (TIME, BATCH, MEMORY))
    query = jax.random.normal(jax.random.key(2), (BATCH, QUERY))
    exact, _ = attend(wide, params, memory, query)
    coarse, weights = attend(narrow, params, memory, query)
    assert coarse.dtype == weights.dtype == jnp.float32
    np.testing.assert_allclose(coarse, exact, atol=0.02)
    np.testing.assert_allclose(weights.sum(axis=0), [1, 1, 0], rtol=1e-6)


@pytest.mark.usefixtures("unchecked")
def test_bad_input_is_named():
    attention = AdditiveAttention(3)
    params = attention.init(jax.random.key(0), QUERY, MEMORY)
    memory = jnp.ones((TIME, BATCH, MEMORY))
    with pytest.raises(
        ValueError, match=r"Attention: lengths: got int32\[2\]; expected int\[\*batch\]"
    ):
        attention.remember(params, memory, jnp.array([1, 2]))
    with pytest.raises(ValueError, match=r"lengths: got float32\[3\]"):
        attention.remember(params, memory, jnp.ones(3))
    with pytest.raises(
        ValueError, match=r"AdditiveAttention: memory has shape .*; expected .* 5\]"
    ):
        attention.remember(params, memory[..., :2])
    with pytest.raises(ValueError, match=r"AdditiveAttention: query has shape .*; expected .* 2\]"):
        attention.apply(params, attention.remember(params, memory), jnp.ones((BATCH, 4)))
    with pytest.raises(ValueError, match="AdditiveAttention: units: expected a positive integer"):
        AdditiveAttention(0)
