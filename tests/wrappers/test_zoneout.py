"""Zoneout against the NumPy loop under the masks that it drew; which states can be kept."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seqjax as sj
from seqjax.cells.lstm import LSTMParams, LSTMState
from seqjax.wrappers.zoneout import ZoneoutState
from tests import oracles
from tests.contract.registry import LeakySum, RunningMean, RunningMeanState
from tests.oracles import Gate, sigmoid

pytestmark = pytest.mark.usefixtures("quick_compilation")

TIME, BATCH, IN_FEATURES, FEATURES = 4, 2, 2, 3
WEIGHTS = np.cos(np.arange(TIME * BATCH * FEATURES)).reshape(TIME, BATCH, FEATURES)
RATE, MEMORY_RATE = 0.4, 0.6
CELL = sj.Zoneout(sj.LSTM(FEATURES, param_dtype=jnp.float64), RATE, MEMORY_RATE)


def arguments():
    """W, U, b, xs, h_0 and c_0, the same at every call."""
    random = np.random.default_rng(0)
    shapes = [
        (IN_FEATURES, 4 * FEATURES),
        (FEATURES, 4 * FEATURES),
        (4 * FEATURES,),
        (TIME, BATCH, IN_FEATURES),
        (BATCH, FEATURES),
        (BATCH, FEATURES),
    ]
    return [0.8 * random.standard_normal(shape) for shape in shapes]


def by_equation(W, U, b, xs, h, c, *, d, e):
    """All steps of h and c, one row at a time: d and e are the shares of h and c that stay."""
    blocks = zip(np.split(W, 4, axis=1), np.split(U, 4, axis=1), np.split(b, 4), strict=True)
    i, f, g, o = (Gate(*block) for block in blocks)
    hs, cs = np.zeros((2, *xs.shape[:2], h.shape[-1]))
    for row in range(xs.shape[1]):
        h_t, c_t = h[row], c[row]
        for t, x in enumerate(xs[:, row]):
            new_c = sigmoid(f(x, h_t)) * c_t + sigmoid(i(x, h_t)) * np.tanh(g(x, h_t))
            new_h = sigmoid(o(x, h_t)) * np.tanh(new_c)
            h_t = d[t, row] * h_t + (1 - d[t, row]) * new_h
            c_t = e[t, row] * c_t + (1 - e[t, row]) * new_c
            hs[t, row], cs[t, row] = h_t, c_t
    return hs, cs


def weighted(hs, cs):
    """The outputs and the last memory, each entry with another weight."""
    return (hs * WEIGHTS).sum() + (cs[-1] * WEIGHTS[0]).sum()


def run(cell, arguments, key):
    W, U, b, xs, h, c = map(jnp.asarray, arguments)
    return sj.unroll(cell, LSTMParams(W, U, b), xs, ZoneoutState(LSTMState(h, c), key))


def loss(cell, arguments, key):
    state, ys = run(cell, arguments, key)
    return (ys * WEIGHTS).sum() + (state.cell.c * WEIGHTS[0]).sum(), (ys, state)


with_gradients = jax.jit(jax.value_and_grad(loss, argnums=1, has_aux=True), static_argnums=0)


def masks(key):
    """The d and e that were drawn: where a step left an entry as it was, to the last bit."""
    W, U, b, xs, h, c = arguments()
    before = LSTMState(jnp.asarray(h), jnp.asarray(c))
    d, e = np.zeros((2, TIME, BATCH, FEATURES))
    for t in range(TIME):
        state, _ = run(CELL, (W, U, b, xs[t : t + 1], *before), key)
        d[t], e[t] = state.cell.h == before.h, state.cell.c == before.c
        before, key = state.cell, state.key
    return d, e


def assert_is_the_equation(cell, key, d, e):
    (_, (ys, state)), gradients = with_gradients(cell, arguments(), key)
    hs, cs = by_equation(*arguments(), d=d, e=e)
    np.testing.assert_allclose(ys, hs, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(state.cell.h, hs[-1], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(state.cell.c, cs[-1], rtol=1e-12, atol=1e-12)
    expected = oracles.finite_differences(
        lambda *a: weighted(*by_equation(*a, d=d, e=e)), *arguments()
    )
    for ours, theirs in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-8, atol=1e-9)


def test_under_its_masks_the_cell_and_all_its_gradients_are_those_of_the_equations(x64):
    key = jax.random.split(jax.random.key(5), BATCH)
    d, e = masks(key)
    assert 0 < d.mean() < 1
    assert 0 < e.mean() < 1
    assert not np.array_equal(d, e)
    assert_is_the_equation(CELL, key, d, e)


def test_evaluation_takes_the_expectation_with_all_its_gradients(x64):
    quiet = CELL.deterministic()
    key = jax.random.split(jax.random.key(5), BATCH)
    shape = (TIME, BATCH, FEATURES)
    assert_is_the_equation(quiet, key, np.full(shape, RATE), np.full(shape, MEMORY_RATE))


def test_the_masks_are_drawn_anew_for_each_step_row_unit_and_leaf_at_their_rates(key):
    """A cell that adds 1 at every step tells by its sums at which steps each unit was kept."""
    batch, time, features = 8, 50, 40
    cell = sj.Zoneout(Counter(features), rate=0.3, memory_rate=0.6)
    state = cell.initial_state((), (batch,), key=key)
    kept = {"h": [], "c": []}
    step = jax.jit(lambda state: cell.step((), state, jnp.zeros((batch, 1)))[0])
    for _ in range(time):
        before, state = state, step(state)
        kept["h"].append(np.asarray(state.cell.h == before.cell.h))
        kept["c"].append(np.asarray(state.cell.c == before.cell.c))
    h, c = np.array(kept["h"], float), np.array(kept["c"], float)
    # A share of 16000 draws is known to √(0.24 / 16000) < 0.004; four of these.
    np.testing.assert_allclose(h.mean(), 0.3, atol=0.016)
    np.testing.assert_allclose(c.mean(), 0.6, atol=0.016)
    h, c = h - 0.3, c - 0.6
    # The product of two independent draws has mean 0 and a variance below 0.06: 0.25 / √15000 each.
    for a, b in [
        (h[1:], h[:-1]),  # steps
        (h[:, 1:], h[:, :-1]),  # rows
        (h[:, :, 1:], h[:, :, :-1]),  # units
        (h, c),  # leaves
        (h[1:], c[:-1]),
    ]:
        np.testing.assert_allclose((a * b).mean(), 0, atol=4 * 0.25 / np.sqrt(a.size))


@dataclasses.dataclass(frozen=True)
class Counter(sj.Cell):
    """h and c count the steps; it has no weights, and no y that zoneout could need more than h for."""

    features: int

    def init(self, key, in_features):
        return ()

    def initial_state(self, params, batch_shape=(), *, key=None):
        return LSTMState(*(jnp.zeros((*batch_shape, self.features)) for _ in range(2)))

    def step(self, params, state, x):
        state = LSTMState(state.h + 1, state.c + 1)
        return state, state.h

    def output(self, params, state, x):
        return state.h


def test_equal_keys_give_equal_runs_and_other_keys_others(key):
    cell = sj.Zoneout(sj.GRU(4), rate=0.5)
    params, xs = cell.init(key, 2), jax.random.normal(jax.random.key(1), (5, 3, 2))
    runs = [sj.unroll(cell, params, xs, key=jax.random.key(seed))[1] for seed in (1, 1, 2)]
    np.testing.assert_array_equal(runs[0], runs[1])
    assert not np.allclose(runs[0], runs[2])


def test_keys_of_other_kinds_draw_states_of_the_same_form(key, unchecked):
    cell = sj.Zoneout(sj.GRU(4), rate=0.5)
    params, xs = cell.init(key, 2), jnp.ones((1, 3, 2))
    form = jax.eval_shape(lambda: cell.initial_state(params, (3,), key=key))
    for other in (jax.random.PRNGKey(0), jax.random.key(0, impl="rbg")):
        state, _ = sj.unroll(cell, params, xs, key=other)
        assert jax.eval_shape(lambda state=state: state) == form
        state, _ = sj.unroll(cell, params, xs, state, key=other)
        assert jax.eval_shape(lambda state=state: state) == form


def test_a_window_goes_on_with_new_masks_and_a_reset_does_not_go_back_to_the_old_ones(x64):
    """A document that is run twice, behind a reset, meets other masks the second time."""
    W, U, b, xs, h = (jnp.asarray(a) for a in arguments()[:5])
    key = jax.random.split(jax.random.key(5), BATCH)
    twice, zeros = jnp.concatenate([xs, xs]), jnp.zeros_like(h)
    resets = jnp.zeros((2 * TIME, BATCH), bool).at[TIME].set(True)
    state = ZoneoutState(LSTMState(zeros, zeros), key)
    _, ys = sj.unroll(CELL, LSTMParams(W, U, b), twice, state, resets=resets)
    assert not np.allclose(ys[:TIME], ys[TIME:])
    middle, first = sj.unroll(CELL, LSTMParams(W, U, b), xs, state)
    assert np.all(jax.random.key_data(middle.key) != jax.random.key_data(key))
    again = ZoneoutState(LSTMState(zeros, zeros), middle.key)
    _, second = sj.unroll(CELL, LSTMParams(W, U, b), xs, again)
    np.testing.assert_allclose(ys, jnp.concatenate([first, second]), rtol=1e-12)


def test_without_a_rate_for_the_memory_it_has_that_of_h(x64):
    key = jax.random.split(jax.random.key(5), BATCH)
    one, other = sj.Zoneout(CELL.cell, 0.3), sj.Zoneout(CELL.cell, 0.3, 0.3)
    ys, expected = (run(cell, arguments(), key)[1] for cell in (one, other))
    np.testing.assert_array_equal(ys, expected)


def test_at_rate_zero_it_is_the_inner_cell_and_asks_for_no_key(key):
    inner = sj.LSTM(4)
    params, xs = inner.init(key, 2), jax.random.normal(key, (5, 3, 2))
    state, ys = sj.unroll(sj.Zoneout(inner, rate=0.0), params, xs)
    expected, zs = sj.unroll(inner, params, xs)
    np.testing.assert_array_equal(ys, zs)
    np.testing.assert_array_equal(state.cell.c, expected.c)


def test_a_clock_goes_on_where_the_unit_beside_it_is_kept():
    cell = sj.Zoneout(RunningMean(3), rate=0.9)
    before = ZoneoutState(
        RunningMeanState(jnp.ones((50, 3)), jnp.full(50, 7, jnp.int32)),
        jax.random.split(jax.random.key(0), 50),
    )
    after, y = cell.step(jnp.ones((2, 3)), before, jnp.ones((50, 2)))
    np.testing.assert_array_equal(after.cell.steps, np.full(50, 8))
    kept = np.asarray(after.cell.mean) == 1
    assert 0.5 < kept.mean() < 1
    np.testing.assert_allclose(after.cell.mean, np.where(kept, 1, 1 + 1 / 8), rtol=1e-6)
    np.testing.assert_array_equal(y, after.cell.mean)


def test_a_complex_unit_is_kept_whole_and_read_out_after(key):
    inner = sj.LRU(2, state_features=20)
    cell = sj.Zoneout(inner, rate=0.5)
    params = cell.init(key, 3)
    x = jax.random.normal(key, (3,))
    h = jax.lax.complex(*jax.random.normal(key, (2, 20)))
    before = cell.initial_state(params, key=key)
    before = before._replace(cell=before.cell._replace(h=h))
    after, y = cell.step(params, before, x)
    full, _ = inner.step(params, before.cell, x)
    kept = np.asarray(after.cell.h) == np.asarray(h)
    assert 0 < kept.mean() < 1
    np.testing.assert_array_equal(after.cell.h, np.where(kept, h, full.h))
    np.testing.assert_array_equal(y, inner.output(params, after.cell, x))


@dataclasses.dataclass(frozen=True)
class Shifted(sj.GatedCell):
    """A user's gated cell whose y reads a weight: y_t = h_t + b."""

    features: int

    def init(self, key, in_features):
        return jnp.ones(self.features)

    def initial_state(self, params, batch_shape=(), *, key=None):
        return jnp.zeros((*batch_shape, self.features))

    def project(self, params, x):
        return jnp.broadcast_to(params, (*x.shape[:-1], self.features))

    def recurrent_input(self, state):
        return state

    def recurrent_kernel(self, params):
        return jnp.eye(self.features)

    def gate_params(self, params):
        return params

    def gate(self, gate_params, z, r, state):
        h = jnp.tanh(z + r)
        return h, h + jnp.broadcast_to(gate_params, h.shape)

    def output(self, params, state, x):
        return state + jnp.broadcast_to(params, state.shape)


