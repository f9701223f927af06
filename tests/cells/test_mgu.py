"""The minimal gated unit against a NumPy loop, finite differences and a GRU of Keras with tied gates."""

import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seqjax as sj
from seqjax.cells.cho_gru import ChoGRUParams, ChoGRUState
from seqjax.cells.mgu import MGUParams, MGUState
from seqjax.initializers import NAMED, Chrono
from tests import oracles
from tests.oracles import Gate, sigmoid

pytestmark = pytest.mark.usefixtures("quick_compilation")

TIME, BATCH, IN_FEATURES, FEATURES = 4, 2, 2, 3
WEIGHTS = np.cos(np.arange(TIME * BATCH * FEATURES)).reshape(TIME, BATCH, FEATURES)


def draw(*shapes):
    """Float64 arrays, the same at every call."""
    random = np.random.default_rng(0)
    return [0.8 * random.standard_normal(shape) for shape in shapes]


def arguments(time=TIME, batch=(BATCH,), in_features=IN_FEATURES, features=FEATURES):
    """W, U, b, xs and h_0."""
    return draw(
        (in_features, 2 * features),
        (features, 2 * features),
        (2 * features,),
        (time, *batch, in_features),
        (*batch, features),
    )


def one_row(gates, x, h):
    """The hidden states of one sequence, with the weights of each gate apart (Zhou et al. 2016)."""
    f_gate, candidate = gates
    hs = []
    for x_t in x:
        f = sigmoid(f_gate(x_t, h))
        new = np.tanh(candidate(x_t, f * h))
        h = (1 - f) * h + f * new
        hs.append(h)
    return np.array(hs)


def by_equation(W, U, b, xs, h):
    """The hidden states of all rows: [time, *batch, features]."""
    blocks = zip(np.split(W, 2, axis=1), np.split(U, 2, axis=1), np.split(b, 2), strict=True)
    gates = [Gate(*block) for block in blocks]
    hs = np.zeros((len(xs), *h.shape))
    for row in np.ndindex(h.shape[:-1]):
        hs[:, *row] = one_row(gates, xs[:, *row], h[row])
    return hs


def loss(W, U, b, xs, h):
    """The outputs, each entry with another weight."""
    cell = sj.MGU(FEATURES, param_dtype=jnp.float64)
    state, ys = sj.unroll(cell, MGUParams(W, U, b), xs, MGUState(h))
    return (ys * WEIGHTS).sum(), (ys, state)


with_gradients = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2, 3, 4), has_aux=True))


