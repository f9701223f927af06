"""The GRU against the NumPy loop, finite differences, PyTorch, Flax, Keras and Equinox."""

import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen

import seqjax as sj
from seqjax.cells.gru import GRUParams, GRUState
from seqjax.initializers import NAMED, Chrono, Orthogonal
from tests import oracles
from tests.oracles import Gate

pytestmark = pytest.mark.usefixtures("quick_compilation")

TIME, BATCH, IN_FEATURES, FEATURES = 4, 2, 2, 3
WEIGHTS = np.cos(np.arange(TIME * BATCH * FEATURES)).reshape(TIME, BATCH, FEATURES)


def draw(*shapes):
    """Float64 arrays, the same at every call."""
    random = np.random.default_rng(0)
    return [0.8 * random.standard_normal(shape) for shape in shapes]


def arguments():
    """W, U, b, c_n, xs and h_0."""
    return draw(
        (IN_FEATURES, 3 * FEATURES),
        (FEATURES, 3 * FEATURES),
        (3 * FEATURES,),
        (FEATURES,),
        (TIME, BATCH, IN_FEATURES),
        (BATCH, FEATURES),
    )


def by_equation(W, U, b, inner_bias, xs, h):
    """The hidden states of all rows by the oracle: [time, batch, features]."""
    blocks = zip(np.split(W, 3, axis=1), np.split(U, 3, axis=1), np.split(b, 3), strict=True)
    gates = dict(zip("rzn", (Gate(*block) for block in blocks), strict=True))
    rows = [oracles.gru(gates, inner_bias, xs[:, i], h[i]) for i in range(xs.shape[1])]
    return np.stack(rows, axis=1)


def loss(W, U, b, inner_bias, xs, h):
    """The outputs, each entry with another weight."""
    cell = sj.GRU(FEATURES, param_dtype=jnp.float64)
    state, ys = sj.unroll(cell, GRUParams(W, U, b, inner_bias), xs, GRUState(h))
    return (ys * WEIGHTS).sum(), (ys, state)


with_gradients = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2, 3, 4, 5), has_aux=True))


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


def test_in_single_precision_the_cell_keeps_to_the_equations():
    W, U, b, inner_bias, xs, h = (jnp.asarray(a, jnp.float32) for a in arguments())
    _, ys = sj.unroll(sj.GRU(FEATURES), GRUParams(W, U, b, inner_bias), xs, GRUState(h))
    np.testing.assert_allclose(ys, by_equation(*arguments()), rtol=1e-5, atol=1e-6)


def test_the_stacked_kernel_gives_the_same_network_where_the_reset_gate_is_open(x64):
    W, U, b, inner_bias, xs, h = arguments()
    b[:FEATURES] = 50.0  # σ(50) is 1 to rounding: the candidate, too, sees [h, x]
    stacked = np.concatenate([U, W])
    both = b + np.concatenate([np.zeros(2 * FEATURES), inner_bias])
    params = GRUParams(*map(jnp.asarray, (W, U, b, inner_bias)))
    cell = sj.GRU(FEATURES, param_dtype=jnp.float64)
    _, ys = sj.unroll(cell, params, jnp.asarray(xs), GRUState(jnp.asarray(h)))
    for x, y in zip(xs, np.asarray(ys), strict=True):
        _, z, n = np.split(np.concatenate([h, x], axis=1) @ stacked + both[None], 3, axis=1)
        z = oracles.sigmoid(z)
        h = (1 - z) * np.tanh(n) + z * h
        np.testing.assert_allclose(y, h, rtol=1e-12, atol=1e-12)


def from_torch(peer):
    """The weights of a PyTorch GRU: transposed, in the same order; the inner bias of n stays apart."""
    b_ih, b_hh = peer.bias_ih_l0.detach().numpy(), peer.bias_hh_l0.detach().numpy()
    size = len(b_ih) // 3
    outer = np.concatenate([b_ih[: 2 * size] + b_hh[: 2 * size], b_ih[2 * size :]])
    return GRUParams(
        input_kernel=jnp.asarray(peer.weight_ih_l0.detach().numpy().T),
        recurrent_kernel=jnp.asarray(peer.weight_hh_l0.detach().numpy().T),
        bias=jnp.asarray(outer),
        inner_bias=jnp.asarray(b_hh[2 * size :]),
    )


SHAPES = [(7, 5, 4, (3,)), (1, 1, 3, (2,)), (7, 2, 1, (2,)), (3, 2, 4, (1,)), (3, 2, 4, ())]


