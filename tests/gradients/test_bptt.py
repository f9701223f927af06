import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import seqjax as sj
from seqjax.gradients import apply_gradient, bptt, whole_batch
from seqjax.losses import Mean


def squares(params, carry, batch, key):
    return jnp.sum((params * batch) ** 2), (carry + 1, {"count": Mean(1.0, 1.0)})


def test_the_gradient_is_that_of_jax_and_the_carry_leaves_as_data():
    gradient = bptt(squares)(jnp.array(3.0), jnp.array(5), jnp.array([1.0, 2.0]), None)
    assert float(gradient.grads) == 2 * 3.0 * (1 + 4)
    assert int(gradient.carry) == 6
    assert float(gradient.metrics["loss"].value) == 9.0 * 5
    assert set(gradient.metrics) == {"loss", "count"}


def test_a_loss_that_reports_its_own_loss_is_not_overruled():
    def loss(params, carry, batch, key):
        return jnp.sum(params), (carry, {"loss": Mean(jnp.array(7.0), jnp.array(1.0))})

    assert float(bptt(loss)(jnp.ones(2), None, None, None).metrics["loss"].value) == 7.0


@pytest.mark.parametrize("one", [2, 2.0, np.float32(2), np.array(2), jnp.array(2, jnp.bfloat16)])
def test_a_scalar_among_the_metrics_is_one_observation(one):
    loss = lambda params, carry, batch, key: (params * 1.0, (carry, {"one": one}))
    metrics = bptt(loss)(jnp.array(3.0), None, None, None).metrics
    assert [(float(m.total), float(m.count)) for m in metrics.values()] == [(3.0, 1.0), (2.0, 1.0)]
    assert jnp.result_type(metrics["one"].total) == jnp.float32
    windows = sj.accumulated_tbptt(2).gradient(loss)(jnp.array(3.0), None, jnp.ones(6), None)
    assert windows.metrics["one"] == Mean(6.0, 3.0)


def test_no_gradient_flows_through_the_carry_that_comes_in():
    """The state depends on params of an earlier call; its value counts, its history does not."""
    cell = sj.Elman(3)
    params = cell.init(jax.random.key(0), 2)
    xs = jax.random.normal(jax.random.key(1), (8, 2))

    def loss(params, carry, batch, key):
        state, ys = sj.unroll(cell, params, batch, carry)
        return jnp.sum(ys**2), (state, {})

    first = bptt(loss)(params, cell.initial_state(params), xs[:4], None)
    second = bptt(loss)(params, first.carry, xs[4:], None)
    frozen = jax.tree.map(lambda s: jnp.asarray(np.asarray(s)), first.carry)
    alone = jax.grad(lambda p: loss(p, frozen, xs[4:], None)[0])(params)
    np.testing.assert_array_equal(second.grads.recurrent_kernel, alone.recurrent_kernel)


@pytest.mark.usefixtures("standard_promotion")
def test_whole_batch_is_one_gradient_and_one_update():
    optimizer = optax.sgd(0.1)
    params = jnp.array(3.0)
    batch = jnp.array([1.0, 2.0])
    once = apply_gradient(bptt(squares), optimizer)(
        params, optimizer.init(params), jnp.array(0), batch, None
    )
    result = whole_batch(squares, optimizer)(
        params, optimizer.init(params), jnp.array(0), batch, None
    )
    assert float(result.params) == float(once.params) == pytest.approx(3.0 - 0.1 * 30)
    assert result.metrics["loss"].value.shape == (1,)
