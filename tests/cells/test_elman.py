"""Simple recurrent networks against the NumPy loop, finite differences and the peers."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen

import seqjax as sj
from seqjax.cells.elman import PreActivationParams, PreActivationState
from seqjax.initializers import NAMED, Normal
from tests import oracles
from tests.cells import comparison
from tests.cells.comparison import FEATURES, SIZES, Comparison
from tests.oracles import ACTIVATIONS, Gate

pytestmark = pytest.mark.usefixtures("quick_compilation")


def elman_row(activation, W, U, b, x, h):
    hs = oracles.elman(Gate(W, U, b), activation, x, h)
    return hs, hs[-1]


def leaky_row(leak, W, U, b, x, h):
    """h_t = (1 - α) h_{t-1} + α tanh(x_t W + h_{t-1} U + b) (Jaeger et al. 2007, equation 3)."""
    hs = []
    for x_t in x:
        h = (1 - leak) * h + leak * np.tanh(x_t @ W + h @ U + b)
        hs.append(h)
    return np.array(hs), h


def preactivation_row(activation, inputs, V, W, theta, x, h):
    hs = oracles.preactivation(V, W, theta, activation, inputs, x, h)
    return ACTIVATIONS[activation].value(hs), hs[-1]


def elman(activation: Any):
    cell = sj.Elman(FEATURES, activation=activation)
    return Comparison(cell, functools.partial(elman_row, activation))


ELMAN = {activation: elman(activation) for activation in ACTIVATIONS}


def preactivation(activation, inputs):
    return Comparison(
        sj.PreActivationRNN(FEATURES, activation=activation, input_activation=inputs),
        functools.partial(preactivation_row, activation, inputs),
    )


@pytest.mark.parametrize("activation", ELMAN)
def test_elman_and_all_its_gradients_are_those_of_the_equations(activation, x64):
    comparison.assert_follows_the_equations(ELMAN[activation])


@pytest.mark.parametrize("leak", [0.3, 1.0])
def test_a_leaky_network_and_all_its_gradients_are_those_of_the_equations(leak, x64):
    cell = sj.Elman(FEATURES, leak=leak)
    comparison.assert_follows_the_equations(Comparison(cell, functools.partial(leaky_row, leak)))


def test_without_a_leak_the_network_is_the_plain_one_to_the_bit(key):
    assert sj.Elman(5) == sj.Elman(5, leak=1.0)
    W, U, b = params = sj.Elman(5, bias_init="uniform_fan_in").init(key, 4)
    x, h = jax.random.normal(key, (3, 4)), jax.random.normal(key, (3, 5))
    state, _ = sj.Elman(5).step(params, sj.Elman(5).initial_state(params)._replace(h=h), x)
    np.testing.assert_array_equal(state.h, jnp.tanh((x @ W + b[None]) + h @ U))


@pytest.mark.usefixtures("unchecked")
def test_a_leak_is_a_share():
    for leak in (0.0, -0.1, 1.5, float("nan"), True, "much"):
        with pytest.raises(ValueError, match=r"Elman: leak: expected a share in \(0, 1\], got"):
            sj.Elman(3, leak=leak)  # pyright: ignore[reportArgumentType] - the wrong type is the test


@pytest.mark.parametrize(("activation", "inputs"), [("tanh", "identity"), ("sigmoid", "tanh")])
def test_preactivation_and_all_its_gradients_are_those_of_the_equations(activation, inputs, x64):
    comparison.assert_follows_the_equations(preactivation(activation, inputs))


def test_the_step_jacobian_of_the_preactivation_is_the_derivative_times_the_kernel(x64):
    V, W, theta, (x,), h = preactivation("tanh", "identity").at(3, 2, 1, ()).arguments()
    cell = sj.PreActivationRNN(3, param_dtype=jnp.float64)
    params = PreActivationParams(*map(jnp.asarray, (V, W, theta)))

    def after(h):
        return cell.step(params, PreActivationState(h), jnp.asarray(x))[0].h

    # Row vectors: dh_t = dh_{t-1} diag(φ'(h_{t-1})) W, so the Jacobian is its transpose.
    expected = np.diag(ACTIVATIONS["tanh"].derivative(h)) @ W
    np.testing.assert_allclose(jax.jacfwd(after)(jnp.asarray(h)).T, expected, rtol=1e-12)


def test_the_preactivation_network_is_an_elman_network_seen_before_its_activation(x64):
    before = preactivation("tanh", "identity").at(3, 2, 5, ())
    V, W, theta, xs, h = map(jnp.asarray, before.arguments())
    zs, _ = ELMAN["tanh"].run(V, W, -theta, xs, jnp.tanh(h))
    ys, _ = before.run(V, W, theta, xs, h)
    np.testing.assert_allclose(ys, zs, rtol=1e-12)


def test_the_stacked_kernel_gives_the_same_network(x64):
    case = ELMAN["tanh"].at(3, 2, 5, ())
    W, U, b, xs, h = case.arguments()
    ys, _ = case.run(*map(jnp.asarray, (W, U, b, xs, h)))
    stacked = np.concatenate([U, W])
    for x, y in zip(xs, np.asarray(ys), strict=True):
        h = np.tanh(np.concatenate([h, x]) @ stacked + b)
        np.testing.assert_allclose(y, h, rtol=1e-12)


def torch_rnn(activation):
    """PyTorch's RNN: two biases that add up to ours."""
    return lambda W, U, b, xs, h: comparison.run_torch(
        "RNN", (W, U, 0.3 * b, 0.7 * b), xs, h, nonlinearity=activation
    )


