"""The sLSTM against the paper's equations without its stabiliser, in float64 and in exact decimals."""

import re
from decimal import Decimal, localcontext
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seqjax as sj
from seqjax.cells.slstm import SLSTMParams, SLSTMState
from seqjax.initializers import NAMED
from tests import oracles
from tests.oracles import Gate

pytestmark = pytest.mark.usefixtures("quick_compilation")

TIME, BATCH, IN_FEATURES, FEATURES = 4, 2, 2, 4
WEIGHTS = np.cos(np.arange(TIME * BATCH * FEATURES)).reshape(TIME, BATCH, FEATURES)

VARIANTS = pytest.mark.parametrize(
    ("heads", "forget_gate"), [(1, "sigmoid"), (2, "exp"), (4, "sigmoid")]
)


def draw(*shapes):
    """Float64 arrays, the same at every call."""
    random = np.random.default_rng(0)
    return [0.8 * random.standard_normal(shape) for shape in shapes]


def weights_of(heads, features=FEATURES, in_features=IN_FEATURES):
    """W, R and b."""
    size = features // heads
    return draw((in_features, 4 * features), (heads, size, 4, size), (4 * features,))


def inputs_and_state(batch=BATCH):
    """Xs, and a state in the middle of a run: its normaliser is above 1."""
    xs, *state = draw((TIME, batch, IN_FEATURES), *[(batch, FEATURES)] * 4)
    h, c, n, m = state
    return xs, h, c, 1 + np.abs(n), m


def unpacked(W, R, b):
    """The weights of each gate by itself, R with zeros between the heads."""
    heads, size, _, _ = R.shape
    gates = {}
    for position, name in enumerate("ifzo"):
        dense = np.zeros((heads * size, heads * size), R.dtype)
        for head in range(heads):
            block = slice(head * size, (head + 1) * size)
            dense[block, block] = R[head, :, position]
        columns = slice(position * heads * size, (position + 1) * heads * size)
        gates[name] = Gate(W[:, columns], dense, b[columns])
    return gates


def slstm(gates, forget_gate, x, h, c, n):
    """Equations 8 to 14 as they stand, for one sequence: the h of each step, and the last c and n.

    No stabiliser, and only operations that float64 and Decimal both have: in float64 this overflows
    where a gate is large, in decimals, whose exponents have six digits, it does not.
    """
    sigmoid = lambda a: 1 / (1 + np.exp(-a))
    tanh = lambda a: 2 * sigmoid(2 * a) - 1
    hs = []
    for x_t in x:
        i = np.exp(gates["i"](x_t, h))
        f = (np.exp if forget_gate == "exp" else sigmoid)(gates["f"](x_t, h))
        z = tanh(gates["z"](x_t, h))
        o = sigmoid(gates["o"](x_t, h))
        c = f * c + i * z
        n = f * n + i
        h = o * c / n
        hs.append(h)
    return np.array(hs), c, n


def by_equation(forget_gate, W, R, b, xs, h, c, n):
    """All rows: the h of each step [time, batch, features], and the last c and n."""
    gates = unpacked(W, R, b)
    rows = [slstm(gates, forget_gate, xs[:, k], h[k], c[k], n[k]) for k in range(xs.shape[1])]
    hs, cs, ns = zip(*rows, strict=True)
    return np.stack(hs, axis=1), np.array(cs), np.array(ns)


def stabilised(state):
    """C and n without their common factor."""
    return state.c * jnp.exp(state.m), state.n * jnp.exp(state.m)


def run(heads, forget_gate):
    """The weighted outputs and final memory, with (ys, state), and gradients by every argument."""
    cell = sj.SLSTM(FEATURES, heads, forget_gate=forget_gate, param_dtype=jnp.float64)

    def loss(W, R, b, xs, h, c, n, m):
        state, ys = sj.unroll(cell, SLSTMParams(W, R, b), xs, SLSTMState(h, c, n, m))
        last_c, last_n = stabilised(state)
        value = (ys * WEIGHTS).sum() + (last_c * WEIGHTS[0]).sum() + (last_n * WEIGHTS[1]).sum()
        return value, (ys, state)

    return jax.jit(jax.value_and_grad(loss, argnums=tuple(range(8)), has_aux=True))


