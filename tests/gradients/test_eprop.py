"""E-prop and RFLO against the papers' equations, unit by unit and weight by weight in NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seqjax as sj
from tests.gradients import online_problem
from tests.gradients.online_problem import (
    IN_FEATURES,
    OUTPUTS,
    assert_close,
    distance,
    forward,
    squares,
)
from tests.oracles import ACTIVATIONS, sigmoid

pytestmark = pytest.mark.usefixtures("quick_compilation")

SIZE = 3
FEEDBACK = np.cos(np.arange(OUTPUTS * SIZE)).reshape(OUTPUTS, SIZE)


def true_signal(V, error):
    """∂L_t/∂h_t = V e_t."""
    return V @ error


def random_signal(V, error):
    """B e_t, with weights that never learn."""
    return error @ FEEDBACK


def random_feedback(head, y, target):
    return (y @ head - target) @ jnp.asarray(FEEDBACK)


SIGNALS = pytest.mark.parametrize(
    ("given", "signal"),
    [(None, true_signal), (random_feedback, random_signal)],
    ids=["true", "random"],
)


def weights(problem):
    """W and U one above the other and b below, [in_features + SIZE + 1, ...], and the readout V."""
    W, U, b, *_ = (np.asarray(leaf) for leaf in jax.tree.leaves(problem.params.cell))
    return np.concatenate([W, U, b[None]]), np.asarray(problem.params.head)


def stacked(grads):
    return np.concatenate([grads.input_kernel, grads.recurrent_kernel, grads.bias[None]])


def rflo_by_hand(problem, leak, activation, signal):
    """Murray 2019: p_{ab} ← (1 - α) p_{ab} + α φ'(u_a) v_b, Δw_{ab} ∝ [B e]_a p_{ab}."""
    theta, V = weights(problem)
    phi = ACTIVATIONS[activation]
    h, p, total, head = np.zeros(SIZE), np.zeros_like(theta), np.zeros_like(theta), 0 * V
    for x, target in zip(*map(np.asarray, problem.batch[:2]), strict=True):
        v = np.concatenate([x, h, [1.0]])
        u = v @ theta
        h = (1 - leak) * h + leak * phi.value(u)
        error = h @ V - target
        for a in range(SIZE):
            for b in range(len(v)):
                p[b, a] = (1 - leak) * p[b, a] + leak * phi.derivative(u)[a] * v[b]
                total[b, a] += signal(V, error)[a] * p[b, a]
        head += np.outer(h, error)
    return total, head


@SIGNALS
@pytest.mark.parametrize(("leak", "activation"), [(0.3, "tanh"), (1.0, "relu")])
def test_rflo_is_the_papers_rule_on_a_leaky_network(leak, activation, given, signal, x64):
    cell = sj.Elman(SIZE, activation=activation, leak=leak, param_dtype=jnp.float64)
    problem = online_problem.make(cell, time=5, batch=())
    grads, *_ = forward(functools.partial(sj.rflo, signal=given), problem)
    theta, head = rflo_by_hand(problem, leak, activation, signal)
    np.testing.assert_allclose(stacked(grads.cell), theta, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(grads.head, head, rtol=1e-12)


def eprop_by_hand(problem, signal):
    """Bellec et al. 2020, with c as the hidden state of a unit and h as what others see of it.

    ε_t = (∂c_t/∂c_{t-1}) ε_{t-1} + ∂c_t/∂θ, e_t = (∂h_t/∂c_t) ε_t + ∂h_t/∂θ, dE/dθ = Σ_t L_t e_t.
    """
    theta, V = weights(problem)
    h, c = np.zeros(SIZE), np.zeros(SIZE)
    epsilon, total = np.zeros_like(theta), np.zeros_like(theta)
    for x, target in zip(*map(np.asarray, problem.batch[:2]), strict=True):
        v = np.concatenate([x, h, [1.0]])
        i, f, g, o = np.split(v @ theta, 4)
        i, f, g, o = sigmoid(i), sigmoid(f), np.tanh(g), sigmoid(o)
        # ∂c_t and ∂h_t by the four pre-activations, the cell before held fixed.
        into_c = np.concatenate([g * i * (1 - i), c * f * (1 - f), i * (1 - g**2), 0 * o])
        c = f * c + i * g
        into_h = np.concatenate([0 * i, 0 * f, 0 * g, np.tanh(c) * o * (1 - o)])
        h = o * np.tanh(c)
        epsilon = np.tile(f, 4) * epsilon + np.outer(v, into_c)
        eligibility = np.tile(o * (1 - np.tanh(c) ** 2), 4) * epsilon + np.outer(v, into_h)
        total += np.tile(signal(V, h @ V - target), 4) * eligibility
    return total


@SIGNALS
def test_eprop_is_the_papers_rule_on_an_lstm(given, signal, x64):
    problem = online_problem.make(sj.LSTM(SIZE, param_dtype=jnp.float64), time=5, batch=())
    grads, *_ = forward(functools.partial(sj.eprop, signal=given), problem)
    theta = eprop_by_hand(problem, signal)
    np.testing.assert_allclose(stacked(grads.cell), theta, rtol=1e-11, atol=1e-14)


def test_an_eligibility_trace_is_as_large_as_the_params():
    cell = sj.LSTM(5)
    params = sj.OnlineParams(cell.init(jax.random.key(0), IN_FEATURES))
    kept = sj.eprop(cell).online(squares).init(params, (4,)).influence
    assert kept.input_kernel.shape == (4, 2, IN_FEATURES, 20)  # h and c of one unit


def test_without_recurrent_weights_eprop_is_exact(x64):
    problem = online_problem.make(sj.GRU(SIZE, param_dtype=jnp.float64))
    zero = problem.params.cell._replace(recurrent_kernel=0.0 * problem.params.cell.recurrent_kernel)
    still = problem._replace(params=problem.params._replace(cell=zero))
    run = jax.jit(lambda p: (forward(sj.eprop, still, p), forward(sj.rtrl, still, p)))
    for params, exact in ((still.params, True), (problem.params, False)):
        (cut, *values, _), (whole, *expected, _) = run(params)
        assert_close(values, expected)  # whatever is cut, values are those of the cell
        if exact:
            assert_close(cut, whole)
        else:
            assert distance(cut, whole) > 1e-2


@pytest.mark.parametrize(
    "noisy", [sj.Zoneout(sj.LSTM(2), 0.3), sj.RecurrentDropout(sj.GRU(2), 0.3)]
)
def test_gated_wrappers_are_served(noisy):
    params = sj.OnlineParams(noisy.init(jax.random.key(0), 3), jnp.ones((2, 2)))
    rule = sj.eprop(noisy).online(squares)
    state = rule.init(params, (4,), key=jax.random.key(1))
    x = jnp.ones((4, 3))
    result = jax.jit(rule.update)(params, state, x, jnp.zeros((4, 2)))
    after, y = noisy.step(params.cell, state.cell, x)
    np.testing.assert_allclose(result.y, y, rtol=1e-6)
    assert jax.tree.structure(result.state.cell) == jax.tree.structure(after)
