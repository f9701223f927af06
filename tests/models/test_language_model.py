import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seqjax as sj
from seqjax.data import Batch
from seqjax.gradients import bptt

VOCABULARY = 7


def make(**options):
    options = {"cell": sj.GRU(5), "embedding": 3} | options
    model = sj.models.LanguageModel(VOCABULARY, **options)
    return model, model.init(jax.random.key(0))


def batch_of(time=6, lanes=2):
    draw = np.random.default_rng(1)
    inputs, targets = draw.integers(VOCABULARY, size=(2, time, lanes), dtype=np.int32)
    mask = np.ones((time, lanes), bool)
    mask[-2:, -1] = False
    return Batch(inputs, targets, mask, np.zeros((time, lanes), bool))


def test_apply_is_embedding_cell_readout():
    model, params = make()
    tokens = jnp.array([1, 6, 0, 2])
    state, logits = model.apply(params, model.initial_state(params), tokens)
    inner, ys = sj.unroll(model.cell, params.cell, params.embedding[tokens])
    np.testing.assert_allclose(
        logits,
        np.asarray(ys) @ np.asarray(params.readout.kernel) + params.readout.bias[None],
        rtol=1e-5,
        atol=1e-6,
    )
    chex.assert_trees_all_close(state, inner)


@pytest.mark.parametrize(
    "cell",
    [sj.LSTM(5), sj.Stack((sj.GRU(4), sj.Residual(sj.Dropout(sj.Elman(4), 0.5)))), sj.IRNN(5)],
    ids=["lstm", "stack", "irnn"],
)
def test_step_by_step_gives_the_logits_of_apply(cell):
    model, params = make(cell=cell)
    tokens = jnp.array([[1, 2], [3, 4], [0, 6]])
    start = model.initial_state(params, (2,))
    _, logits = model.apply(params, start, tokens)
    state = start
    for token, expected in zip(tokens, logits, strict=True):
        state, stepped = model.step(params, state, token)
        np.testing.assert_allclose(stepped, expected, rtol=1e-5, atol=1e-6)


def test_the_loss_is_the_mean_over_real_tokens():
    model, params = make()
    batch = batch_of()
    state = model.initial_state(params, (2,))
    value, (carry, metrics) = model.loss(params, state, batch, None)
    _, logits = model.apply(params, state, batch.inputs)
    log_p = np.asarray(jax.nn.log_softmax(logits), np.float64)
    picked = np.take_along_axis(log_p, np.asarray(batch.targets)[..., None], -1)[..., 0]
    mask = np.asarray(batch.mask)
    np.testing.assert_allclose(value, -picked[mask].mean(), rtol=1e-5)
    assert float(metrics["nats"].count) == mask.sum() == 10
    right = np.asarray(logits).argmax(-1) == np.asarray(batch.targets)
    np.testing.assert_allclose(metrics["accuracy"].value, right[mask].mean(), rtol=1e-6)
    assert carry.h.shape == (2, 5)


def test_a_model_that_knows_nothing_is_near_the_uniform_loss():
    model, params = make()
    value, _ = model.loss(params, model.initial_state(params, (2,)), batch_of(40), None)
    assert abs(float(value) - np.log(VOCABULARY)) < 0.7


def test_tied_weights_share_the_embedding_in_value_and_gradient():
    model, params = make(tied=True, embedding=5)
    assert params.readout.kernel is None
    batch = batch_of()
    gradient = jax.jit(bptt(model.loss))(params, model.initial_state(params, (2,)), batch, None)
    untied = dataclasses.replace(model, tied=False)
    split = params._replace(readout=params.readout._replace(kernel=params.embedding.T))
    parts = jax.jit(bptt(untied.loss))(split, model.initial_state(params, (2,)), batch, None)
    np.testing.assert_allclose(
        gradient.grads.embedding,
        parts.grads.embedding + parts.grads.readout.kernel.T,
        rtol=1e-4,
        atol=1e-6,
    )


def test_dropout_acts_only_with_a_key():
    model, params = make(dropout=0.5, cell=sj.Dropout(sj.GRU(5), 0.5))
    tokens = jnp.arange(6)
    still = model.initial_state(params)
    _, first = model.apply(params, still, tokens)
    _, second = model.apply(params, still, tokens)
    np.testing.assert_array_equal(first, second)
    noisy = model.initial_state(params, key=jax.random.key(0))
    _, a = model.apply(params, noisy, tokens, key=jax.random.key(1))
    _, b = model.apply(params, noisy, tokens, key=jax.random.key(2))
    assert float(jnp.abs(a - b).max()) > 1e-3
    assert float(jnp.abs(a - first).max()) > 1e-3


def test_resets_begin_a_document():
    model, params = make()
    tokens = jnp.array([1, 2, 3, 4])
    resets = jnp.array([False, False, True, False])
    start = model.initial_state(params)
    _, logits = model.apply(params, start, tokens, resets=resets)
    _, alone = model.apply(params, start, tokens[2:])
    np.testing.assert_allclose(logits[2:], alone, rtol=1e-6)