def expected_loss(forget_gate, W, R, b, xs, h, c, n, m):
    hs, c, n = by_equation(forget_gate, W, R, b, xs, h, c * np.exp(m), n * np.exp(m))
    return (hs * WEIGHTS).sum() + (c * WEIGHTS[0]).sum() + (n * WEIGHTS[1]).sum()


@VARIANTS
def test_the_cell_and_all_its_gradients_are_those_of_the_equations(heads, forget_gate, x64):
    arguments = [*weights_of(heads), *inputs_and_state()]
    (_, (ys, state)), gradients = run(heads, forget_gate)(*arguments)
    W, R, b, xs, h, c, n, m = arguments
    hs, last_c, last_n = by_equation(forget_gate, W, R, b, xs, h, c * np.exp(m), n * np.exp(m))
    np.testing.assert_allclose(ys, hs, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(state.h, hs[-1], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(stabilised(state), (last_c, last_n), rtol=1e-12, atol=1e-12)
    quotients = oracles.finite_differences(lambda *a: expected_loss(forget_gate, *a), *arguments)
    for ours, theirs in zip(gradients, quotients, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-8, atol=1e-8)


@VARIANTS
def test_from_an_empty_memory_the_gradients_are_those_of_the_equations(heads, forget_gate, x64):
    """At n = 0 the cell ignores c and m, as an empty memory has none: there their gradient is zero.

    By n itself there is no derivative to compare with: below 0 the memory is empty, so the left
    derivative is zero, and above 0 it holds c / n, so the right one is not. What is returned is the left
    one. All else is differentiated as usual.
    """
    arguments = [*weights_of(heads), *inputs_and_state()]
    nothing = np.zeros((BATCH, FEATURES))
    (_, (ys, state)), gradients = run(heads, forget_gate)(*arguments[:5], *[nothing] * 3)
    W, R, b, xs, h = arguments[:5]
    hs, c, n = by_equation(forget_gate, W, R, b, xs, h, nothing, nothing)
    np.testing.assert_allclose(ys, hs, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(stabilised(state), (c, n), rtol=1e-12, atol=1e-12)
    quotients = oracles.finite_differences(
        lambda *a: expected_loss(forget_gate, *a, c=nothing, n=nothing, m=nothing), *arguments[:5]
    )
    for ours, theirs in zip(gradients[:5], quotients, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-8, atol=1e-8)
    np.testing.assert_array_equal(gradients[5:], np.zeros((3, BATCH, FEATURES)))


def test_the_first_step_gives_the_output_gate_times_the_candidate_whatever_c_and_m_are(x64):
    W, R, b = weights_of(2)
    xs, h, c, _, m = inputs_and_state()
    cell = sj.SLSTM(FEATURES, heads=2, param_dtype=jnp.float64)
    state = SLSTMState(*map(jnp.asarray, (h, c, np.zeros_like(c), m)))
    after, y = cell.step(SLSTMParams(*map(jnp.asarray, (W, R, b))), state, jnp.asarray(xs[0]))
    gates = unpacked(W, R, b)
    for row in range(BATCH):
        z, o = (gates[name](xs[0, row], h[row]) for name in "zo")
        np.testing.assert_allclose(y[row], oracles.sigmoid(o) * np.tanh(z), rtol=1e-13)
        np.testing.assert_allclose(after.m[row], gates["i"](xs[0, row], h[row]), rtol=1e-13)
    np.testing.assert_array_equal(after.n, np.ones((BATCH, FEATURES)))


EXTREMES = np.array([-1000.0, -999.5, -30.0, 0.0, 1.5, 30.0, 999.25, 1000.0])


def extreme():
    """Weights of the identity, so that xs are the pre-activations, and a little recurrence."""
    random = np.random.default_rng(1)
    xs = random.choice(EXTREMES, (6, 4 * FEATURES))
    xs[:, ::FEATURES] = 0  # in one unit log f + m and log i tie at every step, where f is exp
    R = 0.3 * random.standard_normal((2, 2, 4, 2))
    return np.eye(4 * FEATURES), R, np.zeros(4 * FEATURES), xs


def extreme_run(forget_gate, dtype):
    W, R, b, xs = (jnp.asarray(a, dtype) for a in extreme())
    cell = sj.SLSTM(FEATURES, heads=2, forget_gate=forget_gate, param_dtype=dtype)
    weights = jnp.asarray(np.cos(np.arange(xs.shape[0] * FEATURES)), dtype).reshape(-1, FEATURES)

    def loss(R, xs):
        _, ys = sj.unroll(cell, SLSTMParams(W, R, b), xs)
        return (ys * weights).sum(), ys

    (_, ys), gradients = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))(R, xs)
    return ys, gradients


def exact(forget_gate):
    """Values and gradients of `extreme_run` in a hundred digits."""
    decimals = np.vectorize(Decimal, otypes=[object])
    W, R, b, xs = map(decimals, extreme())
    weights = decimals(np.cos(np.arange(xs.shape[0] * FEATURES)).reshape(-1, FEATURES))
    nothing = decimals(np.zeros(FEATURES))

    def values(R, xs):
        return slstm(unpacked(W, R, b), forget_gate, xs, nothing, nothing, nothing)[0]

    def quotients(loss, argument, step=Decimal(10) ** -30):
        gradient = np.zeros(argument.shape)
        for index in np.ndindex(argument.shape):
            moved = argument.copy()
            moved[index] += step
            gradient[index] = float((loss(moved) - loss(argument)) / step)
        return gradient

    with localcontext() as context:
        context.prec = 100
        loss = lambda R, xs: (values(R, xs) * weights).sum()
        by_R = quotients(lambda R: loss(R, xs), R)
        by_xs = quotients(lambda xs: loss(R, xs), xs)
        return values(R, xs).astype(float), (by_R, by_xs)


@pytest.mark.parametrize("forget_gate", ["sigmoid", "exp"])
def test_pre_activations_of_a_thousand_give_the_exact_values_and_gradients(forget_gate, x64):
    ys, gradients = extreme_run(forget_gate, jnp.float64)
    expected, quotients = exact(forget_gate)
    # The sum log f + m, of order 1e3 to 1e4, is rounded to 1e-12 at each of six steps.
    np.testing.assert_allclose(ys, expected, rtol=1e-10, atol=1e-11)
    assert np.abs(quotients[0]).max() > 0.01  # not all is saturated
    assert np.abs(quotients[1]).max() > 0.01
    for ours, theirs in zip(gradients, quotients, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-11)
    # In float32 the same sum is rounded to 5e-4.
    narrow, gradients = extreme_run(forget_gate, jnp.float32)
    np.testing.assert_allclose(narrow, expected, atol=5e-3)
    for ours, theirs in zip(gradients, quotients, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-2)


@pytest.mark.parametrize("forget_gate", ["sigmoid", "exp"])
def test_after_the_first_step_the_normaliser_never_falls_below_one(forget_gate):
    W, R, b, xs = (jnp.asarray(a, jnp.float32) for a in extreme())
    cell = sj.SLSTM(FEATURES, heads=2, forget_gate=forget_gate)
    params = SLSTMParams(W, R, b)
    state = cell.initial_state(params)
    largest = np.full(FEATURES, -np.inf)
    for x in xs:
        log_i = np.asarray(cell.project(params, x).reshape(4, FEATURES)[0])
        state, _ = cell.step(params, state, x)
        assert np.all(np.asarray(state.n) >= 1)
        assert np.all(np.abs(state.c) <= state.n)
        largest = np.maximum(largest, log_i + 2)  # what R adds is below 2
        assert forget_gate == "exp" or np.all(np.asarray(state.m) <= largest)


def test_scaling_all_input_gates_alike_changes_nothing(x64):
    W, R, b = weights_of(2)
    cell = sj.SLSTM(FEATURES, heads=2, param_dtype=jnp.float64)
    xs = jnp.asarray(inputs_and_state()[0])
    shifted = np.concatenate([b[:FEATURES] + 7, b[FEATURES:]])
    one, other = (
        sj.unroll(cell, SLSTMParams(*map(jnp.asarray, (W, R, bias))), xs)[1]
        for bias in (b, shifted)
    )
    np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-13)


