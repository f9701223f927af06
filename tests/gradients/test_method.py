"""The form that all methods share: a gradient, updates, and what each of them says of a misuse."""

import dataclasses
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import seqjax as sj
from seqjax.gradients import Gradient, Method
from seqjax.losses import Mean

pytestmark = pytest.mark.usefixtures("quick_compilation", "standard_promotion")

SGD = optax.sgd(0.1)
ONE = jnp.array(1.0)
CELL = sj.DiagonalGRU(2)
PARAMS = sj.OnlineParams(CELL.init(jax.random.key(0), 2), jnp.ones(2))
STEPS = jax.random.normal(jax.random.key(1), (5, 3, 2)), jnp.zeros((5, 3))


def squares(params, carry, batch, key):
    return jnp.sum((params * batch) ** 2), (carry + 1, {"count": Mean(1.0, 1.0)})


def step_squares(head, y, target):
    return jnp.mean(jnp.square(y @ head - target))


def test_bptt_is_the_gradient_of_jax_and_the_carry_leaves_as_data():
    batch, count = jnp.array([1.0, 2.0]), jnp.array(5)
    gradient = sj.bptt(squares)(jnp.array(3.0), count, batch, None)
    assert float(gradient.grads) == 2 * 3.0 * (1 + 4)
    assert int(gradient.carry) == 6
    assert float(gradient.metrics["loss"].value) == 9.0 * 5
    assert set(gradient.metrics) == {"loss", "count"}
    result = sj.bptt.update(squares, SGD)(jnp.array(3.0), SGD.init(3.0), count, batch, None)
    assert float(result.params) == pytest.approx(3.0 - 0.1 * 30)
    assert result.metrics["loss"].value.shape == (1,)


def test_a_loss_that_reports_its_own_loss_is_not_overruled():
    def loss(params, carry, batch, key):
        return jnp.sum(params), (carry, {"loss": Mean(jnp.array(7.0), jnp.array(1.0))})

    assert float(sj.bptt(loss)(jnp.ones(2), None, None, None).metrics["loss"].value) == 7.0


@pytest.mark.parametrize("one", [2, 2.0, np.float32(2), np.array(2), jnp.array(2, jnp.bfloat16)])
def test_a_scalar_among_the_metrics_is_one_observation(one):
    loss = lambda params, carry, batch, key: (params * 1.0, (carry, {"one": one}))
    metrics = sj.bptt(loss)(jnp.array(3.0), None, None, None).metrics
    assert [(float(m.total), float(m.count)) for m in metrics.values()] == [(3.0, 1.0), (2.0, 1.0)]
    assert jnp.result_type(metrics["one"].total) == jnp.float32
    windows = sj.tbptt(2)(loss)(jnp.array(3.0), None, jnp.ones(6), None)
    assert windows.metrics["one"] == Mean(6.0, 3.0)


def test_no_gradient_flows_through_the_carry_that_comes_in():
    """The state depends on params of an earlier call; its value counts, its history does not."""
    cell = sj.Elman(3)
    params = cell.init(jax.random.key(0), 2)
    xs = jax.random.normal(jax.random.key(1), (8, 2))

    def loss(params, carry, batch, key):
        state, ys = sj.unroll(cell, params, batch, carry)
        return jnp.sum(ys**2), (state, {})

    first = sj.bptt(loss)(params, cell.initial_state(params), xs[:4], None)
    second = sj.bptt(loss)(params, first.carry, xs[4:], None)
    frozen = jax.tree.map(lambda s: jnp.asarray(np.asarray(s)), first.carry)
    alone = jax.grad(lambda p: loss(p, frozen, xs[4:], None)[0])(params)
    np.testing.assert_array_equal(second.grads.recurrent_kernel, alone.recurrent_kernel)


def scaled(params, carry, batch, key):
    """A carry that may be a plain number."""
    return params * carry * jnp.mean(batch), (carry * 0.5, {})


@dataclasses.dataclass(frozen=True)
class Mine(Method):
    """A method of one's own: a gradient of 1, or a mistake."""

    broken: bool = False

    def gradient(self, loss):
        form: Any = tuple if self.broken else lambda parts: Gradient(*parts)
        return lambda params, carry, batch, key: form((jnp.ones_like(params), carry, {}))


WHOLE = {
    "bptt": sj.bptt,
    "tbptt": sj.tbptt(2),
    "tbptt back": sj.tbptt(2, 4),
    "tbptt accumulated": sj.tbptt(2, 4, accumulate=True),
}
RULES = {
    "rtrl": sj.rtrl(CELL, every=2),
    "snap": sj.snap(CELL, every=2),
    "uoro": sj.uoro(CELL, every=None),
    "eprop": sj.eprop(CELL),
    "rflo": sj.rflo(sj.Elman(2)),
}
EVERY = pytest.mark.parametrize("name", [*WHOLE, *RULES, "mine"])


def of(name: str) -> tuple[Any, Any, Any]:
    """A method, a loss for it, and the arguments of its gradient."""
    if name == "mine":
        return Mine(), scaled, (ONE, ONE, jnp.ones(4), None)
    if name in WHOLE:
        return WHOLE[name], scaled, (ONE, ONE, jnp.ones(4), None)
    head = PARAMS.head
    params = (
        PARAMS if name != "rflo" else sj.OnlineParams(sj.Elman(2).init(jax.random.key(0), 2), head)
    )
    return RULES[name], step_squares, (params, None, STEPS, jax.random.key(2))


