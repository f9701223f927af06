"""A learned initial state: what is learned, where it begins, and where its gradient comes from."""

import dataclasses
import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seqjax as sj
from seqjax.cells.lstm import LSTMState
from seqjax.wrappers.learned_state import RealAndImaginary

pytestmark = pytest.mark.usefixtures("quick_compilation")

TIME, BATCH = 5, 3
STACK = sj.Stack((sj.LRU(2, state_features=4), sj.LSTM(3)))


def moved(params):
    """The params with a learned state that is not zero."""
    random = np.random.default_rng(0)
    state = jax.tree.map(
        lambda leaf: jnp.asarray(random.standard_normal(leaf.shape), leaf.dtype), params.state
    )
    return params._replace(state=state)


@pytest.fixture
def params(key):
    return moved(sj.LearnedState(STACK).init(key, 2))


@pytest.fixture
def xs():
    return jax.random.normal(jax.random.key(1), (TIME, BATCH, 2))


def test_it_starts_as_the_inner_cell_does(key, xs):
    cell = sj.LearnedState(STACK)
    params = cell.init(key, 2)
    for leaf in jax.tree.leaves(params.state):
        np.testing.assert_array_equal(leaf, np.zeros_like(leaf))
    np.testing.assert_array_equal(
        sj.unroll(cell, params, xs)[1], sj.unroll(STACK, params.cell, xs)[1]
    )


def test_every_row_starts_from_it_and_a_state_that_is_given_takes_its_place(params, xs):
    cell = sj.LearnedState(STACK)
    lru, lstm = params.state.layers
    state = cell.initial_state(params, (BATCH,))
    for row in range(BATCH):
        np.testing.assert_array_equal(state.layers[0].h[row].real, lru.h.real)
        np.testing.assert_array_equal(state.layers[0].h[row].imag, lru.h.imaginary)
        np.testing.assert_array_equal(state.layers[1].h[row], lstm.h)
        np.testing.assert_array_equal(state.layers[1].c[row], lstm.c)
    np.testing.assert_array_equal(
        sj.unroll(cell, params, xs)[1], sj.unroll(STACK, params.cell, xs, state)[1]
    )
    zeros = jax.tree.map(jnp.zeros_like, state)
    np.testing.assert_array_equal(
        sj.unroll(cell, params, xs, zeros)[1], sj.unroll(STACK, params.cell, xs)[1]
    )


def test_its_gradient_is_that_of_the_initial_state_summed_over_the_rows(params, xs):
    cell = sj.LearnedState(STACK)
    weights = jnp.cos(jnp.arange(TIME * BATCH * 3.0)).reshape(TIME, BATCH, 3)
    loss = lambda params: (sj.unroll(cell, params, xs)[1] * weights).sum()
    of_state = lambda state: (sj.unroll(STACK, params.cell, xs, state)[1] * weights).sum()
    gradient = jax.grad(loss)(params).state
    state = cell.initial_state(params, (BATCH,))
    # A complex leaf by its two parts, so that no convention about conjugates enters.
    h = state.layers[0].h
    parts = lambda real, imaginary, lstm: of_state(
        state._replace(layers=(state.layers[0]._replace(h=jax.lax.complex(real, imaginary)), lstm))
    )
    real, imaginary, lstm = jax.grad(parts, argnums=(0, 1, 2))(h.real, h.imag, state.layers[1])
    for came, rows in [
        (gradient.layers[0].h.real, real),
        (gradient.layers[0].h.imaginary, imaginary),
        (gradient.layers[1].h, lstm.h),
        (gradient.layers[1].c, lstm.c),
    ]:
        assert np.all(np.asarray(came) != 0)
        np.testing.assert_allclose(came, rows.sum(axis=0), rtol=1e-5, atol=1e-6)