def test_in_single_precision_the_cell_keeps_to_the_equations():
    arguments = [*weights_of(2), *inputs_and_state()]
    W, R, b, *rest = (jnp.asarray(a, jnp.float32) for a in arguments)
    xs, *state = rest
    cell = sj.SLSTM(FEATURES, heads=2)
    _, ys = sj.unroll(cell, SLSTMParams(W, R, b), xs, SLSTMState(*state))
    W, R, b, xs, h, c, n, m = arguments
    hs, _, _ = by_equation("sigmoid", W, R, b, xs, h, c * np.exp(m), n * np.exp(m))
    np.testing.assert_allclose(ys, hs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("features", "heads", "in_features", "batch"),
    [(1, 1, 1, (2,)), (6, 3, 1, (1,)), (3, 1, 2, ()), (5, 5, 3, (2,))],
)
def test_odd_sizes_give_the_equations(features, heads, in_features, batch, x64):
    W, R, b = weights_of(heads, features, in_features)
    (xs,) = draw((3, *batch, in_features))
    cell = sj.SLSTM(features, heads, param_dtype=jnp.float64)
    _, ys = sj.unroll(cell, SLSTMParams(*map(jnp.asarray, (W, R, b))), jnp.asarray(xs))
    rows = xs.reshape(3, -1, in_features)
    nothing = np.zeros((rows.shape[1], features))
    expected, _, _ = by_equation("sigmoid", W, R, b, rows, nothing, nothing, nothing)
    np.testing.assert_allclose(ys, expected.reshape(3, *batch, features), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("options", "forget"),
    [({}, 1.0), ({"forget_gate": "exp"}, 0.0), ({"forget_bias": 2.5}, 2.5)],
)
def test_the_forget_bias_starts_where_it_keeps_and_the_others_at_zero(options, forget, key):
    i, f, z, o = jnp.split(sj.SLSTM(6, **options).init(key, 2).bias, 4)
    np.testing.assert_array_equal(f, np.full(6, forget))
    np.testing.assert_array_equal([i, z, o], np.zeros((3, 6)))