def test_a_token_outside_the_vocabulary_is_nan_and_never_another_token():
    model, params = make()
    rows = model.embed(params, jnp.array([-1, VOCABULARY, 0]))
    assert np.isnan(np.asarray(rows[:2])).all()
    np.testing.assert_array_equal(rows[2], params.embedding[0])


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int16, np.int64])
def test_tokens_of_every_integer_dtype_mean_the_same(dtype):
    model = sj.models.LanguageModel(256, sj.GRU(3), 2)
    params = model.init(jax.random.key(0))
    tokens = np.array([0, 1, 100, 127])
    expected = np.asarray(params.embedding)[tokens]
    np.testing.assert_array_equal(model.embed(params, tokens.astype(dtype)), expected)


def test_bfloat16_compute_keeps_a_float32_state_and_stays_close():
    model, params = make(cell=sj.LSTM(8), embedding=4)
    half, _ = make(cell=sj.LSTM(8, dtype=jnp.bfloat16), embedding=4, dtype=jnp.bfloat16)
    tokens = jnp.arange(6)
    state, logits = model.apply(params, model.initial_state(params), tokens)
    low, coarse = half.apply(params, half.initial_state(params), tokens)
    assert low.h.dtype == low.c.dtype == jnp.float32
    np.testing.assert_allclose(coarse.astype(jnp.float32), logits, atol=0.05)
    np.testing.assert_allclose(low.c, state.c, atol=0.05)


def test_a_second_call_never_traces_again():
    model, params = make()
    apply = jax.jit(chex.assert_max_traces(model.apply, n=1))
    for seed in range(3):
        apply(model.init(jax.random.key(seed)), model.initial_state(params), jnp.arange(5))


def test_tokens_that_are_no_integers_are_refused():
    model, params = make()
    with pytest.raises(ValueError, match="tokens are float32; expected integers"):
        model.apply(params, model.initial_state(params), jnp.ones(3))


def test_bad_hyperparameters_are_named():
    with pytest.raises(ValueError, match="vocabulary: expected a positive integer, got 0"):
        sj.models.LanguageModel(0, sj.GRU(5), 3)
    with pytest.raises(ValueError, match=r"dropout: expected a rate in"):
        make(dropout=1.0)
    with pytest.raises(ValueError, match=r"tied needs embedding equal .* got 3 and 5"):
        make(tied=True)
    with pytest.raises(ValueError, match=r"readout_init: expected one of .*'glorot'"):
        make(readout_init="gloriot")


def test_gradients_of_bfloat16_params_are_summed_in_float32():
    """E over all places of a token, V and b over all pieces of time, the cell over all steps."""
    model = sj.models.LanguageModel(3, sj.GRU(4, param_dtype=jnp.bfloat16), 2)
    params = jax.tree.map(lambda a: a.astype(jnp.bfloat16), model.init(jax.random.key(0)))
    tokens = np.random.default_rng(1).integers(3, size=(1001, 1), dtype=np.int32)
    batch = Batch(tokens[:-1], tokens[1:], np.ones((1000, 1), bool), np.zeros((1000, 1), bool))

    def gradient(model, params):
        carry = model.initial_state(params, (1,))
        return jax.jit(jax.grad(lambda params: model.loss(params, carry, batch, key=None)[0]))(
            params
        )

    exact = gradient(
        dataclasses.replace(model, cell=sj.GRU(4)),
        jax.tree.map(lambda a: a.astype(jnp.float32), params),
    )
    for narrow, wide in zip(
        jax.tree.leaves(gradient(model, params)), jax.tree.leaves(exact), strict=True
    ):
        assert narrow.dtype == jnp.bfloat16
        error = np.linalg.norm(np.asarray(narrow, np.float32) - wide) / np.linalg.norm(wide)
        assert error < 0.05


def test_dropped_recurrent_weights_are_the_same_ones_in_a_whole_window():
    """One call is a run of the cell whose kernels were thinned once, and whose others stayed."""
    model, params = make(cell=sj.Stack((sj.LSTM(5), sj.GRU(4))), weight_drop=0.5)
    key, batch = jax.random.key(3), batch_of()
    thinned = params._replace(cell=sj.drop_weights(params.cell, jax.random.fold_in(key, 3), 0.5))
    state = model.initial_state(params, (2,))
    _, dropped = model.apply(params, state, batch.inputs, key=key)
    _, expected = model.apply(thinned, state, batch.inputs)
    np.testing.assert_allclose(dropped, expected, rtol=1e-6)
    gradient = jax.jit(jax.grad(lambda p: model.loss(p, state, batch, key)[0]))(params)
    kernels = zip(jax.tree.leaves(gradient.cell), jax.tree.leaves(thinned.cell), strict=True)
    zeros = [(np.asarray(g)[np.asarray(w) == 0], w) for g, w in kernels if w.ndim == 2]
    assert all(not np.any(g) for g, _ in zeros)
    assert sum(g.size for g, _ in zeros) > 40  # about half of 5·20 + 4·12 recurrent entries


def test_weights_are_whole_without_a_key():
    model, params = make(weight_drop=0.5)
    plain, _ = make()
    state, batch = model.initial_state(params, (2,)), batch_of()
    assert model.loss(params, state, batch, None)[0] == plain.loss(params, state, batch, None)[0]