@pytest.mark.peer
@pytest.mark.parametrize("activation", ["tanh", "relu"])
@SIZES
def test_elman_gives_the_values_of_pytorch(activation, sizes, x64):
    case = ELMAN[activation].at(*sizes)
    comparison.assert_values_agree_with_torch(case, torch_rnn(activation))


@pytest.mark.peer
@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_elman_gives_the_values_and_gradients_of_pytorch(activation, x64):
    peer = torch_rnn(activation)
    comparison.assert_agrees(ELMAN[activation], peer, comparison.differentiate_torch)


def flax_rnn(W, U, b, xs, h):
    """Flax' SimpleCell: the bias beside W."""
    cell = linen.SimpleCell(FEATURES, dtype=jnp.float64, param_dtype=jnp.float64)
    params = {"i": {"kernel": W, "bias": b}, "h": {"kernel": U}}
    step = lambda x, h: cell.apply({"params": params}, h, x)
    return comparison.run_steps(step, xs, h)


def haiku_rnn(W, U, b, xs, h):
    """Haiku's VanillaRNN, which is one of relu; its second bias is zero."""
    hk = pytest.importorskip("haiku", reason="Haiku is not installed")
    core = hk.without_apply_rng(hk.transform(lambda x, h: hk.VanillaRNN(FEATURES)(x, h)))
    params = {
        "vanilla_rnn/linear": {"w": W, "b": b},
        "vanilla_rnn/linear_1": {"w": U, "b": jnp.zeros_like(b)},
    }
    step = lambda x, h: core.apply(params, x, h)
    return comparison.run_steps(step, xs, h)


def keras_rnn(W, U, b, xs, h):
    """Keras' SimpleRNN."""
    return comparison.run_keras("SimpleRNN", (W, U, b), xs, h)


@pytest.mark.peer
@pytest.mark.parametrize(
    ("peer", "activation"), [(flax_rnn, "tanh"), (haiku_rnn, "relu"), (keras_rnn, "tanh")]
)
def test_elman_gives_the_values_and_gradients_of_other_libraries(
    peer, activation, x64, standard_promotion
):
    comparison.assert_agrees(ELMAN[activation], peer)


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
