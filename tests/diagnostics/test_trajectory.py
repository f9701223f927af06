"""The run that is looked at is that of unroll, and the first state that is not finite is found."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seqjax as sj
from seqjax.diagnostics.products import norm, norms
from seqjax.diagnostics.trajectory import evenly, first_non_finite, walk

pytestmark = pytest.mark.usefixtures("quick_compilation")


def stack():
    return sj.Stack((sj.GRU(3), sj.LSTM(2)))


def run(cell, xs, params=None, **options):
    params = cell.init(jax.random.key(1), 2) if params is None else params
    return walk("test", cell, params, xs, options.get("state"), options.get("key"))


def inputs(*shape):
    return jnp.asarray(np.random.RandomState(0).standard_normal((*shape, 2)), jnp.float32)


def test_the_run_is_that_of_unroll_with_its_noise_and_its_rows_in_order(key):
    cell = sj.Zoneout(sj.GRU(3), rate=0.5)
    xs = inputs(5, 2, 3)
    path = run(cell, xs, key=key)
    params = cell.init(jax.random.key(1), 2)
    state, ys = sj.unroll(cell, params, xs, key=key)
    # The same operations in two programs, in float32.
    np.testing.assert_allclose(path.ys.reshape(5, 2, 3, 3), ys, atol=1e-6)
    np.testing.assert_allclose(path.after.cell.h[-1], state.cell.h.reshape(6, 3), atol=1e-6)
    np.testing.assert_array_equal(path.before.cell.h[1:], path.after.cell.h[:-1])
    np.testing.assert_array_equal(path.before.cell.h[0], path.start.cell.h)
    assert path.entries == 3
    few = path.take_rows(np.array([1, 4]))
    np.testing.assert_array_equal(few.after.cell.h, path.after.cell.h[:, np.array([1, 4])])
    np.testing.assert_array_equal(few.start.cell.h, path.start.cell.h[np.array([1, 4])])


def test_a_finite_run_has_no_first_non_finite_state():
    assert first_non_finite(run(stack(), inputs(4, 2))) is None


def test_the_first_non_finite_state_is_told_by_step_leaf_and_row():
    xs = inputs(6, 2, 3).at[4, 0, 1].set(jnp.inf).at[2, 1, 2].set(jnp.nan)
    found = first_non_finite(run(stack(), xs))
    assert found is not None
    assert found.step == 2
    assert found.row == (1, 2)
    assert found.leaves == ("state.layers[0].h", "state.layers[1].h", "state.layers[1].c")
    assert str(found).endswith(
        "state.layers[1].c are not finite after step 2, row 1, 2 of the batch"
    )


def test_of_several_leaves_only_those_that_are_not_finite_are_named():
    cell = stack()
    params = cell.init(jax.random.key(1), 2)
    gru, lstm = params.layers
    params = params._replace(layers=(gru, lstm._replace(bias=lstm.bias.at[0].set(jnp.nan))))
    found = first_non_finite(run(cell, inputs(3), params))  # no batch, so no row
    assert found is not None
    assert str(found) == "state.layers[1].h and state.layers[1].c are not finite after step 0"


def test_a_state_that_comes_in_broken_is_told_as_such():
    cell = sj.LSTM(2)
    state = cell.initial_state(cell.init(jax.random.key(1), 2), (3,))
    state = state._replace(c=state.c.at[2, 1].set(jnp.inf))
    found = first_non_finite(run(cell, inputs(3, 3), state=state))
    assert str(found) == "state.c is not finite before the first step, row 2 of the batch"


@pytest.mark.parametrize(
    ("count", "most", "expected"),
    [(4, None, [0, 1, 2, 3]), (4, 9, [0, 1, 2, 3]), (10, 3, [2, 5, 9]), (5, 1, [4]), (0, 3, [])],
)
def test_a_sample_is_the_last_of_each_of_equal_parts(count, most, expected):
    assert list(evenly(count, most)) == expected


jitted = jax.jit(norms)


@pytest.mark.parametrize("size", [1e-36, 1e-30, 1e-15, 1e-10, 1.0, 1e15, 1e30, 1e37])
def test_norms_neither_overflow_nor_vanish_where_squares_do(size):
    x = np.random.RandomState(0).standard_normal((3, 4, 5))
    ours = norm(jnp.asarray(size * x, jnp.float32), (0, 2))
    np.testing.assert_allclose(ours, size * np.sqrt(np.sum(x**2, axis=(0, 2))), rtol=1e-6)
    leaves = {"a": jnp.asarray(size * x, jnp.float32), "b": jnp.ones(3), "c": jnp.zeros((0, 2))}
    expected = [size * np.linalg.norm(x), 3**0.5, 0]
    np.testing.assert_allclose(norms(leaves), expected, rtol=1e-6)
    np.testing.assert_allclose(jitted(leaves), expected, rtol=1e-6)


def test_norms_of_nothing_zero_and_infinity():
    assert norm(jnp.zeros((3,))) == 0
    # Of zeros that the compiler knows of, too.
    assert jax.jit(lambda: norm(jnp.zeros((3,))))() == 0
    assert jax.jit(lambda: norms([jnp.zeros((3,))]))() == jnp.zeros(1)
    assert norm(jnp.zeros((0,))) == 0
    assert norm(jnp.array([1.0, jnp.inf])) == jnp.inf
    assert jnp.isnan(norm(jnp.array([1.0, jnp.nan])))
