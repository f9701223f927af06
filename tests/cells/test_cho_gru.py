"""The GRU of Cho et al. against a NumPy loop, finite differences, Keras and Haiku."""

import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seqjax as sj
from seqjax.cells.cho_gru import ChoGRUParams, ChoGRUState
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
        (in_features, 3 * features),
        (features, 3 * features),
        (3 * features,),
        (time, *batch, in_features),
        (*batch, features),
    )


def one_row(gates, x, h):
    """The hidden states of one sequence, with the weights of each gate apart (Cho et al. 2014)."""
    r_gate, z_gate, n_gate = gates
    hs = []
    for x_t in x:
        r = sigmoid(r_gate(x_t, h))
        z = sigmoid(z_gate(x_t, h))
        n = np.tanh(x_t @ n_gate.W + (r * h) @ n_gate.U + n_gate.b)
        h = (1 - z) * n + z * h
        hs.append(h)
    return np.array(hs)


def by_equation(W, U, b, xs, h):
    """The hidden states of all rows: [time, *batch, features]."""
    blocks = zip(np.split(W, 3, axis=1), np.split(U, 3, axis=1), np.split(b, 3), strict=True)
    gates = [Gate(*block) for block in blocks]
    hs = np.zeros((len(xs), *h.shape))
    for row in np.ndindex(h.shape[:-1]):
        hs[:, *row] = one_row(gates, xs[:, *row], h[row])
    return hs


def loss(W, U, b, xs, h):
    """The outputs, each entry with another weight."""
    cell = sj.ChoGRU(FEATURES, param_dtype=jnp.float64)
    state, ys = sj.unroll(cell, ChoGRUParams(W, U, b), xs, ChoGRUState(h))
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
        _, ys = sj.unroll(sj.ChoGRU(features), ChoGRUParams(W, U, b), xs, ChoGRUState(h))
    np.testing.assert_allclose(ys, by_equation(*case), rtol=1e-5, atol=1e-6)


def reordered(packed, order):
    """The blocks of a packed array, taken from r, z, n in another order."""
    blocks = dict(zip("rzn", jnp.split(packed, 3, axis=-1), strict=True))
    return jnp.concatenate([blocks[gate] for gate in order], axis=-1)