def test_the_cell_and_all_its_gradients_are_those_of_the_equations(x64):
    (_, (ys, state)), gradients = with_gradients(*arguments())
    hs = by_equation(*arguments())
    np.testing.assert_allclose(ys, hs, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(state.h, hs[-1], rtol=1e-12, atol=1e-12)
    quotients = oracles.finite_differences(
        lambda *a: (by_equation(*a) * WEIGHTS).sum(), *arguments()
    )
    for ours, theirs in zip(gradients, quotients, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-8, atol=1e-9)


SIZES = [(5, (3,), 1, 1), (1, (2,), 2, 7), (3, (1,), 2, 1), (3, (), 1, 4)]


@pytest.mark.parametrize(("time", "batch", "in_features", "features"), SIZES)
def test_in_single_precision_the_cell_keeps_to_the_equations(time, batch, in_features, features):
    case = arguments(time, batch, in_features, features)
    W, U, b, xs, h = (jnp.asarray(a, jnp.float32) for a in case)
    with jax.disable_jit():
        _, ys = sj.unroll(sj.MGU(features), MGUParams(W, U, b), xs, MGUState(h))
    np.testing.assert_allclose(ys, by_equation(*case), rtol=1e-5, atol=1e-6)


def tied(packed, order):
    """The weights of a GRU that is this unit, r = f and z = 1 - f = σ(-a), packed in that order."""
    f, n = jnp.split(packed, 2, axis=-1)
    return jnp.concatenate([{"r": f, "z": -f, "n": n}[gate] for gate in order], axis=-1)


def test_it_is_the_gru_of_cho_whose_gates_are_tied(x64):
    W, U, b, xs, h = (jnp.asarray(a) for a in arguments())
    gru = sj.ChoGRU(FEATURES, param_dtype=jnp.float64)
    params = ChoGRUParams(*(tied(packed, "rzn") for packed in (W, U, b)))
    _, expected = sj.unroll(gru, params, xs, ChoGRUState(h))
    (_, (ys, _)), _ = with_gradients(*arguments())
    np.testing.assert_allclose(ys, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.peer
def test_the_outputs_and_the_gradients_are_those_of_a_keras_gru_whose_gates_are_tied(
    x64, standard_promotion
):
    os.environ["KERAS_BACKEND"] = "jax"
    keras = pytest.importorskip("keras", reason="Keras is not installed")
    layer: Any = keras.layers.GRU(
        FEATURES,
        reset_after=False,
        activation=jnp.tanh,  # that of Keras rounds to float32
        return_sequences=True,
        dtype="float64",
    )
    layer.build((BATCH, TIME, IN_FEATURES))
    fixed = [variable.value for variable in layer.non_trainable_variables]

    def theirs(W, U, b, xs, h):
        weights = [tied(packed, "zrn") for packed in (W, U, b)]
        ys, _ = layer.stateless_call(weights, fixed, jnp.swapaxes(xs, 0, 1), initial_state=h)
        ys = jnp.swapaxes(ys, 0, 1)
        return (ys * WEIGHTS).sum(), ys

    differentiate = jax.jit(jax.value_and_grad(theirs, argnums=(0, 1, 2, 3, 4), has_aux=True))
    (_, expected), expected_gradients = differentiate(*arguments())
    (_, (ys, _)), gradients = with_gradients(*arguments())
    np.testing.assert_allclose(ys, expected, rtol=1e-10, atol=1e-12)
    for a, b in zip(gradients, expected_gradients, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)


def test_a_shut_gate_keeps_and_an_open_gate_renews():
    zeros = jnp.zeros((2, 2))
    step = lambda bias: sj.MGU(1).step(
        MGUParams(zeros, zeros[:1], jnp.array([bias, 0.3])), MGUState(jnp.array([0.7])), zeros[0]
    )[1]
    np.testing.assert_allclose(step(-50.0), [0.7], rtol=1e-6)
    np.testing.assert_allclose(step(50.0), [np.tanh(0.3)], rtol=1e-6)


@pytest.mark.parametrize("rule", list(NAMED))
def test_each_initialiser_draws_each_gate_alone(rule, key):
    params = sj.MGU(8, input_init=rule, recurrent_init=rule).init(key, in_features=8)
    for kernel in (params.input_kernel, params.recurrent_kernel):
        blocks = np.split(np.asarray(kernel), 2, axis=1)
        assert all(oracles.is_drawn_by(rule, block) for block in blocks)
        if rule not in ("identity", "zeros"):
            assert not np.allclose(blocks[0], blocks[1])


def test_the_forget_bias_is_that_of_the_gate_alone_and_keeps_where_it_is_negative(key):
    f, candidate = jnp.split(sj.MGU(5, forget_bias=-1.5).init(key, 2).bias, 2)
    np.testing.assert_array_equal(f, np.full(5, -1.5))
    np.testing.assert_array_equal(candidate, np.zeros(5))
    np.testing.assert_array_equal(sj.MGU(5).init(key, 2).bias, np.zeros(10))
    # A unit that renews by σ(-log u) = 1 / (1 + u), u in [1, 8], keeps for 2 to 9 steps.
    cell = sj.MGU(64, forget_bias=Chrono(9, negated=True))
    steps = 1 / sigmoid(np.asarray(jnp.split(cell.init(key, 2).bias, 2)[0]))
    assert steps.min() >= 2 - 1e-5
    assert 8 < steps.max() <= 9 + 1e-5


def test_the_state_starts_at_zero(key):
    cell = sj.MGU(3)
    state = cell.initial_state(cell.init(key, 2), (2,))
    np.testing.assert_array_equal(state.h, np.zeros((2, 3)))


def test_hyperparameters_that_make_no_cell_are_refused():
    with pytest.raises(ValueError, match="MGU: features: expected a positive integer, got 0"):
        sj.MGU(0)
    unknown: Any = "kaiming"
    with pytest.raises(ValueError, match=r"MGU: recurrent_init: .*'kaiming'"):
        sj.MGU(3, recurrent_init=unknown)
    with pytest.raises(ValueError, match="MGU: forget_bias: expected a finite number, got nan"):
        sj.MGU(3, forget_bias=float("nan"))


def test_inputs_of_another_size_are_refused(key):
    cell = sj.MGU(3)
    params = cell.init(key, in_features=2)
    with pytest.raises(ValueError, match=r"MGU: x has shape \(4, 5\); expected \[\*batch, 2\]"):
        cell.step(params, cell.initial_state(params, (4,)), jnp.ones((4, 5)))
