"""The network with a skip connection against the NumPy loop, finite differences and its identities."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seqjax as sj
from seqjax.cells.elman import ElmanParams
from seqjax.cells.skip import SkipRNNParams, SkipRNNState
from seqjax.initializers import NAMED
from tests import oracles
from tests.oracles import ACTIVATIONS

pytestmark = pytest.mark.usefixtures("quick_compilation")

TIME, BATCH, IN_FEATURES, FEATURES = 5, 2, 2, 3
WEIGHTS = np.cos(np.arange(TIME * BATCH * FEATURES)).reshape(TIME, BATCH, FEATURES)


def draw(*shapes):
    """Float64 arrays, the same at every call."""
    random = np.random.default_rng(0)
    return [0.8 * random.standard_normal(shape) for shape in shapes]


def arguments(skip, time=TIME, in_features=IN_FEATURES, features=FEATURES, batch=(BATCH,)):
    """W, U, V, b, xs and the last hidden states, the latest last."""
    return draw(
        (in_features, features),
        (features, features),
        (features, features),
        (features,),
        (time, *batch, in_features),
        (*batch, skip, features),
    )


def by_equation(activation, W, U, V, b, xs, past):
    """The h of each step of all rows: h_t = φ(x_t W + h_{t-1} U + h_{t-k} V + b)."""
    phi, k = ACTIVATIONS[activation].value, past.shape[1]
    rows = []
    for row in range(xs.shape[1]):
        hs = list(past[row])  # hs[t + k - 1] is h_t for t = 1 - k …
        for x in xs[:, row]:
            hs.append(phi(x @ W + hs[-1] @ U + hs[-k] @ V + b))
        rows.append(hs[k:])
    return np.stack(rows, axis=1)


def run(skip, activation):
    """The weighted outputs and history with (ys, state), and gradients by every argument."""
    cell = sj.SkipRNN(FEATURES, skip, activation=activation, param_dtype=jnp.float64)

    def loss(W, U, V, b, xs, past):
        state, ys = sj.unroll(cell, SkipRNNParams(W, U, V, b), xs, SkipRNNState(past))
        return (ys * WEIGHTS).sum(), (ys, state)

    return jax.jit(jax.value_and_grad(loss, argnums=tuple(range(6)), has_aux=True))


@pytest.mark.parametrize(
    ("skip", "activation"), [(3, "tanh"), (2, "sigmoid"), (7, "relu"), (1, "identity")]
)
def test_the_cell_and_all_its_gradients_are_those_of_the_equation(skip, activation, x64):
    (_, (ys, state)), gradients = run(skip, activation)(*arguments(skip))
    expected = by_equation(activation, *arguments(skip))
    np.testing.assert_allclose(ys, expected, rtol=1e-12, atol=1e-12)
    past = arguments(skip)[5]
    last = np.concatenate([past, np.moveaxis(expected, 0, 1)], axis=1)[:, -skip:]
    np.testing.assert_allclose(state.h, last, rtol=1e-12, atol=1e-12)
    quotients = oracles.finite_differences(
        lambda *a: (by_equation(activation, *a) * WEIGHTS).sum(), *arguments(skip)
    )
    for ours, theirs in zip(gradients, quotients, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-8, atol=1e-8)


def test_in_single_precision_the_cell_keeps_to_the_equation():
    W, U, V, b, xs, past = (jnp.asarray(a, jnp.float32) for a in arguments(3))
    _, ys = sj.unroll(sj.SkipRNN(FEATURES, 3), SkipRNNParams(W, U, V, b), xs, SkipRNNState(past))
    np.testing.assert_allclose(ys, by_equation("tanh", *arguments(3)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("features", "in_features", "time", "batch"), [(1, 1, 4, (2,)), (4, 2, 1, (1,)), (3, 2, 4, ())]
)
def test_odd_sizes_give_the_equation(features, in_features, time, batch, x64):
    W, U, V, b, xs, _ = arguments(3, time, in_features, features, batch)
    cell = sj.SkipRNN(features, 3, param_dtype=jnp.float64)
    _, ys = sj.unroll(cell, SkipRNNParams(*map(jnp.asarray, (W, U, V, b))), jnp.asarray(xs))
    rows = xs.reshape(time, -1, in_features)
    expected = by_equation("tanh", W, U, V, b, rows, np.zeros((rows.shape[1], 3, features)))
    np.testing.assert_allclose(ys, expected.reshape(ys.shape), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_over_n_skips_the_gradient_has_n_factors(n, x64):
    """With U = 0, ∂h_{nk}/∂h_0 = ∏_{j=n…1} diag(φ'(a_{jk})) Vᵀ, and no other path leads back."""
    k = 3
    W, U, V, b, xs, past = arguments(k, time=n * k, batch=())
    cell = sj.SkipRNN(FEATURES, k, param_dtype=jnp.float64)
    params = SkipRNNParams(*map(jnp.asarray, (W, 0 * U, V, b)))

    def last(past):
        return sj.unroll(cell, params, jnp.asarray(xs), SkipRNNState(past))[1][-1]

    hs = by_equation("tanh", W, 0 * U, V, b, xs[:, None], past[None])[:, 0]
    expected = np.eye(FEATURES)
    for h in hs[k - 1 :: k]:  # h_k, h_{2k}, …; tanh' = 1 - h²
        expected = np.diag(1 - h**2) @ V.T @ expected
    jacobian = jax.jacrev(last)(jnp.asarray(past))  # [features, k, features]
    np.testing.assert_allclose(jacobian[:, -1], expected, rtol=1e-12, atol=1e-14)
    np.testing.assert_array_equal(jacobian[:, :-1], np.zeros((FEATURES, k - 1, FEATURES)))


def test_without_the_one_step_connection_it_is_k_elman_networks_that_take_turns(x64):
    W, U, V, b, xs, _ = map(jnp.asarray, arguments(3, time=9))
    _, ys = sj.unroll(
        sj.SkipRNN(FEATURES, 3, param_dtype=jnp.float64), SkipRNNParams(W, 0 * U, V, b), xs
    )
    for turn in range(3):
        elman = sj.Elman(FEATURES, param_dtype=jnp.float64)
        _, expected = sj.unroll(elman, ElmanParams(W, V, b), xs[turn::3])
        np.testing.assert_allclose(ys[turn::3], expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("skip", "V_in_U", "V_kept"), [(3, 0, 0), (1, 1, 1)])
def test_without_the_skip_or_with_a_skip_of_one_it_is_an_elman_network(skip, V_in_U, V_kept, x64):
    W, U, V, b, xs, _ = map(jnp.asarray, arguments(skip))
    cell = sj.SkipRNN(FEATURES, skip, param_dtype=jnp.float64)
    _, ys = sj.unroll(cell, SkipRNNParams(W, U, V_kept * V, b), xs)
    elman = sj.Elman(FEATURES, param_dtype=jnp.float64)
    _, expected = sj.unroll(elman, ElmanParams(W, U + V_in_U * V, b), xs)
    np.testing.assert_allclose(ys, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("rule", list(NAMED))
def test_each_initialiser_draws_each_kernel_alone(rule, key):
    params = sj.SkipRNN(8, skip=4, input_init=rule, recurrent_init=rule).init(key, in_features=8)
    kernels = [np.asarray(kernel) for kernel in params[:3]]
    assert all(oracles.is_drawn_by(rule, kernel) for kernel in kernels)
    if rule not in ("identity", "zeros"):
        assert len({kernel.tobytes() for kernel in kernels}) == 3
    np.testing.assert_array_equal(params.bias, np.zeros(8))


def test_the_past_starts_at_zero(key):
    cell = sj.SkipRNN(3, skip=4)
    past = cell.initial_state(cell.init(key, 2), (2,)).h
    np.testing.assert_array_equal(past, np.zeros((2, 4, 3)))


@pytest.mark.parametrize(
    ("features", "skip", "message"),
    [
        (0, 2, "SkipRNN: features: expected a positive integer, got 0"),
        (3, -1, "SkipRNN: skip: expected a positive integer, got -1"),
        (
            3,
            0,
            "SkipRNN: skip: expected how many steps back the second connection reaches, at least 1, "
            "got 0; sj.Elman is the network without one",
        ),
    ],
)
def test_sizes_below_one_are_refused(features, skip, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        sj.SkipRNN(features, skip)


def test_an_unknown_activation_is_refused(unchecked):
    with pytest.raises(ValueError, match=r"SkipRNN: activation: expected one of .* got 'gelu'"):
        sj.SkipRNN(3, 2, activation="gelu")  # pyright: ignore[reportArgumentType] - on purpose


def test_inputs_of_another_size_are_refused(key):
    cell = sj.SkipRNN(3, skip=2)
    params = cell.init(key, in_features=2)
    with pytest.raises(ValueError, match=r"SkipRNN: x has shape \(4, 5\); expected \[\*batch, 2\]"):
        cell.step(params, cell.initial_state(params, (4,)), jnp.ones((4, 5)))