def test_with_resets_each_document_starts_from_it_and_adds_its_gradient(params, xs):
    cell = sj.LearnedState(STACK)
    cuts = [0, 2, 4, TIME]
    resets = jnp.zeros((TIME, BATCH), bool).at[jnp.array(cuts[:-1])].set(True)
    apart = lambda params: jnp.concatenate(
        [sj.unroll(cell, params, xs[a:b])[1] for a, b in itertools.pairwise(cuts)]
    )
    together = lambda params: sj.unroll(cell, params, xs, resets=resets)[1]
    np.testing.assert_allclose(together(params), apart(params), rtol=1e-5, atol=1e-6)
    came, expected = (
        jax.grad(lambda params, run=run: jnp.square(run(params)).sum())(params)
        for run in (together, apart)
    )
    for a, b in zip(jax.tree.leaves(came), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    assert np.all(np.asarray(came.state.layers[1].c) != 0)


class MixedState(NamedTuple):
    """One leaf of each kind: floats that start at 2, a clock, a switch, and noise."""

    h: jax.Array
    t: jax.Array
    on: jax.Array
    noise: jax.Array


@dataclasses.dataclass(frozen=True)
class Mixed(sj.Cell):
    features: int

    def init(self, key, in_features):
        return {"gain": jax.random.normal(key, (in_features, self.features))}

    def initial_state(self, params, batch_shape=(), *, key=None):
        return MixedState(
            h=jnp.full((*batch_shape, self.features), 2.0),
            t=jnp.full(batch_shape, 5, jnp.int32),
            on=jnp.ones(batch_shape, bool),
            noise=jax.random.normal(jax.random.key(0) if key is None else key, (*batch_shape, 2)),
        )

    def step(self, params, state, x):
        h = 0.9 * state.h + x @ params["gain"]
        return state._replace(h=h, t=state.t + 1), h

    def redraw(self, state, key):
        return state._replace(noise=jax.random.normal(key, state.noise.shape))


def test_only_floating_memory_is_learned_and_starts_at_the_values_of_the_cell(key):
    cell = sj.LearnedState(Mixed(3))
    params = cell.init(key, 2)
    assert params.state.t is params.state.on is params.state.noise is None
    np.testing.assert_array_equal(params.state.h, np.full(3, 2.0))
    params = params._replace(state=params.state._replace(h=jnp.arange(3.0)))
    state = cell.initial_state(params, (4,), key=key)
    expected = Mixed(3).initial_state(params.cell, (4,), key=key)
    np.testing.assert_array_equal(state.h, np.tile(np.arange(3.0), (4, 1)))
    for came, inner in zip(state[1:], expected[1:], strict=True):
        np.testing.assert_array_equal(came, inner)


def test_a_complex_leaf_is_learned_as_two_real_ones(key):
    params = sj.LearnedState(sj.LRU(2, state_features=4)).init(key, 2)
    assert isinstance(params.state.h, RealAndImaginary)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}


@dataclasses.dataclass(frozen=True)
class OneArrayTwice(sj.LSTM):
    """An LSTM whose h_0 and c_0 are the same object."""

    def initial_state(self, params, batch_shape=(), *, key=None):
        zeros = jnp.zeros((*batch_shape, self.features))
        return LSTMState(zeros, zeros)


def test_params_and_states_are_arrays_of_their_own_so_that_they_can_be_donated(key):
    cell = sj.LearnedState(OneArrayTwice(3))
    params = cell.init(key, 2)
    leaves = jax.tree.leaves((params.state, cell.initial_state(params)))
    assert len({leaf.unsafe_buffer_pointer() for leaf in leaves}) == len(leaves) == 4


def test_of_an_slstm_only_h_is_learned(key, xs):
    cell = sj.LearnedState(sj.SLSTM(3))
    params = cell.init(key, 2)
    gradient = jax.grad(lambda p: jnp.sum(jnp.square(sj.unroll(cell, p, xs)[1])))(params).state
    assert np.all(np.asarray(gradient.h) != 0)
    assert not np.any(np.asarray([gradient.c, gradient.m, gradient.n]))


def test_both_directions_start_from_states_of_their_own(key, xs):
    cell = sj.LearnedState(sj.Bidirectional(sj.GRU(2), sj.GRU(2)))
    params = moved(cell.init(key, 2))
    _, ys = sj.unroll(cell, params, xs)
    inner = params.cell
    for part, p, h, reverse in [
        (ys[..., :2], inner.forward, params.state.forward.h, False),
        (ys[..., 2:], inner.backward, params.state.backward.h, True),
    ]:
        start = sj.GRU(2).initial_state(p, (BATCH,))
        start = start._replace(h=jnp.broadcast_to(h, start.h.shape))
        _, expected = sj.unroll(sj.GRU(2), p, xs, start, reverse=reverse)
        np.testing.assert_allclose(part, expected, rtol=1e-6)
