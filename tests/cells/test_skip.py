"""The network with a skip connection against the NumPy loop, finite differences and its identities."""

import functools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seqjax as sj
from seqjax.cells.elman import ElmanParams
from tests.cells import comparison
from tests.cells.comparison import FEATURES, Comparison
from tests.oracles import ACTIVATIONS

pytestmark = pytest.mark.usefixtures("quick_compilation")


def row(activation, W, U, V, b, x, past):
    """One sequence: h_t = φ(x_t W + h_{t-1} U + h_{t-k} V + b); past: the last k, the latest last."""
    phi, k, hs = ACTIVATIONS[activation].value, len(past), list(past)
    for x_t in x:
        hs.append(phi(x_t @ W + hs[-1] @ U + hs[-k] @ V + b))
    return np.array(hs[k:]), np.array(hs[-k:])


def skip_rnn(skip, activation: Any = "tanh", time=5, batch=(2,)):
    cell = sj.SkipRNN(FEATURES, skip, activation=activation)
    return Comparison(cell, functools.partial(row, activation), time=time, batch=batch)


@pytest.mark.parametrize(
    ("skip", "activation"), [(3, "tanh"), (2, "sigmoid"), (7, "relu"), (1, "identity")]
)
def test_the_cell_and_all_its_gradients_are_those_of_the_equation(skip, activation, x64):
    comparison.assert_follows_the_equations(skip_rnn(skip, activation))


def test_in_single_precision_the_cell_keeps_to_the_equation():
    comparison.assert_values_follow_the_equations(skip_rnn(3))


@pytest.mark.parametrize("sizes", [(1, 1, 4, (2,)), (4, 2, 1, (1,)), (3, 2, 4, ())], ids=str)
def test_odd_sizes_give_the_equation(sizes, x64):
    comparison.assert_values_follow_the_equations(skip_rnn(3).at(*sizes), jnp.float64)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_over_n_skips_the_gradient_has_n_factors(n, x64):
    """With U = 0, ∂h_{nk}/∂h_0 = ∏_{j=n…1} diag(φ'(a_{jk})) Vᵀ, and no other path leads back."""
    k = 3
    case = skip_rnn(k, time=n * k, batch=())
    W, U, V, b, xs, past = case.arguments()
    weights = W, 0 * U, V, b, xs
    hs, _ = case.by_equation(*weights, past)
    expected = np.eye(FEATURES)
    for h in hs[k - 1 :: k]:  # h_k, h_{2k}, …; tanh' = 1 - h²
        expected = np.diag(1 - h**2) @ V.T @ expected
    last = lambda past: case.run(*map(jnp.asarray, weights), past)[0][-1]
    jacobian = jax.jacrev(last)(jnp.asarray(past))  # [features, k, features]
    np.testing.assert_allclose(jacobian[:, -1], expected, rtol=1e-12, atol=1e-14)
    np.testing.assert_array_equal(jacobian[:, :-1], np.zeros((FEATURES, k - 1, FEATURES)))


def elman(W, U, b, xs):
    """An Elman network from h_0 = 0."""
    cell = sj.Elman(FEATURES, param_dtype=jnp.float64)
    return sj.unroll(cell, ElmanParams(W, U, b), xs)[1]


def test_without_the_one_step_connection_it_is_k_elman_networks_that_take_turns(x64):
    case = skip_rnn(3, time=9)
    W, U, V, b, xs, past = map(jnp.asarray, case.arguments())
    ys, _ = case.run(W, 0 * U, V, b, xs, 0 * past)
    for turn in range(3):
        expected = elman(W, V, b, xs[turn::3])
        np.testing.assert_allclose(ys[turn::3], expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("skip", "V_in_U", "V_kept"), [(3, 0, 0), (1, 1, 1)])
def test_without_the_skip_or_with_a_skip_of_one_it_is_an_elman_network(skip, V_in_U, V_kept, x64):
    case = skip_rnn(skip)
    W, U, V, b, xs, past = map(jnp.asarray, case.arguments())
    ys, _ = case.run(W, U, V_kept * V, b, xs, 0 * past)
    expected = elman(W, U + V_in_U * V, b, xs)
    np.testing.assert_allclose(ys, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    ("skip", "message"),
    [
        (-1, "expected a positive integer, got -1"),
        (
            0,
            "expected how many steps back the second connection reaches, at least 1, got 0; "
            "sj.Elman is the network without one",
        ),
    ],
)
def test_a_skip_below_one_is_refused(skip, message):
    with pytest.raises(ValueError, match=f"^SkipRNN: skip: {re.escape(message)}$"):
        sj.SkipRNN(3, skip)