@pytest.mark.peer
def test_the_outputs_and_the_gradients_are_those_of_keras(x64, standard_promotion):
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
        weights = [reordered(packed, "zrn") for packed in (W, U, b)]
        ys, _ = layer.stateless_call(weights, fixed, jnp.swapaxes(xs, 0, 1), initial_state=h)
        ys = jnp.swapaxes(ys, 0, 1)
        return (ys * WEIGHTS).sum(), ys

    differentiate = jax.jit(jax.value_and_grad(theirs, argnums=(0, 1, 2, 3, 4), has_aux=True))
    (_, expected), expected_gradients = differentiate(*arguments())
    (_, (ys, _)), gradients = with_gradients(*arguments())
    np.testing.assert_allclose(ys, expected, rtol=1e-10, atol=1e-12)
    for a, b in zip(gradients, expected_gradients, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.peer
def test_the_outputs_and_the_gradients_are_those_of_haiku_whose_update_gate_renews(x64):
    haiku = pytest.importorskip("haiku", reason="Haiku is not installed")
    core: Any = haiku.without_apply_rng(
        haiku.transform(lambda x, h: haiku.GRU(FEATURES, name="gru")(x, h))
    )

    def theirs(W, U, b, xs, h):
        # Packed z, r, a; and z = 1 there takes the candidate: σ(-z) = 1 - σ(z).
        sign = jnp.repeat(jnp.array([-1.0, 1.0, 1.0]), FEATURES)
        w_i, w_h, b = (
            reordered(packed, "zrn") * jnp.broadcast_to(sign, packed.shape) for packed in (W, U, b)
        )
        ys = []
        for x in xs:
            h, y = core.apply({"gru": {"w_i": w_i, "w_h": w_h, "b": b}}, x, h)
            ys.append(y)
        return (jnp.stack(ys) * WEIGHTS).sum(), jnp.stack(ys)

    differentiate = jax.jit(jax.value_and_grad(theirs, argnums=(0, 1, 2, 3, 4), has_aux=True))
    (_, expected), expected_gradients = differentiate(*arguments())
    (_, (ys, _)), gradients = with_gradients(*arguments())
    np.testing.assert_allclose(ys, expected, rtol=1e-10, atol=1e-12)
    for a, b in zip(gradients, expected_gradients, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)


def test_where_all_reset_gates_are_open_it_is_the_gru_whose_reset_comes_after(x64):
    W, U, b, xs, h = (jnp.asarray(a) for a in arguments())
    b = b.at[:FEATURES].set(50.0)  # σ(50) is 1 to rounding
    ours = sj.ChoGRU(FEATURES, param_dtype=jnp.float64)
    other = sj.GRU(FEATURES, param_dtype=jnp.float64)
    no_inner_bias = type(other.init(jax.random.key(0), IN_FEATURES))(W, U, b, jnp.zeros(FEATURES))
    _, ys = sj.unroll(ours, ChoGRUParams(W, U, b), xs, ChoGRUState(h))
    start = other.initial_state(no_inner_bias, (BATCH,))._replace(h=h)
    _, expected = sj.unroll(other, no_inner_bias, xs, start)
    np.testing.assert_allclose(ys, expected, rtol=1e-12, atol=1e-12)


def test_the_reset_gate_acts_before_the_recurrent_matmul():
    # Two units, each of which reads the other. Only unit 0 is reset, so it is unit 1 that forgets.
    shut, keep_none = -50.0, -50.0
    swap = jnp.array([[0.0, 1.0], [1.0, 0.0]])
    params = ChoGRUParams(
        input_kernel=jnp.zeros((1, 6)),
        recurrent_kernel=jnp.concatenate([jnp.zeros((2, 4)), swap], axis=1),
        bias=jnp.array([shut, 50.0, keep_none, keep_none, 0.0, 0.0]),
    )
    state = ChoGRUState(jnp.array([0.4, 0.7]))
    _, y = sj.ChoGRU(2).step(params, state, jnp.ones(1))
    np.testing.assert_allclose(y, [np.tanh(0.7), 0.0], atol=1e-6)


@pytest.mark.parametrize("rule", list(NAMED))
def test_each_initialiser_draws_each_gate_alone(rule, key):
    params = sj.ChoGRU(8, input_init=rule, recurrent_init=rule).init(key, in_features=8)
    for kernel in (params.input_kernel, params.recurrent_kernel):
        blocks = np.split(np.asarray(kernel), 3, axis=1)
        assert all(oracles.is_drawn_by(rule, block) for block in blocks)
        if rule not in ("identity", "zeros"):
            assert not np.allclose(blocks[0], blocks[1])


def test_the_update_bias_is_that_of_z_alone(key):
    r, z, n = jnp.split(sj.ChoGRU(5, update_bias=1.5).init(key, 2).bias, 3)
    np.testing.assert_array_equal(z, np.full(5, 1.5))
    np.testing.assert_array_equal([r, n], np.zeros((2, 5)))
    np.testing.assert_array_equal(sj.ChoGRU(5).init(key, 2).bias, np.zeros(15))
    # log u with u in [1, 8]: h is kept for 2 to 9 steps.
    z = np.asarray(jnp.split(sj.ChoGRU(64, update_bias=Chrono(9)).init(key, 2).bias, 3)[1])
    assert z.min() >= 0
    assert np.log(7) < z.max() <= np.log(8) + 1e-6


def test_the_state_starts_at_zero(key):
    cell = sj.ChoGRU(3)
    state = cell.initial_state(cell.init(key, 2), (2,))
    np.testing.assert_array_equal(state.h, np.zeros((2, 3)))


def test_hyperparameters_that_make_no_cell_are_refused():
    with pytest.raises(ValueError, match="ChoGRU: features: expected a positive integer, got 0"):
        sj.ChoGRU(0)
    unknown: Any = "kaiming"
    with pytest.raises(ValueError, match=r"ChoGRU: recurrent_init: .*'kaiming'"):
        sj.ChoGRU(3, recurrent_init=unknown)
    with pytest.raises(ValueError, match="ChoGRU: update_bias: expected a finite number, got nan"):
        sj.ChoGRU(3, update_bias=float("nan"))


def test_inputs_of_another_size_are_refused(key):
    cell = sj.ChoGRU(3)
    params = cell.init(key, in_features=2)
    with pytest.raises(ValueError, match=r"ChoGRU: x has shape \(4, 5\); expected \[\*batch, 2\]"):
        cell.step(params, cell.initial_state(params, (4,)), jnp.ones((4, 5)))
