"""The minimal GRU and LSTM against NumPy loops, finite differences and sums over products."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seqjax as sj
from seqjax.cells.minimal import MinGRUParams, MinGRUState, MinLSTMParams, MinLSTMState
from seqjax.initializers import NAMED, Chrono
from tests import oracles
from tests.oracles import sigmoid

pytestmark = pytest.mark.usefixtures("quick_compilation")

TIME, BATCH, IN_FEATURES, FEATURES = 4, 2, 2, 3
WEIGHTS = np.cos(np.arange(TIME * BATCH * FEATURES)).reshape(TIME, BATCH, FEATURES)


class Dense(NamedTuple):
    """x W + b, for one gate."""

    W: Any
    b: Any

    def __call__(self, x):
        return x @ self.W + self.b


def min_gru(x, gates):
    """What one step keeps and adds (Feng et al. 2024, section 3.1)."""
    z_gate, candidate = gates
    z = sigmoid(z_gate(x))
    return 1 - z, z * candidate(x)


def min_lstm(x, gates):
    """What one step keeps and adds (Feng et al. 2024, section 3.2)."""
    i_gate, f_gate, candidate = gates
    i, f = sigmoid(i_gate(x)), sigmoid(f_gate(x))
    return f / (f + i), i / (f + i) * candidate(x)


class Kind(NamedTuple):
    """A cell, its params and state, its equations, and how many parts W and b have."""

    cell: Any
    params: Any
    state: Any
    equation: Any
    parts: int


KINDS = {
    "MinGRU": Kind(sj.MinGRU, MinGRUParams, MinGRUState, min_gru, 2),
    "MinLSTM": Kind(sj.MinLSTM, MinLSTMParams, MinLSTMState, min_lstm, 3),
}
NAMES = list(KINDS)


def arguments(kind, time=TIME, batch=(BATCH,), in_features=IN_FEATURES, features=FEATURES):
    """W, b, xs and h_0, the same at every call."""
    random = np.random.default_rng(0)
    shapes = [
        (in_features, kind.parts * features),
        (kind.parts * features,),
        (time, *batch, in_features),
        (*batch, features),
    ]
    return [0.8 * random.standard_normal(shape) for shape in shapes]


def unpacked(kind, W, b):
    """The weights of each gate apart."""
    pairs = zip(np.split(W, kind.parts, axis=1), np.split(b, kind.parts), strict=True)
    return [Dense(*pair) for pair in pairs]


def by_equation(kind, W, b, xs, h):
    """The hidden states of all rows, one step after another: [time, *batch, features]."""
    gates = unpacked(kind, W, b)
    hs = np.zeros((len(xs), *h.shape))
    for row in np.ndindex(h.shape[:-1]):
        h_t = h[row]
        for t, x in enumerate(xs[:, *row]):
            kept, added = kind.equation(x, gates)
            h_t = kept * h_t + added
            hs[t, *row] = h_t
    return hs


def loss(name, W, b, xs, h):
    """The outputs, each entry with another weight."""
    kind = KINDS[name]
    cell = kind.cell(FEATURES, param_dtype=jnp.float64)
    state, ys = sj.unroll(cell, kind.params(W, b), xs, kind.state(h))
    return (ys * WEIGHTS).sum(), (ys, state)


with_gradients = jax.jit(
    jax.value_and_grad(loss, argnums=(1, 2, 3, 4), has_aux=True), static_argnums=0
)


@pytest.mark.parametrize("name", NAMES)
def test_the_cell_and_all_its_gradients_are_those_of_the_equations(name, x64):
    kind = KINDS[name]
    (_, (ys, state)), gradients = with_gradients(name, *arguments(kind))
    hs = by_equation(kind, *arguments(kind))
    np.testing.assert_allclose(ys, hs, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(state.h, hs[-1], rtol=1e-12, atol=1e-12)
    quotients = oracles.finite_differences(
        lambda *a: (by_equation(kind, *a) * WEIGHTS).sum(), *arguments(kind)
    )
    for ours, theirs in zip(gradients, quotients, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_each_state_is_the_sum_of_what_was_added_times_what_all_later_steps_kept(name, x64):
    kind = KINDS[name]
    W, b, xs, h = arguments(kind)
    (_, (ys, _)), _ = with_gradients(name, W, b, xs, h)
    kept, added = kind.equation(xs, unpacked(kind, W, b))
    for t in range(TIME):
        expected = np.prod(kept[: t + 1], axis=0) * h
        for s in range(t + 1):
            expected = expected + np.prod(kept[s + 1 : t + 1], axis=0) * added[s]
        np.testing.assert_allclose(ys[t], expected, rtol=1e-12, atol=1e-12)


SIZES = [(5, (3,), 1, 1), (1, (2,), 2, 7), (3, (1,), 2, 1), (3, (), 1, 4)]


@pytest.mark.parametrize(("time", "batch", "in_features", "features"), SIZES)
@pytest.mark.parametrize("name", NAMES)
def test_in_single_precision_the_cell_keeps_to_the_equations(
    name, time, batch, in_features, features
):
    kind = KINDS[name]
    case = arguments(kind, time, batch, in_features, features)
    W, b, xs, h = (jnp.asarray(a, jnp.float32) for a in case)
    with jax.disable_jit():
        _, ys = sj.unroll(kind.cell(features), kind.params(W, b), xs, kind.state(h))
    np.testing.assert_allclose(ys, by_equation(kind, *case), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_a_candidate_that_equals_the_state_leaves_it_alone(name, x64):
    # What is kept and what is written add up to 1, whatever the input says.
    kind = KINDS[name]
    W, b, xs, _ = arguments(kind)
    W[:, -FEATURES:], b[-FEATURES:] = 0, 0.7
    (_, (ys, _)), _ = with_gradients(name, W, b, xs, np.full((BATCH, FEATURES), 0.7))
    np.testing.assert_allclose(ys, np.full_like(WEIGHTS, 0.7), rtol=1e-14)


def coefficients(name, bias):
    """What one unit without input keeps and adds, and the gradient of the first by the biases."""
    kind = KINDS[name]
    cell = kind.cell(1)

    def of(bias):
        params = kind.params(jnp.zeros((1, kind.parts)), bias)
        a, b = cell.coefficients(params, jnp.zeros(1))
        return a[0], b[0]

    bias = jnp.asarray(bias, jnp.float32)
    (a, b), gradient = jax.value_and_grad(of, has_aux=True)(bias)
    return float(a), float(b), np.asarray(gradient)


def test_where_both_gates_are_shut_the_minimal_lstm_shares_by_their_ratio():
    # σ(-200) is 0 in float32, so f / (f + i) as it stands is 0 / 0; the ratio of the two is e.
    kept = 1 / (1 + np.exp(-1))
    a, b, gradient = coefficients("MinLSTM", [-201.0, -200.0, 1.0])
    np.testing.assert_allclose([a, b], [kept, 1 - kept], rtol=1e-5)
    slope = kept * (1 - kept)
    np.testing.assert_allclose(gradient, [-slope, slope, 0], rtol=1e-5)


def test_where_both_gates_are_open_the_minimal_lstm_takes_the_mean():
    a, b, _ = coefficients("MinLSTM", [300.0, 400.0, 1.0])
    np.testing.assert_allclose([a, b], [0.5, 0.5], rtol=1e-6)


def test_the_minimal_gru_keeps_its_digits_where_the_gate_is_open():
    # 1 - σ(20) has one digit in float32; the float64 oracle has all.
    a, _, gradient = coefficients("MinGRU", [20.0, 1.0])
    kept = 1 / (1 + np.exp(20.0))
    np.testing.assert_allclose(a, kept, rtol=1e-5)
    np.testing.assert_allclose(gradient, [-kept, 0], rtol=1e-5)


@pytest.mark.parametrize("rule", list(NAMED))
@pytest.mark.parametrize("name", NAMES)
def test_each_initialiser_draws_each_gate_alone(name, rule, key):
    kind = KINDS[name]
    params = kind.cell(8, input_init=rule).init(key, in_features=8)
    blocks = np.split(np.asarray(params.input_kernel), kind.parts, axis=1)
    assert all(oracles.is_drawn_by(rule, block) for block in blocks)
    if rule not in ("identity", "zeros"):
        assert not np.allclose(blocks[0], blocks[1])


def test_the_bias_of_a_gate_starts_where_its_field_says_and_the_others_by_bias_init(key):
    np.testing.assert_array_equal(sj.MinGRU(5).init(key, 2).bias, np.zeros(10))
    z, candidate = jnp.split(sj.MinGRU(5, update_bias=-1.5).init(key, 2).bias, 2)
    np.testing.assert_array_equal(z, np.full(5, -1.5))
    np.testing.assert_array_equal(candidate, np.zeros(5))
    i, f, candidate = jnp.split(sj.MinLSTM(5).init(key, 2).bias, 3)
    np.testing.assert_array_equal(f, np.ones(5))
    np.testing.assert_array_equal([i, candidate], np.zeros((2, 5)))
    i, f, candidate = jnp.split(sj.MinLSTM(64, bias_init="uniform_fan_in").init(key, 2).bias, 3)
    np.testing.assert_array_equal(f, np.ones(64))
    for bias in (i, candidate):
        assert 0.1 < np.abs(bias).max() <= 1 / 8  # 1 / √64


CHRONO = {
    "MinGRU": sj.MinGRU(64, update_bias=Chrono(9, negated=True)),
    "MinLSTM": sj.MinLSTM(64, forget_bias=Chrono(9)),
}


@pytest.mark.parametrize("name", NAMES)
def test_with_chrono_a_cell_without_input_keeps_for_two_steps_up_to_the_longest(name, key):
    cell: Any = CHRONO[name]
    params = cell.init(key, IN_FEATURES)
    kept, _ = cell.coefficients(params, jnp.zeros(IN_FEATURES))
    steps = 1 / (1 - np.asarray(kept, np.float64))
    assert steps.min() >= 2 - 1e-4
    assert 8 < steps.max() <= 9 + 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_the_state_starts_at_zero(name, key):
    cell = KINDS[name].cell(3)
    state = cell.initial_state(cell.init(key, 2), (2,))
    np.testing.assert_array_equal(state.h, np.zeros((2, 3)))


@pytest.mark.parametrize(("name", "gate"), [("MinGRU", "update_bias"), ("MinLSTM", "forget_bias")])
def test_hyperparameters_that_make_no_cell_are_refused(name, gate):
    cell = KINDS[name].cell
    with pytest.raises(ValueError, match=f"{name}: features: expected a positive integer, got 0"):
        cell(0)
    with pytest.raises(ValueError, match=f"{name}: input_init: .*'kaiming'"):
        cell(3, input_init="kaiming")
    with pytest.raises(ValueError, match=f"{name}: {gate}: expected a finite number, got nan"):
        cell(3, **{gate: float("nan")})


@pytest.mark.parametrize("name", NAMES)
def test_inputs_of_another_size_are_refused(name, key):
    cell = KINDS[name].cell(3)
    params = cell.init(key, in_features=2)
    message = rf"{name}: x has shape \(4, 5\); expected \[\*batch, 2\]"
    with pytest.raises(ValueError, match=message):
        cell.step(params, cell.initial_state(params, (4,)), jnp.ones((4, 5)))