@pytest.mark.parametrize("rule", list(NAMED))
def test_each_initialiser_draws_each_gate_of_each_head_alone(rule, key):
    params = sj.SLSTM(16, heads=2, input_init=rule, recurrent_init=rule).init(key, 16)
    R = np.asarray(params.recurrent_kernel)
    blocks = [R[head, :, gate] for head in range(2) for gate in range(4)]
    gates = np.split(np.asarray(params.input_kernel), 4, axis=1)
    assert all(oracles.is_drawn_by(rule, block) for block in [*blocks, *gates])
    if rule not in ("identity", "zeros"):
        for kernels in (blocks, gates):
            assert len({kernel.tobytes() for kernel in kernels}) == len(kernels)


def test_the_memory_is_empty_and_finite_at_first(key):
    cell = sj.SLSTM(4, heads=2)
    for leaf in cell.initial_state(cell.init(key, 3), (2,)):
        np.testing.assert_array_equal(leaf, np.zeros((2, 4)))


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"features": 0}, "SLSTM: features: expected a positive integer, got 0"),
    ({"heads": 4}, "SLSTM: heads: expected a divisor of the 6 features, got 4"),
    ({"heads": 0}, "SLSTM: heads: expected a positive integer, got 0"),
    ({"forget_gate": "relu"}, "SLSTM: forget_gate: expected one of 'sigmoid', 'exp', got 'relu'"),
    ({"forget_bias": np.inf}, "SLSTM: forget_bias: expected a finite number, got inf"),
]


@pytest.mark.parametrize(("fields", "message"), REFUSED)
def test_hyperparameters_that_make_no_cell_are_refused(fields, message, unchecked):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        sj.SLSTM(**{"features": 6, **fields})


def test_inputs_of_another_size_are_refused(key):
    cell = sj.SLSTM(4, heads=2)
    params = cell.init(key, in_features=2)
    with pytest.raises(ValueError, match=r"SLSTM: x has shape \(4, 5\); expected \[\*batch, 2\]"):
        cell.step(params, cell.initial_state(params, (4,)), jnp.ones((4, 5)))