def test_a_gated_cell_whose_output_reads_weights_runs_by_its_step_and_is_not_gated(key):
    cell = sj.Zoneout(Shifted(3), rate=0.5)
    assert sj.as_gated(cell) is None
    assert sj.as_gated(sj.Zoneout(sj.GRU(3), rate=0.5)) is not None
    params = cell.init(key, 3)
    state, ys = sj.unroll(cell, params, jnp.ones((4, 2, 3)), key=key)
    np.testing.assert_allclose(ys[-1], state.cell + 1)


def test_the_parts_of_a_wrapper_around_such_a_cell_are_not_asked_for(key):
    inner = sj.RecurrentDropout(Shifted(3), rate=0.5)
    assert sj.as_gated(inner) is not None
    cell = sj.Zoneout(inner, rate=0.5)
    assert sj.as_gated(cell) is None
    state, ys = sj.unroll(cell, cell.init(key, 3), jnp.ones((4, 2, 3)), key=key)
    np.testing.assert_allclose(ys[-1], state.cell.cell + 1)


class Memory(NamedTuple):
    c: jax.Array


@dataclasses.dataclass(frozen=True)
class Alone(sj.Cell):
    """A user's cell with one leaf, named c."""

    features: int

    def init(self, key, in_features):
        return ()

    def initial_state(self, params, batch_shape=(), *, key=None):
        return Memory(jnp.zeros((*batch_shape, self.features)))

    def step(self, params, state, x):
        state = Memory(state.c + 1)
        return state, state.c

    def output(self, params, state, x):
        return state.c


