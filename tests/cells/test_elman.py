"""Simple recurrent networks against the NumPy loop, finite differences and the peers."""

import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen

import seqjax as sj
from seqjax.cells.elman import ElmanParams, ElmanState, PreActivationParams, PreActivationState
from seqjax.initializers import NAMED, Glorot, Normal
from tests import oracles
from tests.oracles import ACTIVATIONS, Gate

pytestmark = pytest.mark.usefixtures("quick_compilation")

TIME, BATCH, IN_FEATURES, FEATURES = 4, 2, 2, 3


def draw(*shapes):
    """Float64 arrays, the same at every call."""
    random = np.random.default_rng(0)
    return [0.8 * random.standard_normal(shape) for shape in shapes]


WEIGHTS = np.cos(np.arange(TIME * BATCH * FEATURES)).reshape(TIME, BATCH, FEATURES)


def weigh(ys):
    """One number out of all outputs, each with another weight."""
    return (ys * WEIGHTS).sum()


def loss_of(cell, state_type, params_type):
    """The weighted outputs as a function of weights, inputs and initial state."""

    def loss(W, U, b, xs, h):
        state, ys = sj.unroll(cell, params_type(W, U, b), xs, state_type(h))
        return weigh(ys), (ys, state.h)

    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2, 3, 4), has_aux=True))


def rows(run, xs, h):
    """An oracle for one sequence, over all rows of a batch: [time, batch, features]."""
    return np.stack([run(xs[:, row], h[row]) for row in range(xs.shape[1])], axis=1)


