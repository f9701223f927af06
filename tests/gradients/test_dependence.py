"""What an entry can depend on, read off the program: never less than what derivatives show."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seqjax._tree import from_vector, to_vector
from seqjax.gradients.dependence import dependence
from tests.contract.registry import IN_FEATURES, REGISTRY
from tests.gradients.test_rtrl import CAUSAL

pytestmark = pytest.mark.usefixtures("quick_compilation")

VECTOR = jax.ShapeDtypeStruct((3,), jnp.float32)


def matrix(function, *vectors):
    """What is found, as one bool[out, in] for each vector."""
    rows = list(dependence(function, len(vectors), *vectors))
    found = [np.zeros((len(rows), vector.shape[0]), bool) for vector in vectors]
    for i, row in enumerate(rows):
        for mask, entries in zip(found, row, strict=True):
            mask[i, entries] = True
    return found


@pytest.mark.parametrize("name", CAUSAL)
def test_every_entry_that_a_derivative_shows_is_found(name, key):
    cell = REGISTRY[name].build(jnp.float32, None)
    params = cell.init(key, IN_FEATURES)
    state = cell.initial_state(params, key=key)
    theta, s, x = to_vector(params), to_vector(state), jnp.ones(IN_FEATURES)

    def step(s, theta):
        after, _ = cell.step(from_vector(params, theta), from_vector(state, s), x)
        return to_vector(after)

    found = matrix(step, s, theta)
    shown = jax.jit(jax.jacrev(step, (0, 1)))(s + 0.3, theta + 0.1)
    for mask, derivative in zip(found, shown, strict=True):
        assert not np.any((np.asarray(derivative) != 0) & ~mask)
    if REGISTRY[name].mixing == "elementwise":  # and hardly more: of an sLSTM four states of a unit
        assert found[0].sum(axis=1).max() <= 4


def test_moves_of_entries_are_followed():
    def moved(v):
        a, b = jnp.split(jnp.concatenate([v[::-1], v[1:]]), [2])
        table = jnp.broadcast_to(a[:, None], (2, 3)).T.reshape(6)
        return jnp.concatenate([table[:2], b[:1], jnp.sum(v[:2], keepdims=True)])

    rows = [[2], [1], [0], [0, 1]]
    expected = np.array([[j in row for j in range(3)] for row in rows])
    np.testing.assert_array_equal(matrix(moved, VECTOR)[0], expected)


@pytest.mark.parametrize("dims", [(((1,), (0,)), ((), ())), (((0,), (1,)), ((2,), (2,)))], ids=str)
def test_products_of_tensors_are_followed(dims):
    """Against derivatives at positive numbers, where no two terms can cancel."""
    shape = (2, 3) if not dims[1][0] else (2, 3, 2)
    other = (3, 2) if not dims[1][0] else (3, 2, 2)
    vectors = [jax.ShapeDtypeStruct((np.prod(s),), jnp.float32) for s in (shape, other)]

    def product(a, b):
        return jax.lax.dot_general(a.reshape(shape), b.reshape(other), dims).ravel()

    shown = jax.jacrev(product, (0, 1))(*(jnp.ones(v.shape) for v in vectors))
    for mask, derivative in zip(matrix(product, *vectors), shown, strict=True):
        np.testing.assert_array_equal(mask, np.asarray(derivative) != 0)


def test_values_hide_nothing():
    """A zero factor, a dead relu, a branch that is not taken and a difference that cancels."""
    for function in (
        lambda v: 0.0 * v,
        lambda v: jax.nn.relu(v - 100.0),
        lambda v: jnp.where(v > 100.0, v, 0.0),
        lambda v: v - v,
    ):
        np.testing.assert_array_equal(matrix(function, VECTOR)[0], np.eye(3, dtype=bool))
    fixed = jax.lax.stop_gradient
    assert not np.any(matrix(lambda v: fixed(v) + jnp.round(v), VECTOR)[0])


def test_what_has_no_rule_depends_on_everything():
    def looped(v):
        return jax.lax.fori_loop(0, 2, lambda i, v: 2.0 * v, v)

    for function in (jnp.cumsum, jnp.sort, looped):
        assert np.all(matrix(function, VECTOR)[0])


def test_derivatives_of_ones_own_count_as_they_are_written():
    @jax.custom_jvp
    def straight_through(v):
        return jnp.round(v)

    straight_through.defjvp(lambda v, dv: (jnp.round(v[0]), dv[0]))
    np.testing.assert_array_equal(matrix(straight_through, VECTOR)[0], np.eye(3, dtype=bool))

    @jax.custom_vjp
    def backward_only(v):
        return v

    backward_only.defvjp(lambda v: (v, None), lambda _, dv: (dv,))
    assert np.all(matrix(backward_only, VECTOR)[0])