@pytest.mark.peer
@pytest.mark.parametrize(("features", "in_features", "time", "batch"), SHAPES)
def test_the_outputs_are_those_of_pytorch(features, in_features, time, batch, x64):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    torch.manual_seed(0)
    peer = torch.nn.GRU(in_features, features, dtype=torch.float64)
    xs, h = draw((time, *batch, in_features), (*batch, features))
    expected, last = peer(torch.tensor(xs), torch.tensor(h)[None])
    state, ys = sj.unroll(
        sj.GRU(features, param_dtype=jnp.float64),
        from_torch(peer),
        jnp.asarray(xs),
        GRUState(jnp.asarray(h)),
    )
    np.testing.assert_allclose(ys, expected.detach().numpy(), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(state.h, last[0].detach().numpy(), rtol=1e-10, atol=1e-12)


@pytest.mark.peer
def test_the_gradients_are_those_of_pytorch(x64):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    torch.manual_seed(0)
    peer = torch.nn.GRU(IN_FEATURES, FEATURES, dtype=torch.float64)
    xs, h = (torch.tensor(a, requires_grad=True) for a in arguments()[4:])
    expected, _ = peer(xs, h[None])
    (expected * torch.tensor(WEIGHTS)).sum().backward()
    _, gradients = with_gradients(*from_torch(peer), *arguments()[4:])
    theirs = (
        peer.weight_ih_l0.grad.T,
        peer.weight_hh_l0.grad.T,
        peer.bias_ih_l0.grad,
        peer.bias_hh_l0.grad[2 * FEATURES :],
        xs.grad,
        h.grad,
    )
    for a, b in zip(gradients, theirs, strict=True):
        np.testing.assert_allclose(a, b.numpy(), rtol=1e-10, atol=1e-12)


@pytest.mark.peer
def test_the_outputs_are_those_of_flax(x64):
    peer = linen.GRUCell(
        FEATURES,
        dtype=jnp.float64,
        param_dtype=jnp.float64,
        bias_init=jax.nn.initializers.normal(1.0),
    )
    xs, h = map(jnp.asarray, arguments()[4:])
    variables = peer.init(jax.random.key(0), h, xs[0])
    theirs: Any = variables["params"]
    params = GRUParams(
        input_kernel=jnp.concatenate([theirs[f"i{gate}"]["kernel"] for gate in "rzn"], axis=1),
        recurrent_kernel=jnp.concatenate([theirs[f"h{gate}"]["kernel"] for gate in "rzn"], axis=1),
        bias=jnp.concatenate([theirs[f"i{gate}"]["bias"] for gate in "rzn"]),
        inner_bias=theirs["hn"]["bias"],
    )
    _, ys = sj.unroll(sj.GRU(FEATURES, param_dtype=jnp.float64), params, xs, GRUState(h))
    for x, y in zip(xs, ys, strict=True):
        h, expected = peer.apply(variables, h, x)
        np.testing.assert_allclose(y, np.asarray(expected), rtol=1e-12, atol=1e-12)


def test_the_reset_gate_acts_after_the_recurrent_matmul_and_on_the_inner_bias():
    # A closed reset gate hides U_n h + c_n from the candidate, and leaves W_n x + b_n.
    shut, one = -50.0, jnp.ones((1, 1))
    params = GRUParams(
        input_kernel=jnp.zeros((1, 3)),
        recurrent_kernel=jnp.concatenate([0 * one, 0 * one, one], axis=1),
        bias=jnp.array([shut, shut, 0.3]),
        inner_bias=jnp.array([5.0]),
    )
    _, y = sj.GRU(1).step(params, GRUState(jnp.array([0.7])), jnp.ones(1))
    np.testing.assert_allclose(y, [np.tanh(0.3)], rtol=1e-6)


@pytest.mark.parametrize("rule", list(NAMED))
def test_each_initialiser_draws_each_gate_alone(rule, key):
    params = sj.GRU(8, input_init=rule, recurrent_init=rule).init(key, in_features=8)
    for kernel in (params.input_kernel, params.recurrent_kernel):
        blocks = np.split(np.asarray(kernel), 3, axis=1)
        assert all(oracles.is_drawn_by(rule, block) for block in blocks)
        if rule not in ("identity", "zeros"):
            assert not np.allclose(blocks[0], blocks[1])


def test_both_biases_are_drawn_by_the_bias_initialiser(key):
    params = sj.GRU(4).init(key, 2)
    np.testing.assert_array_equal(params.bias, np.zeros(12))
    np.testing.assert_array_equal(params.inner_bias, np.zeros(4))
    params = sj.GRU(64, bias_init="uniform_fan_in").init(key, 2)
    for bias in (*jnp.split(params.bias, 3), params.inner_bias):
        assert 0.1 < np.abs(bias).max() <= 1 / 8  # 1 / √64


def test_the_update_bias_is_that_of_z_alone(key):
    params = sj.GRU(5, update_bias=1.5).init(key, 2)
    r, z, n = jnp.split(params.bias, 3)
    np.testing.assert_array_equal(z, np.full(5, 1.5))
    np.testing.assert_array_equal([r, n, params.inner_bias], np.zeros((3, 5)))
    params = sj.GRU(64, recurrent_init="zeros", update_bias=Chrono(100)).init(key, 2)
    r, z, n = jnp.split(params.bias, 3)
    # u ~ U(1, 99) lies on either side of 50: all 64 on the same with probability 2⁻⁶³.
    assert 0 <= z.min() < np.log(50) < z.max() <= np.log(99)
    np.testing.assert_array_equal([r, n, params.inner_bias], np.zeros((3, 64)))


def test_an_update_bias_keeps_a_memory_for_about_as_long_as_chrono_says(x64):
    # z = σ(b) with b = log(T - 1) keeps 1 - 1/T of h a step, so 1/e of it is left after T steps.
    T = 200
    params = GRUParams(*map(jnp.zeros, ((1, 3), (1, 3), (3,), (1,))))
    params = params._replace(bias=jnp.array([0.0, np.log(T - 1), 0.0]))
    cell = sj.GRU(1, param_dtype=jnp.float64)
    state, _ = sj.unroll(cell, params, jnp.zeros((T, 1)), GRUState(jnp.ones(1)))
    np.testing.assert_allclose(state.h, [(1 - 1 / T) ** T], rtol=1e-10)


def test_the_state_starts_at_zero(key):
    cell = sj.GRU(3)
    state = cell.initial_state(cell.init(key, 2), (2,))
    np.testing.assert_array_equal(state.h, np.zeros((2, 3)))


def test_features_below_one_are_refused():
    with pytest.raises(ValueError, match="GRU: features: expected a positive integer, got 0"):
        sj.GRU(0)


@pytest.mark.parametrize("field", ["input_init", "recurrent_init"])
def test_an_unknown_initialiser_is_refused_with_the_known_names(field):
    unknown: Any = {field: "kaiming"}
    with pytest.raises(ValueError, match=f"GRU: {field}: .*'kaiming'") as refusal:
        sj.GRU(3, **unknown)
    assert all(repr(name) in str(refusal.value) for name in NAMED)


def test_an_unknown_bias_initialiser_is_refused_with_the_names_that_draw_vectors():
    with pytest.raises(
        ValueError,
        match=r"^GRU: bias_init: expected one of 'uniform_fan_in', 'zeros', got 'kaiming'$",
    ):
        sj.GRU(3, bias_init="kaiming")
    with pytest.raises(ValueError, match=r"^GRU: bias_init: Orthogonal.* draws matrices only"):
        sj.GRU(3, bias_init=Orthogonal())


def test_inputs_of_another_size_are_refused(key):
    cell = sj.GRU(3)
    params = cell.init(key, in_features=2)
    with pytest.raises(ValueError, match=r"GRU: x has shape \(4, 5\); expected \[\*batch, 2\]"):
        cell.step(params, cell.initial_state(params, (4,)), jnp.ones((4, 5)))


@pytest.mark.peer
def test_the_outputs_and_the_gradients_are_those_of_keras(x64, standard_promotion):
    os.environ["KERAS_BACKEND"] = "jax"
    keras = pytest.importorskip("keras", reason="Keras is not installed")
    layer: Any = keras.layers.GRU(
        FEATURES,
        reset_after=True,
        activation=jnp.tanh,  # that of Keras rounds to float32
        return_sequences=True,
        dtype="float64",
    )
    layer.build((BATCH, TIME, IN_FEATURES))
    fixed = [variable.value for variable in layer.non_trainable_variables]

    def reordered(packed):
        r, z, n = jnp.split(packed, 3, axis=-1)
        return jnp.concatenate([z, r, n], axis=-1)

    def theirs(W, U, b, inner_bias, xs, h):
        # Two biases: one at the input, for all gates, and one at U h, here for n alone.
        biases = jnp.stack([reordered(b), jnp.concatenate([0 * b[: 2 * FEATURES], inner_bias])])
        weights = [reordered(W), reordered(U), biases]
        ys, _ = layer.stateless_call(weights, fixed, jnp.swapaxes(xs, 0, 1), initial_state=h)
        ys = jnp.swapaxes(ys, 0, 1)
        return (ys * WEIGHTS).sum(), ys

    differentiate = jax.jit(jax.value_and_grad(theirs, argnums=(0, 1, 2, 3, 4, 5), has_aux=True))
    (_, expected), expected_gradients = differentiate(*arguments())
    (_, (ys, _)), gradients = with_gradients(*arguments())
    np.testing.assert_allclose(ys, expected, rtol=1e-10, atol=1e-12)
    for a, b in zip(gradients, expected_gradients, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.peer
def test_the_outputs_and_the_gradients_are_those_of_equinox(x64):
    equinox = pytest.importorskip("equinox", reason="Equinox is not installed")
    peer = equinox.nn.GRUCell(IN_FEATURES, FEATURES, dtype=jnp.float64, key=jax.random.key(0))

    def theirs(W, U, b, inner_bias, xs, h):
        where = lambda cell: (cell.weight_ih, cell.weight_hh, cell.bias, cell.bias_n)
        cell = jax.vmap(equinox.tree_at(where, peer, (W.T, U.T, b, inner_bias)))
        ys = []
        for x in xs:
            h = cell(x, h)
            ys.append(h)
        return (jnp.stack(ys) * WEIGHTS).sum(), jnp.stack(ys)

    differentiate = jax.jit(jax.value_and_grad(theirs, argnums=(0, 1, 2, 3, 4, 5), has_aux=True))
    (_, expected), expected_gradients = differentiate(*arguments())
    (_, (ys, _)), gradients = with_gradients(*arguments())
    np.testing.assert_allclose(ys, expected, rtol=1e-10, atol=1e-12)
    for a, b in zip(gradients, expected_gradients, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)