@pytest.mark.parametrize("activation", list(ACTIVATIONS))
def test_elman_and_all_its_gradients_are_those_of_the_equations(activation, x64):
    def run(W, U, b, xs, h):
        return rows(lambda x, h: oracles.elman(Gate(W, U, b), activation, x, h), xs, h)

    arguments = draw(
        (IN_FEATURES, FEATURES),
        (FEATURES, FEATURES),
        (FEATURES,),
        (TIME, BATCH, IN_FEATURES),
        (BATCH, FEATURES),
    )
    cell = sj.Elman(FEATURES, activation=activation, param_dtype=jnp.float64)
    (_, (ys, last)), gradients = loss_of(cell, ElmanState, ElmanParams)(*arguments)
    expected = run(*arguments)
    np.testing.assert_allclose(ys, expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(last, expected[-1], rtol=1e-12, atol=1e-12)
    quotients = oracles.finite_differences(lambda *a: weigh(run(*a)), *arguments)
    for ours, theirs in zip(gradients, quotients, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(("activation", "inputs"), [("tanh", "identity"), ("sigmoid", "tanh")])
def test_preactivation_and_all_its_gradients_are_those_of_the_equations(activation, inputs, x64):
    def run(V, W, theta, xs, h):
        return rows(
            lambda x, h: oracles.preactivation(V, W, theta, activation, inputs, x, h), xs, h
        )

    arguments = draw(
        (IN_FEATURES, FEATURES),
        (FEATURES, FEATURES),
        (FEATURES,),
        (TIME, BATCH, IN_FEATURES),
        (BATCH, FEATURES),
    )
    cell = sj.PreActivationRNN(
        FEATURES, activation=activation, input_activation=inputs, param_dtype=jnp.float64
    )
    (_, (ys, last)), gradients = loss_of(cell, PreActivationState, PreActivationParams)(*arguments)
    expected = run(*arguments)
    phi = ACTIVATIONS[activation].value
    np.testing.assert_allclose(last, expected[-1], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(ys, phi(expected), rtol=1e-12, atol=1e-12)
    quotients = oracles.finite_differences(lambda *a: weigh(phi(run(*a))), *arguments)
    for ours, theirs in zip(gradients, quotients, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-8, atol=1e-8)


def test_the_step_jacobian_of_the_preactivation_is_the_derivative_times_the_kernel(x64):
    V, W, theta, x, h = draw((2, 3), (3, 3), (3,), (2,), (3,))
    cell = sj.PreActivationRNN(3, param_dtype=jnp.float64)
    params = PreActivationParams(*map(jnp.asarray, (V, W, theta)))

    def after(h):
        return cell.step(params, PreActivationState(h), jnp.asarray(x))[0].h

    # Row vectors: dh_t = dh_{t-1} diag(φ'(h_{t-1})) W, so the Jacobian is its transpose.
    expected = np.diag(ACTIVATIONS["tanh"].derivative(h)) @ W
    np.testing.assert_allclose(jax.jacfwd(after)(jnp.asarray(h)).T, expected, rtol=1e-12)


def test_the_preactivation_network_is_an_elman_network_seen_before_its_activation(x64):
    V, W, theta, xs, h = map(jnp.asarray, draw((2, 3), (3, 3), (3,), (5, 2), (3,)))
    before = sj.PreActivationRNN(3, param_dtype=jnp.float64)
    after = sj.Elman(3, param_dtype=jnp.float64)
    _, ys = sj.unroll(before, PreActivationParams(V, W, theta), xs, PreActivationState(h))
    _, zs = sj.unroll(after, ElmanParams(V, W, -theta), xs, ElmanState(jnp.tanh(h)))
    np.testing.assert_allclose(ys, zs, rtol=1e-12)


def test_the_stacked_kernel_gives_the_same_network(x64):
    W, U, b, xs, h = draw((2, 3), (3, 3), (3,), (5, 2), (3,))
    stacked = np.concatenate([U, W])
    cell = sj.Elman(3, param_dtype=jnp.float64)
    params = ElmanParams(*map(jnp.asarray, (W, U, b)))
    _, ys = sj.unroll(cell, params, jnp.asarray(xs), ElmanState(jnp.asarray(h)))
    for x, y in zip(xs, np.asarray(ys), strict=True):
        h = np.tanh(np.concatenate([h, x]) @ stacked + b)
        np.testing.assert_allclose(y, h, rtol=1e-12)


SHAPES = [(7, 5, 4, (3,)), (1, 1, 3, (2,)), (7, 2, 1, (2,)), (3, 2, 4, (1,)), (3, 2, 4, ())]


@pytest.mark.peer
@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize(("features", "in_features", "time", "batch"), SHAPES)
def test_elman_gives_the_outputs_of_pytorch(activation, features, in_features, time, batch, x64):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    torch.manual_seed(0)
    peer = torch.nn.RNN(in_features, features, nonlinearity=activation, dtype=torch.float64)
    xs, h = draw((time, *batch, in_features), (*batch, features))
    expected, last = peer(torch.tensor(xs), torch.tensor(h)[None])
    params = ElmanParams(
        input_kernel=jnp.asarray(peer.weight_ih_l0.detach().numpy().T),
        recurrent_kernel=jnp.asarray(peer.weight_hh_l0.detach().numpy().T),
        bias=jnp.asarray((peer.bias_ih_l0 + peer.bias_hh_l0).detach().numpy()),
    )
    cell = sj.Elman(features, activation=activation, param_dtype=jnp.float64)
    state, ys = sj.unroll(cell, params, jnp.asarray(xs), ElmanState(jnp.asarray(h)))
    np.testing.assert_allclose(ys, expected.detach().numpy(), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(state.h, last[0].detach().numpy(), rtol=1e-10, atol=1e-12)


@pytest.mark.peer
@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_elman_gives_the_gradients_of_pytorch(activation, x64):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    torch.manual_seed(0)
    peer = torch.nn.RNN(IN_FEATURES, FEATURES, nonlinearity=activation, dtype=torch.float64)
    xs, h = draw((TIME, BATCH, IN_FEATURES), (BATCH, FEATURES))
    inputs, start = torch.tensor(xs, requires_grad=True), torch.tensor(h, requires_grad=True)
    expected, _ = peer(inputs, start[None])
    (expected * torch.tensor(WEIGHTS)).sum().backward()
    cell = sj.Elman(FEATURES, activation=activation, param_dtype=jnp.float64)
    _, gradients = loss_of(cell, ElmanState, ElmanParams)(
        peer.weight_ih_l0.detach().numpy().T,
        peer.weight_hh_l0.detach().numpy().T,
        (peer.bias_ih_l0 + peer.bias_hh_l0).detach().numpy(),
        xs,
        h,
    )
    theirs = (
        peer.weight_ih_l0.grad.T,
        peer.weight_hh_l0.grad.T,
        peer.bias_ih_l0.grad,  # a sum has the gradient of each of its two terms
        inputs.grad,
        start.grad,
    )
    for a, b in zip(gradients, theirs, strict=True):
        np.testing.assert_allclose(a, b.numpy(), rtol=1e-10, atol=1e-12)


@pytest.mark.peer
def test_elman_gives_the_outputs_of_flax(x64):
    peer = linen.SimpleCell(FEATURES, dtype=jnp.float64, param_dtype=jnp.float64)
    xs, h = map(jnp.asarray, draw((TIME, BATCH, IN_FEATURES), (BATCH, FEATURES)))
    variables = peer.init(jax.random.key(0), h, xs[0])
    theirs: Any = variables["params"]
    params = ElmanParams(
        input_kernel=theirs["i"]["kernel"],
        recurrent_kernel=theirs["h"]["kernel"],
        bias=theirs["i"]["bias"],
    )
    state, ys = sj.unroll(sj.Elman(FEATURES, param_dtype=jnp.float64), params, xs, ElmanState(h))
    for x, y in zip(xs, ys, strict=True):
        h, expected = peer.apply(variables, h, x)
        np.testing.assert_allclose(y, np.asarray(expected), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(state.h, h, rtol=1e-12, atol=1e-12)


def haiku_rnn(W, U, b, xs, h):
    """Haiku's VanillaRNN, which is one of relu; its second bias is zero."""
    hk = pytest.importorskip("haiku", reason="Haiku is not installed")
    core = hk.without_apply_rng(hk.transform(lambda x, h: hk.VanillaRNN(FEATURES)(x, h)))
    params = {
        "vanilla_rnn/linear": {"w": W, "b": b},
        "vanilla_rnn/linear_1": {"w": U, "b": jnp.zeros_like(b)},
    }
    hs = []
    for x in xs:
        _, h = core.apply(params, x, h)
        hs.append(h)
    return jnp.stack(hs)


def keras_rnn(W, U, b, xs, h):
    """Keras' SimpleRNN, which is batch-major."""
    os.environ["KERAS_BACKEND"] = "jax"
    keras = pytest.importorskip("keras", reason="Keras is not installed")
    layer = keras.layers.SimpleRNN(
        FEATURES,
        activation=jnp.tanh,  # that of Keras rounds to float32
        return_sequences=True,
        dtype="float64",
    )
    layer.build((BATCH, TIME, IN_FEATURES))
    unused = [v.value for v in layer.non_trainable_variables]  # the seed of its dropout
    inputs = jnp.swapaxes(xs, 0, 1)
    hs, _ = layer.stateless_call([W, U, b], unused, inputs, initial_state=h)
    return jnp.swapaxes(hs, 0, 1)


@pytest.mark.peer
@pytest.mark.parametrize(("peer", "activation"), [(haiku_rnn, "relu"), (keras_rnn, "tanh")])
def test_elman_gives_the_outputs_and_gradients_of_haiku_and_keras(
    peer, activation, x64, standard_promotion
):
    def peer_loss(*a):
        ys = peer(*a)
        return weigh(ys), ys

    arguments = draw(
        (IN_FEATURES, FEATURES),
        (FEATURES, FEATURES),
        (FEATURES,),
        (TIME, BATCH, IN_FEATURES),
        (BATCH, FEATURES),
    )
    cell = sj.Elman(FEATURES, activation=activation, param_dtype=jnp.float64)
    (_, (ys, _)), gradients = loss_of(cell, ElmanState, ElmanParams)(*arguments)
    theirs = jax.jit(jax.value_and_grad(peer_loss, argnums=range(5), has_aux=True))
    (_, expected), expected_gradients = theirs(*arguments)
    np.testing.assert_allclose(ys, expected, rtol=1e-10, atol=1e-12)
    for a, b in zip(gradients, expected_gradients, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)


def test_irnn_starts_by_adding_its_inputs_up(key):
    cell = sj.IRNN(4)
    params = cell.init(key, in_features=4)._replace(input_kernel=jnp.eye(4))
    xs = jax.random.uniform(key, (6, 4))  # above zero, where relu is the identity
    _, ys = sj.unroll(cell, params, xs)
    np.testing.assert_allclose(ys, np.cumsum(xs, axis=0), rtol=1e-6)


def test_irnn_draws_small_inputs_and_scales_the_identity(key):
    params = sj.IRNN(50, scale=0.25).init(key, in_features=40)
    np.testing.assert_array_equal(params.recurrent_kernel, 0.25 * np.eye(50))
    np.testing.assert_array_equal(params.bias, np.zeros(50))
    # The spread of 2000 Gaussian entries is known to 1/√4000, 1.6 %; four times that is allowed.
    np.testing.assert_allclose(np.std(params.input_kernel), 0.001, rtol=0.065)


def test_irnn_is_an_elman_network():
    assert sj.IRNN(5) == sj.Elman(
        5, activation="relu", input_init=Normal(0.001), recurrent_init=NAMED["identity"]
    )


@pytest.mark.parametrize("rule", list(NAMED))
def test_each_initialiser_draws_the_kernels_of_both_networks(rule, key):
    for cell in (
        sj.Elman(8, input_init=rule, recurrent_init=rule),
        sj.PreActivationRNN(8, input_init=rule, recurrent_init=rule),
    ):
        params = cell.init(key, in_features=8)
        assert oracles.is_drawn_by(rule, np.asarray(params.input_kernel))
        assert oracles.is_drawn_by(rule, np.asarray(params.recurrent_kernel))


def test_the_bias_is_drawn_by_its_own_initialiser(key):
    np.testing.assert_array_equal(sj.Elman(4).init(key, 2).bias, np.zeros(4))
    np.testing.assert_array_equal(sj.PreActivationRNN(4).init(key, 2).threshold, np.zeros(4))
    for drawn in (
        sj.Elman(64, bias_init="uniform_fan_in").init(key, 2).bias,
        sj.PreActivationRNN(64, threshold_init="uniform_fan_in").init(key, 2).threshold,
    ):
        assert 0.1 < np.abs(drawn).max() <= 1 / 8  # 1 / √64


@pytest.mark.parametrize("cell", [sj.Elman, sj.PreActivationRNN])
def test_the_state_starts_at_zero(cell, key):
    params = cell(3).init(key, 2)
    np.testing.assert_array_equal(cell(3).initial_state(params, (2,)).h, np.zeros((2, 3)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: sj.Elman(0), "Elman: features: expected a positive integer, got 0"),
        (lambda: sj.PreActivationRNN(-1), "PreActivationRNN: features: expected a positive"),
    ],
)
def test_features_below_one_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("cell", "field"),
    [
        (sj.Elman, "input_init"),
        (sj.Elman, "recurrent_init"),
        (sj.PreActivationRNN, "input_init"),
        (sj.PreActivationRNN, "recurrent_init"),
    ],
)
def test_an_unknown_initialiser_is_refused_with_the_known_names(cell, field):
    with pytest.raises(ValueError, match=f"{cell.__name__}: {field}: .*'kaiming'") as refusal:
        cell(3, **{field: "kaiming"})
    assert all(repr(name) in str(refusal.value) for name in NAMED)


@pytest.mark.parametrize(
    ("cell", "field"), [(sj.Elman, "bias_init"), (sj.PreActivationRNN, "threshold_init")]
)
def test_an_unknown_bias_initialiser_is_refused_with_the_names_that_draw_vectors(cell, field):
    name, known = cell.__name__, "'uniform_fan_in', 'zeros'"
    with pytest.raises(
        ValueError, match=f"^{name}: {field}: expected one of {known}, got 'glorot'$"
    ):
        cell(3, **{field: "glorot"})
    with pytest.raises(ValueError, match=f"^{name}: {field}: Glorot.* draws matrices only"):
        cell(3, **{field: Glorot()})


@pytest.mark.parametrize(
    ("cell", "field"),
    [
        (sj.Elman, "activation"),
        (sj.PreActivationRNN, "activation"),
        (sj.PreActivationRNN, "input_activation"),
    ],
)
def test_an_unknown_activation_is_refused_with_the_known_names(cell, field, unchecked):
    with pytest.raises(ValueError, match=f"{cell.__name__}: {field}: .*'gelu'") as refusal:
        cell(3, **{field: "gelu"})
    assert all(repr(name) in str(refusal.value) for name in ACTIVATIONS)


@pytest.mark.parametrize("cell", [sj.Elman(3), sj.PreActivationRNN(3)])
def test_inputs_of_another_size_are_refused(cell, key):
    params = cell.init(key, in_features=2)
    with pytest.raises(ValueError, match=r"x has shape \(4, 5\); expected \[\*batch, 2\]"):
        cell.step(params, cell.initial_state(params, (4,)), jnp.ones((4, 5)))
