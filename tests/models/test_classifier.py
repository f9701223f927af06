"""Many to one: pooling by hand, and padding that changes nothing."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seqjax as sj
from seqjax.data import Example, pad

pytestmark = pytest.mark.usefixtures("quick_compilation")

BOTH = sj.Bidirectional(sj.GRU(3), sj.LSTM(2))
EXAMPLES = [Example([1, 4, 2, 2, 3], 1), Example([4], 0), Example([2, 3, 1], 2)]


def make(cell: sj.Cell = BOTH, pool: str = "max", **options: Any):
    inputs = options.pop("inputs", sj.models.Tokens(6, 4))
    model = sj.models.Classifier(inputs, cell, classes=3, pool=pool, **options)
    return model, model.init(jax.random.key(0))


def by_hand(model, params, tokens):
    """The logits of one sequence by itself, in NumPy after the cell."""
    _, ys = sj.unroll(model.cell, params.cell, params.inputs[np.array(tokens)])
    ys = np.asarray(ys, np.float64)
    if model.pool == "last":
        pooled = ys[-1] if model.cell.causal else np.concatenate([ys[-1], ys[0]])
    else:
        pooled = {"mean": ys.mean(axis=0), "max": ys.max(axis=0)}[model.pool]
    return pooled @ np.asarray(params.readout.kernel) + np.asarray(params.readout.bias)


@pytest.mark.parametrize("pool", ["last", "mean", "max"])
@pytest.mark.parametrize("cell", [BOTH, sj.Stack((sj.GRU(3), sj.Elman(4)))], ids=["both", "causal"])
def test_each_row_is_classified_as_if_it_were_alone(cell, pool):
    model, params = make(cell, pool)
    batch = pad(EXAMPLES, time=7, rows=4)
    logits = model.apply(params, batch.inputs, batch.lengths)
    expected = [by_hand(model, params, e.inputs) for e in EXAMPLES]
    np.testing.assert_allclose(logits[:3], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(logits[3], params.readout.bias)  # no steps: nothing to pool


@pytest.mark.parametrize("pool", ["last", "mean", "max"])
def test_padding_and_rows_that_are_not_real_change_neither_loss_nor_gradient(pool):
    model, params = make(pool=pool)
    measure = jax.jit(jax.value_and_grad(lambda p, batch: model.loss(p, None, batch, None)[0]))
    value, gradient = measure(params, pad(EXAMPLES, time=5, rows=3))
    padded = pad(EXAMPLES, time=9, rows=6)
    spoiled = np.where(np.arange(9)[:, None] < padded.lengths, padded.inputs, 5)
    again, same = measure(params, padded._replace(inputs=spoiled))
    np.testing.assert_allclose(again, value, rtol=1e-6)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-7), same, gradient
    )


def test_the_loss_is_the_mean_cross_entropy_and_counts_real_rows():
    model, params = make()
    batch = pad(EXAMPLES, time=5, rows=4)
    value, (_, metrics) = model.loss(params, None, batch, None)
    logits = np.stack([by_hand(model, params, e.inputs) for e in EXAMPLES])
    log_p = logits - np.log(np.sum(np.exp(logits), axis=-1, keepdims=True))
    labels = [e.targets for e in EXAMPLES]
    np.testing.assert_allclose(value, -np.mean(log_p[np.arange(3), labels]), rtol=1e-5)
    right = np.sum(np.argmax(logits, axis=-1) == labels)
    assert (float(metrics["accuracy"].total), float(metrics["accuracy"].count)) == (right, 3)


def test_smoothing_is_for_training_alone():
    model, params = make(label_smoothing=0.2)
    plain, _ = make()
    batch = pad(EXAMPLES, time=5, rows=3)
    evaluated = model.loss(params, None, batch, None)[0]
    np.testing.assert_allclose(evaluated, plain.loss(params, None, batch, None)[0], rtol=1e-6)
    trained, (_, metrics) = model.loss(params, None, batch, jax.random.key(0))
    expected = sj.losses.cross_entropy(
        model.apply(params, batch.inputs, batch.lengths),
        jnp.asarray(batch.targets),
        label_smoothing=0.2,
    )
    np.testing.assert_allclose(trained, expected, rtol=1e-5)
    np.testing.assert_allclose(metrics["nats"].value, evaluated, rtol=1e-5)


def test_noise_is_there_with_a_key_only():
    inputs = sj.models.Tokens(6, 4, dropout=0.5, token_dropout=0.5)
    model, params = make(sj.Dropout(sj.GRU(3), 0.5), "mean", inputs=inputs, dropout=0.5)
    batch = pad(EXAMPLES, time=5, rows=3)
    apply = lambda key: np.asarray(model.apply(params, batch.inputs, batch.lengths, key=key))
    np.testing.assert_array_equal(apply(None), apply(None))
    np.testing.assert_array_equal(apply(jax.random.key(1)), apply(jax.random.key(1)))
    assert not np.allclose(apply(jax.random.key(1)), apply(jax.random.key(2)))


def test_a_dropped_token_is_read_as_unknown():
    inputs = sj.models.Tokens(6, 4, token_dropout=0.3)
    table = inputs.init(jax.random.key(0))
    tokens = jnp.full((1000,), 3)
    rows = inputs.apply(table, tokens, jax.random.key(1))
    lost = np.all(np.asarray(rows) == np.asarray(table[1]), axis=-1)
    assert 0.25 < lost.mean() < 0.35
    np.testing.assert_array_equal(
        np.asarray(rows)[~lost], np.asarray(table)[np.full(sum(~lost), 3)]
    )


def test_vectors_are_read_as_they_are_without_a_batch_too():
    model, params = make(sj.GRU(3), "last", inputs=sj.models.Vectors(2))
    xs = jax.random.normal(jax.random.key(1), (5, 2))
    _, ys = sj.unroll(model.cell, params.cell, xs)
    expected = ys[-1] @ params.readout.kernel + params.readout.bias
    np.testing.assert_allclose(model.apply(params, xs), expected, rtol=1e-6)
    np.testing.assert_allclose(model.apply(params, xs[:, None])[0], expected, rtol=1e-5)


@pytest.mark.usefixtures("unchecked")
def test_bad_input_is_named():
    model, params = make(sj.GRU(3), "last", inputs=sj.models.Vectors(2))
    with pytest.raises(ValueError, match=r"Vectors: inputs has shape \(5, 3\); expected"):
        model.apply(params, jnp.ones((5, 3)))
    with pytest.raises(ValueError, match=r"Vectors: inputs are int32; .* For ids take Tokens"):
        model.apply(params, jnp.ones((5, 2), jnp.int32))
    with pytest.raises(ValueError, match="Tokens: tokens are float32; expected integers"):
        make()[0].apply(make()[1], jnp.ones((5, 2)))
    with pytest.raises(ValueError, match="Classifier: pool: expected one of 'last', 'mean', 'max'"):
        make(pool="sum")
    with pytest.raises(ValueError, match="Classifier: inputs: expected a Inputs, got 7"):
        make(inputs=7)


def test_a_second_batch_of_a_bucket_never_traces_again():
    model, params = make()
    traced = []

    @jax.jit
    def loss(params, batch):
        traced.append(batch.inputs.shape)
        return model.loss(params, None, batch, None)[0]

    for labels in ((1, 0, 2), (0, 0, 1)):
        examples = [e._replace(targets=y) for e, y in zip(EXAMPLES, labels, strict=True)]
        loss(params, pad(examples, time=5, rows=3))
    assert traced == [(5, 3)]