@EVERY
def test_a_method_is_a_value_that_gives_a_gradient_and_updates_of_one_form(name):
    method, loss, (params, *rest) = of(name)
    copy = dataclasses.replace(method)
    assert copy == method
    assert hash(copy) == hash(method)
    found = jax.jit(method(loss))(params, *rest)
    assert isinstance(found, Gradient)
    chex.assert_trees_all_equal_shapes_and_dtypes(found.grads, params)
    update = jax.jit(method.update(loss, optax.adam(0.1)))
    result = update(params, optax.adam(0.1).init(params), *rest)
    chex.assert_trees_all_equal_shapes_and_dtypes(result.params, params)
    windows = {"tbptt": 2, "tbptt back": 2, "rtrl": 3, "snap": 3, "eprop": 5, "rflo": 5}
    assert {m.total.shape for m in result.metrics.values()} <= {(windows.get(name, 1),)}


def refused(message, call):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.usefixtures("unchecked")
@EVERY
def test_a_misuse_says_what_to_do(name):
    method, loss, _ = of(name)
    named = f"^{method.name}: "
    refused(
        rf"{named}.*got 2: for updates use \.update\(loss, optimizer\)", lambda: method(loss, SGD)
    )
    refused(f"{named}optimizer: expected one of optax, got None", lambda: method.update(loss, None))
    if name == "mine":
        return
    for way in (method, lambda loss: method.update(loss, SGD)):
        refused(f"{named}.*: expected a function, got None", lambda way=way: way(None))
        if name in WHOLE:
            message = (
                r"is called as loss\(params, carry, batch, key\), .* \(head, y, target\).*sj.rtrl"
            )
            refused(named + ".*" + message, lambda way=way: way(step_squares))
        else:
            message = r"is called as step_loss\(head, y, target\), got .*such as sj.bptt"
            refused(named + ".*" + message, lambda way=way: way(scaled))


def test_a_gradient_of_another_form_is_named():
    message = (
        r"^mine: the gradient function gives \(float32\[\], .*, dict\); expected a sj.gradients."
    )
    update = Mine(broken=True).update(scaled, SGD)
    refused(message, lambda: update(ONE, (), ONE, jnp.ones(4), None))


@pytest.mark.usefixtures("unchecked")
def test_earlier_forms_of_rules_say_the_new_one():
    wrong: Any = step_squares
    number: Any = 2
    for make, message in (
        (lambda: sj.rtrl(CELL, wrong), r"rtrl: every: .*afterwards: sj\.rtrl\(cell\)\(step_loss\)"),
        (lambda: sj.uoro(CELL, wrong), r"uoro: every: .*afterwards: sj\.uoro\(cell\)\(step_loss\)"),
        (lambda: sj.snap(CELL, wrong), r"snap: order: .*afterwards: sj\.snap\(cell\)\(step_loss\)"),
        (lambda: sj.snap(number), r"snap: cell: expected a Cell, got 2; .* sj\.snap\(cell\)"),
        (lambda: sj.rtrl(CELL, every=0), "rtrl: every: expected a positive integer, got 0"),
        (lambda: sj.eprop(CELL, every=True), "eprop: every: expected a positive integer, got True"),
    ):
        refused(message, make)


LOSSES: dict[str, Any] = {
    r"the loss gives float32\[\]; expected \(scalar, ": lambda p, c, b, k: p * 1.0,
    r"the loss gives \(float32\[\], .*\); expected \(scalar, \(carry, metrics\)\)": (
        lambda p, c, b, k: (p * 1.0, c)
    ),
    r"the loss gives \(float32\[\], .*, dict\)": lambda p, c, b, k: (p * 1.0, c, {}),
    r"the loss gives float32\[3\]; expected": lambda p, c, b, k: (p * jnp.ones(3), (c, {})),
    r"the loss gives int32\[\]; expected one real number": lambda p, c, b, k: (1, (c, {})),
    "the loss gives str; expected one real number": lambda p, c, b, k: ("loss", (c, {})),
}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", WHOLE)
def test_the_form_of_a_loss_is_named(name):
    method = WHOLE[name]
    call = lambda loss: method(loss)(ONE, None, jnp.ones(4), None)
    for message, loss in LOSSES.items():
        refused(f"^{method.name}: {message}", lambda loss=loss: call(loss))
    message = r"metrics None; expected a dict of sj\.losses\.Mean"
    refused(message, lambda: call(lambda p, c, b, k: (p * 1.0, (c, None))))
    if name != "bptt":
        for (carry, batch, key), message in (
            ((2.0, jnp.ones(4), 0), "key: expected one key, .* got 0"),
            (("state", jnp.ones(4), None), "carry: expected an array of numbers"),
            ((2.0, {"text": np.array(["a"] * 4)}, None), r"batch\['text'\]: expected an array"),
        ):
            wrong = carry, batch, key
            refused(f"^tbptt: {message}", lambda wrong=wrong: method(scaled)(ONE, *wrong))


@pytest.mark.parametrize("name", WHOLE)
def test_a_plain_number_is_a_carry_and_a_loss(name):
    method = WHOLE[name]
    came = method(scaled)(ONE, 2.0, jnp.ones(5), None)
    chex.assert_trees_all_equal(came, method(scaled)(ONE, jnp.array(2.0), jnp.ones(5), None))
    counted = method(lambda p, c, b, k: (1.5, (c + 1, {})))(ONE, 0, jnp.ones(4), None)
    assert int(counted.carry) == (1 if name == "bptt" else 2)
    assert float(counted.metrics["loss"].value) == 1.5


def test_bptt_names_params_that_have_no_gradient():
    message = r"bptt: params\['n'\] is int32; expected floating point"
    refused(message, lambda: sj.bptt(scaled)({"n": jnp.arange(3)}, None, None, None))