def test_a_single_leaf_has_the_rate_of_h_whatever_its_name(key):
    cell = sj.Zoneout(Alone(50), rate=0.0, memory_rate=0.9)
    _, ys = sj.unroll(cell, (), jnp.ones((4, 2, 1)), key=key)
    np.testing.assert_array_equal(ys[-1], np.full((2, 50), 4.0))


@pytest.mark.parametrize(
    ("cell", "memory"),
    [
        (sj.SLSTM(3), r"h \[3\], c \[3\], n \[3\], m \[3\]"),
        (sj.SkipRNN(3, skip=2), r"h \[2, 3\]"),
    ],
)
def test_memory_that_cannot_be_kept_one_unit_at_a_time_is_refused(cell, memory, key):
    message = rf"Zoneout: the memory of .* is {memory} .*expected one leaf \[features\], or h and c"
    wrapped = sj.Zoneout(cell, rate=0.5)
    with pytest.raises(ValueError, match=message):
        wrapped.initial_state(wrapped.init(key, 2), (4,), key=key)


def test_a_users_cell_without_output_is_refused(key):
    cell = sj.Zoneout(LeakySum(3), rate=0.5)
    message = r"LeakySum: output\(params, state, x\) is not defined; a wrapper that changes"
    with pytest.raises(ValueError, match=message):
        sj.unroll(cell, cell.init(key, 2), jnp.ones((4, 2)), key=key)
