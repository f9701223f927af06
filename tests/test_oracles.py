"""Backpropagation through time by hand agrees with differences and autodiff; its slips do not."""

import pathlib
import re
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seqjax as sj
from seqjax.cells.elman import ElmanParams, ElmanState
from seqjax.gates import Activation
from tests import oracles
from tests.oracles import ACTIVATIONS, Gate, Readout

PAGE = pathlib.Path(__file__).parent.parent / "docs" / "backpropagation.md"


class Problem(NamedTuple):
    """A network, a sequence and its targets."""

    weights: Gate
    readout: Readout
    x: np.ndarray
    s_0: np.ndarray
    targets: np.ndarray


def problem(features: int = 3, outputs: int = 4, time: int = 6, seed: int = 4) -> Problem:
    # The legacy generator: its stream is frozen, and the page quotes numbers.
    draw = np.random.RandomState(seed)
    weights = Gate(
        W=0.5 * draw.standard_normal((2, features)),
        U=0.5 * draw.standard_normal((features, features)),
        b=0.5 * draw.standard_normal(features),
    )
    readout = Readout(draw.standard_normal((features, outputs)), draw.standard_normal(outputs))
    x, s_0 = draw.standard_normal((time, 2)), draw.standard_normal(features)
    return Problem(weights, readout, x, s_0, draw.randint(0, outputs, time))


def loss_and_gradients(kind: str, p: Problem, activation: str):
    s = oracles.elman(p.weights, activation, p.x, p.s_0)
    if kind == "many to one":
        return oracles.many_to_one(p.readout, s, target=1.0)
    return oracles.many_to_many(p.readout, s, p.targets)


def by_hand(p: Problem, **slip) -> Gate:
    """The gradients of the many-to-many network, with a slip in them where one is given."""
    return by_hand_of("many to many", p, "tanh", **slip)


def by_hand_of(kind: str, p: Problem, activation: str, **slip) -> Gate:
    states = loss_and_gradients(kind, p, activation).states
    return oracles.double_sum(p.weights, activation, p.x, p.s_0, states, **slip)


def jax_loss(kind: str, activation: Activation, targets, params, readout, x, state):
    """The same losses in JAX, over the library's cell."""
    cell = sj.Elman(params.bias.shape[0], activation=activation, param_dtype=jnp.float64)
    _, s = sj.unroll(cell, params, x, state)
    o = s @ readout.V + jnp.broadcast_to(readout.c, (len(s), readout.c.shape[0]))
    if kind == "many to one":
        return -jax.nn.log_sigmoid(o[-1, 0])  # the target is 1
    return -jnp.sum(jnp.take_along_axis(jax.nn.log_softmax(o), targets[:, None], axis=1))


KINDS = [("many to one", 1), ("many to many", 4)]
kinds = pytest.mark.parametrize(("kind", "outputs"), KINDS)
activations = pytest.mark.parametrize("activation", list(ACTIVATIONS))


@activations
def test_the_derivative_of_each_activation_is_its_difference_quotient(activation):
    a = np.array([-2.0, -0.3, 0.4, 1.5])
    (expected,) = oracles.finite_differences(
        lambda a: float(np.sum(ACTIVATIONS[activation].value(a))), a
    )
    np.testing.assert_allclose(ACTIVATIONS[activation].derivative(a), expected, atol=1e-9)


@kinds
@activations
def test_the_double_sum_is_the_difference_quotient_of_the_loss(kind, outputs, activation):
    p = problem(outputs=outputs)

    def loss(W, U, b, V, c):
        moved = p._replace(weights=Gate(W, U, b), readout=Readout(V, c))
        return loss_and_gradients(kind, moved, activation).loss

    expected = oracles.finite_differences(loss, *p.weights, *p.readout)
    readout = loss_and_gradients(kind, p, activation).readout
    for ours, theirs in zip((*by_hand_of(kind, p, activation), *readout), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-8, atol=1e-8)


@kinds
@activations
def test_autodiff_through_unroll_gives_the_double_sum(kind, outputs, activation, x64):
    p = problem(outputs=outputs)
    params = ElmanParams(*(jnp.asarray(w) for w in p.weights))
    differentiate = jax.jit(jax.value_and_grad(jax_loss, argnums=(3, 4)), static_argnums=(0, 1))
    loss, (gradients, head) = differentiate(
        kind, activation, p.targets, params, p.readout, p.x, ElmanState(jnp.asarray(p.s_0))
    )
    expected = loss_and_gradients(kind, p, activation)
    np.testing.assert_allclose(loss, expected.loss, rtol=1e-12)
    for ours, theirs in zip(
        (*gradients, *head),
        (*by_hand_of(kind, p, activation), *expected.readout),
        strict=True,
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-11, atol=1e-11)


def value_for_derivative(activation, a, U):
    return np.diag(ACTIVATIONS[activation].value(a)) @ U.T


def no_transpose(activation, a, U):
    return np.diag(ACTIVATIONS[activation].derivative(a)) @ U


def no_derivative(activation, a, U):
    return U.T


SLIPS = {
    "φ in place of φ'": {"jacobian": value_for_derivative},
    "φ' left out": {"jacobian": no_derivative},
    "U in place of Uᵀ": {"jacobian": no_transpose},
    "factors in rising order": {"factors": lambda k, t: range(k + 1, t + 1)},
    "only k = t": {"starts": lambda t: [t]},
    "only k = 1": {"starts": lambda t: [1]},
    "j = t … k": {"factors": lambda k, t: range(t, k - 1, -1)},
    "j = t-1 … k+1": {"factors": lambda k, t: range(t - 1, k, -1)},
}


def relative_error(slipped: Gate, right: Gate) -> float:
    difference = sum(np.sum((a - b) ** 2) for a, b in zip(slipped, right, strict=True))
    return float(np.sqrt(difference / sum(np.sum(b**2) for b in right)))


@pytest.mark.parametrize("slip", list(SLIPS))
def test_a_slipped_formula_does_not_give_the_gradient(slip):
    p = problem()
    assert relative_error(by_hand(p, **SLIPS[slip]), by_hand(p)) > 0.05


@pytest.mark.parametrize("slip", list(SLIPS))
def test_the_page_quotes_the_error_of_each_slip(slip):
    p = problem()
    error = relative_error(by_hand(p, **SLIPS[slip]), by_hand(p))
    (row,) = [line for line in PAGE.read_text().splitlines() if line.startswith(f"| {slip} |")]
    assert row.split("|")[-2].strip() == f"{error:.2f}"


@pytest.mark.parametrize("slip", ["U in place of Uᵀ", "factors in rising order"])
def test_with_one_unit_a_slip_of_order_goes_unnoticed(slip):
    p = problem(features=1)
    assert relative_error(by_hand(p, **SLIPS[slip]), by_hand(p)) < 1e-14


@pytest.mark.parametrize("slip", [name for name in SLIPS if name not in ("j = t … k",)])
def test_with_one_step_a_slip_between_steps_goes_unnoticed(slip):
    p = problem(time=1)
    assert relative_error(by_hand(p, **SLIPS[slip]), by_hand(p)) == 0


def test_the_snippet_of_the_page_prints_what_it_says(capsys):
    (snippet,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    exec(snippet, {})
    assert capsys.readouterr().out.split() == re.findall(r"# (\S+)$", snippet, re.MULTILINE)
