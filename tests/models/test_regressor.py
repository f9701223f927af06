"""Many to one and to many numbers: by hand, with the last value, and over padding."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seqjax as sj
from seqjax.data import Example, pad

pytestmark = pytest.mark.usefixtures("quick_compilation")

DRAW = np.random.default_rng(0)
EXAMPLES = [Example(DRAW.standard_normal((n, 3)), DRAW.standard_normal((2, 2))) for n in (5, 1, 3)]


def make(cell: sj.Cell | None = None, **options: Any):
    options = {"outputs": 2, "horizon": 2} | options
    cell = sj.GRU(4) if cell is None else cell
    model = sj.models.Regressor(sj.models.Vectors(3), cell, **options)
    return model, model.init(jax.random.key(0))


def by_hand(model, params, xs):
    """The predictions [horizon, outputs] for one series by itself."""
    _, ys = sj.unroll(model.cell, params.cell, jnp.asarray(xs, jnp.float32))
    ys, readout = np.asarray(ys), jax.tree.map(np.asarray, params.readout)
    v = {"last": ys[-1], "mean": ys.mean(axis=0), "max": ys.max(axis=0)}[model.pool]
    found = (v @ readout.kernel + readout.bias).reshape(-1, model.outputs)
    return found if model.last is None else found + np.asarray(xs)[-1][list(model.last)]


@pytest.mark.parametrize("pool", ["last", "mean", "max"])
@pytest.mark.parametrize("last", [None, (2, 0)])
def test_each_series_is_predicted_as_if_it_were_alone(pool, last):
    model, params = make(pool=pool, last=last)
    batch = pad(EXAMPLES, time=6, rows=4, target_time=2)
    found = model.apply(params, batch.inputs, batch.lengths)
    for row, example in enumerate(EXAMPLES):
        expected = by_hand(model, params, example.inputs)
        np.testing.assert_allclose(found[:, row], expected, rtol=1e-5, atol=1e-6)


def test_the_loss_is_the_mean_squared_error_of_real_rows():
    model, params = make()
    value, (_, metrics) = model.loss(params, None, pad(EXAMPLES, 6, 5, target_time=2), None)
    errors = np.stack([by_hand(model, params, e.inputs) - e.targets for e in EXAMPLES])
    np.testing.assert_allclose(value, np.mean(errors**2), rtol=1e-5)
    np.testing.assert_allclose(metrics["mse"].value, np.mean(errors**2), rtol=1e-5)
    np.testing.assert_allclose(metrics["mae"].value, np.mean(np.abs(errors)), rtol=1e-5)
    assert float(metrics["mse"].count) == errors.size


def test_padding_changes_no_gradient():
    model, params = make(sj.Bidirectional(sj.GRU(2), sj.LSTM(3)), pool="max", last=(0, 1))
    gradient = jax.jit(jax.grad(lambda p, batch: model.loss(p, None, batch, None)[0]))
    tight = gradient(params, pad(EXAMPLES, 5, 3, target_time=2))
    loose = gradient(params, pad(EXAMPLES, 9, 6, target_time=2))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-7), loose, tight)


def test_a_readout_of_zero_repeats_the_last_value():
    model, params = make(outputs=3, horizon=4, last=(0, 1, 2))
    params = params._replace(readout=jax.tree.map(jnp.zeros_like, params.readout))
    xs = jnp.asarray(EXAMPLES[0].inputs, jnp.float32)
    np.testing.assert_array_equal(model.apply(params, xs), np.repeat(xs[-1:], 4, axis=0))


def test_one_number_for_a_whole_sequence():
    model, params = make(outputs=1, horizon=None)
    numbers = [Example(e.inputs, float(i)) for i, e in enumerate(EXAMPLES)]
    value, _ = model.loss(params, None, pad(numbers, time=5, rows=4), None)
    errors = [by_hand(model, params, e.inputs)[0, 0] - e.targets for e in numbers]
    np.testing.assert_allclose(value, np.mean(np.square(errors)), rtol=1e-5)
    assert model.apply(params, jnp.ones((4, 2, 3))).shape == (2, 1)


def test_noise_is_there_with_a_key_only():
    model, params = make(dropout=0.5)
    xs = jnp.asarray(EXAMPLES[0].inputs, jnp.float32)
    apply = lambda key: np.asarray(model.apply(params, xs, key=key))
    np.testing.assert_array_equal(apply(None), apply(None))
    assert not np.allclose(apply(jax.random.key(1)), apply(jax.random.key(2)))


@pytest.mark.usefixtures("unchecked")
def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"last: expected a tuple of 2 columns, .* got \(0,\)"):
        make(last=(0,))
    with pytest.raises(ValueError, match="last: expected columns below 3, got 3"):
        make(last=(0, 3))
    with pytest.raises(ValueError, match="horizon: expected a positive integer, got 0"):
        make(horizon=0)
    model, params = make()
    with pytest.raises(ValueError, match=r"targets has shape \(6, 4, 2\); expected \(2, 4, 2\)"):
        model.loss(params, None, pad(EXAMPLES, time=6, rows=4), None)
