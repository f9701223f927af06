"""Errors of online rules: each begins with the rule and names what a user knows."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import seqjax as sj
from tests.gradients.online_problem import assert_close

pytestmark = pytest.mark.usefixtures("unchecked", "quick_compilation")

CELL = sj.Elman(3)
RULES: dict[str, Any] = {
    "rtrl": sj.rtrl,
    "snap": sj.snap,
    "uoro": sj.uoro,
    "rflo": sj.rflo,
    "eprop": sj.eprop,
}
EVERY_RULE = pytest.mark.parametrize("name", RULES)


def step_loss(head, y, target):
    return jnp.sum(y)


@functools.cache
def params(cell=CELL):
    return sj.OnlineParams(cell.init(jax.random.key(0), 2))


@functools.cache
def made(name, cell=CELL):
    """The rule, and its state for a batch of four."""
    online = RULES[name](cell).online(step_loss)
    return online, online.init(params(cell), (4,), key=jax.random.key(1))


def refused(name, call, message):
    with pytest.raises(ValueError, match=message) as refusal:
        call()
    assert str(refusal.value).startswith(f"{name}: ")
    assert "Cut" not in str(refusal.value)


INITS: list[Any] = [
    ((params().cell,), r"params is a ElmanParams; expected sj\.On"),
    ((tuple(params()),), r"params is a tuple; expected sj\.OnlineParams"),
    (
        (params(sj.GRU(3)),),
        r"params\.cell is GRUParams of shapes .*; expected what Elman\(features=3\)\.init",
    ),
    ((params(sj.Elman(5)),), r"params\.cell is ElmanParams of shapes"),
    (
        (params()._replace(head=jnp.arange(3)),),
        r"params\.head is int32; expected floating point",
    ),
    ((params(), 4), r"batch_shape: expected a tuple of integers .* got 4"),
    ((params(), (-4,)), r"batch_shape: .* of at least 0, got \(-4,\)"),
    ((params(), (1.5,)), r"batch_shape: .* got \(1\.5,\)"),
]
STATES: list[Any] = [
    (
        {"state": CELL.initial_state(params().cell, (3,)), "key": jax.random.key(0)},
        r"state\.h is float32\[3, 3\]; expected float32\[4, 3\], as Elman\(features=3\)\.initial_state",
    ),
    (
        {
            "state": sj.GRU(3).initial_state(params(sj.GRU(3)).cell, (4,)),
            "key": jax.random.key(0),
        },
        "state has structure .*GRUState",
    ),
    ({"key": 0}, "key: expected one key, .* got 0"),
]
X = np.ones((4, 2), np.float32)
UPDATES: list[Any] = [
    (lambda s: (params().cell, s, X), r"params is a ElmanParams"),
    (lambda s: (params(sj.GRU(3)), s, X), r"params\.cell is GRUParams .*; expected what Elman"),
    (lambda s: (params(), None, X), r"online_state has structure PyTreeDef\(None\)"),
    (lambda s: (params(), s.cell, X), "online_state has structure"),
    (lambda s: (params(), s, np.ones((4, 5))), r"x has shape \(4, 5\); .* 2 features"),
    (lambda s: (params(), s, 1.0), r"x has shape \(\); expected \[\*batch, 2\]"),
    (
        lambda s: (params(), s, X[0]),
        r"online_state\.cell\.h is float32\[4, 3\]; expected \[3\], as .* for x of shape \(2,\)",
    ),
    (
        lambda s: (params(), s, X[:3]),
        r"online_state\.cell\.h is float32\[4, 3\]; expected \[3, 3\], as init\(params, \(3,\)\)",
    ),
    (lambda s: (params(), s, X.astype(np.int32)), "x is int32; expected floating point"),
    (lambda s: (params(), s, [[1.0], [1.0, 2.0]]), "x: expected an array of numbers"),
]
LOSSES: list[Any] = [
    (lambda head, y, target: y, r"step_loss gives float32\[4, 3\]; expected one real number"),
    (lambda head, y, target: (jnp.sum(y), {}), "step_loss gives tuple; expected one real"),
    (lambda head, y, target: None, "step_loss gives NoneType; expected one real number"),
    (lambda head, y, target: jnp.sum(y > 0), r"step_loss gives int32\[\]; expected one"),
]


@EVERY_RULE
def test_arguments_that_do_not_fit_the_cell_are_named(name):
    online, state = made(name)
    for arguments, message in INITS:
        refused(name, lambda a=arguments: online.init(*a, key=jax.random.key(0)), message)
    for options, message in STATES:
        refused(name, lambda o=options: online.init(params(), (4,), **o), message)
    for arguments, message in UPDATES:
        refused(name, lambda a=arguments: online.update(*a(state), None), message)
    for loss, message in LOSSES:
        call = lambda x, loss=loss: RULES[name](CELL).online(loss).update(params(), state, x, None)
        refused(name, lambda call=call: jax.eval_shape(call, jnp.asarray(X)), message)
    for reset in (np.zeros(3, bool), np.zeros(4), np.zeros((4, 3), bool)):
        call = functools.partial(online.update, params(), state, X, None, reset=jnp.asarray(reset))
        refused(name, call, r"reset is (bool|float).*; expected bool\[4\]")


@pytest.mark.parametrize(("name", "maker"), [("rtrl", "uoro"), ("uoro", "rtrl"), ("snap", "rtrl")])
def test_a_state_that_another_rule_made_is_refused(name, maker):
    online, other = made(name)[0], made(maker)[1]
    refused(name, lambda: online.update(params(), other, X, None), "online_state.* expected")


@pytest.mark.parametrize("name", ["eprop", "rflo"])
def test_a_signal_of_another_shape_than_y_is_refused(name):
    refused(
        name,
        lambda: RULES[name](CELL, signal="random"),
        "signal: expected a function, got 'random'",
    )
    narrow = RULES[name](CELL, signal=lambda head, y, target: y[..., :1]).online(step_loss)
    call = lambda x: narrow.update(params(), made(name)[1], x, None)
    message = r"signal gives shape \(4, 1\); expected that of y, \(4, 3\)"
    refused(name, lambda: jax.eval_shape(call, jnp.asarray(X)), message)


@pytest.mark.parametrize("name", ["rtrl", "uoro"])
def test_lists_and_numpy_are_taken_as_arrays(name):
    online, state = made(name)
    reset: Any = [True, False, False, True]
    update = functools.partial(online.update, params(), state)
    assert_close(
        update(X.tolist(), None, reset=reset),
        update(jnp.asarray(X), None, reset=jnp.asarray(reset)),
    )


def test_keys_of_both_kinds_make_the_same_state():
    online, state = made("uoro")
    assert_close(online.init(params(), (4,), key=jax.random.PRNGKey(1)), state)
    cell = sj.Zoneout(sj.GRU(2), 0.5)  # whose state holds keys
    online, state = made("rtrl", cell)
    assert_close(online.init(params(cell), (4,), key=jax.random.PRNGKey(1)), state)


def test_an_influence_that_was_made_narrow_is_taken_and_stays_narrow():
    online, state = made("rtrl")
    narrow = jax.tree.map(lambda J: J.astype(jnp.bfloat16), state.influence)
    after = jax.eval_shape(
        lambda x: online.update(params(), state._replace(influence=narrow), x, None).state, X
    )
    assert {leaf.dtype for leaf in jax.tree.leaves(after.influence)} == {jnp.dtype(jnp.bfloat16)}


@dataclasses.dataclass(frozen=True)
class Own(sj.Cell):
    """h_t = tanh(h_{t-1} + x_t W), or a mistake."""

    features: int
    mistake: str

    def init(self, key, in_features):
        if self.mistake == "any width":
            return jnp.ones(self.features)
        return jnp.ones((in_features, self.features))

    def initial_state(self, params, batch_shape=(), *, key=None):
        return jnp.zeros((*(() if self.mistake == "no batch" else batch_shape), self.features))

    def step(self, params, state, x) -> Any:
        if self.mistake in ("own", "any width"):
            raise KeyError("of the user")
        h = jnp.tanh(state + x @ params)
        results = {"single": h, "state": (h[..., :1], h), "y": (h, h[..., :1])}
        return results.get(self.mistake, (h, h))


MISTAKES: dict[str, Any] = {
    "own": (KeyError, "of the user"),
    "any width": (KeyError, "of the user"),
    "single": (ValueError, r"Own\.step gives .*; expected a pair \(state, y\)"),
    "state": (
        ValueError,
        r"the state that Own\.step gives is float32\[4, 1\]; expected float32\[4, 3\]",
    ),
    "y": (ValueError, r"Own\.step gives y of shape \(4, 1\); expected"),
    "no batch": (ValueError, r"Own\.initial_state gives state of shape \(3,\); expected .* \(4,\)"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_is_wrong_with_a_step_of_ones_own_is_said(mistake):
    kind, message = MISTAKES[mistake]
    cell = Own(3, mistake)
    for name in ("rtrl", "snap", "uoro"):
        with pytest.raises(kind, match=message):
            RULES[name](cell).online(step_loss).init(params(cell), (4,), key=jax.random.key(0))


def test_cells_that_a_rule_cannot_serve_are_refused():
    both: Any = sj.Bidirectional(sj.Elman(3), sj.Elman(3))
    own: Any = Own(3, mistake=[])  # pyright: ignore[reportArgumentType] - the wrong type is the test
    for name, rule in RULES.items():
        if name != "rflo":
            refused(name, lambda r=rule: r(both), r"needs inputs after t; .* and sj.bptt this one")
            refused(name, lambda r=rule: r(own), "Own is not hashable")
        refused(name, lambda r=rule: r("LSTM"), r"cell: expected a Cell, got 'LSTM'; .* made as sj")
    for cell in (sj.LRU(3), sj.Stack((sj.LSTM(3),)), sj.ChoGRU(3), sj.LSTM(3, projection=2)):
        refused("eprop", lambda c=cell: sj.eprop(c), r"cell is .*; expected a gated cell, such as")
    for cell in (sj.LSTM(3), sj.Stack((sj.Elman(3),)), sj.PreActivationRNN(3)):
        refused("rflo", lambda c=cell: sj.rflo(c), r"cell is .*; expected a \(leaky\) sj.Elman")
    order: Any
    for order in (0, -1, 1.5, True):
        refused("snap", lambda n=order: sj.snap(CELL, n), "order: expected a positive integer")


XS = np.ones((5, 4, 2), np.float32)
BATCHES: list[Any] = [
    ((XS, XS, np.zeros(5, bool)), r"resets is bool\[5\]; expected bool\[5, 4\]"),
    ((XS, XS, np.zeros((5, 4), int)), r"resets is int32\[5, 4\]; expected bool"),
    ((XS[:, 0, 0], XS), r"xs has shape \(5,\); expected \[time, \*batch, in_features\]"),
    (([[1.0], []], XS), "xs: expected an array of numbers"),
    ((XS, {"name": "text"}), r"targets\['name'\]: expected an array"),
    ({"xs": XS}, r"batch is a dict; expected \(xs, targets\) or"),
    ((XS, XS[:-1]), r"expected \[time, ...\] with one time for all"),
    ((XS[:0], XS[:0]), "batch has 0 time steps"),
]


def test_batches_and_carries_that_do_not_fit_are_named():
    update = sj.rtrl(CELL).update(step_loss, optax.sgd(0.1))
    for batch, message in BATCHES:
        refused("rtrl", lambda b=batch: update(params(), (), None, b, None), message)
    for carry, message in (
        (made("uoro")[1], "carry has structure .*UOROState"),
        (made("rtrl")[1].cell, "carry has structure"),
        (
            jax.tree.map(lambda a: a[:3], made("rtrl")[1]),
            r"carry\.cell\.h is float32\[3, 3\]; .*\[4, 3\]",
        ),
    ):
        for key in (None, jax.random.key(0)):
            arguments = params(), (), carry, (XS, XS), key
            refused("rtrl", functools.partial(update, *arguments), message)
    message = r"params is a ElmanParams; expected sj\.OnlineParams"
    refused("rtrl", lambda: update(params().cell, (), made("rtrl")[1], (XS, XS), None), message)
    keyless = sj.uoro(CELL).update(step_loss, optax.sgd(0.1))
    refused("uoro", lambda: keyless(params(), (), None, (XS, XS), None), "key is None; expected")
    refused("uoro", lambda: made("uoro")[0].init(params(), (2,)), "key is None; expected a key")


@dataclasses.dataclass(frozen=True)
class Flat(Own):
    """The same with all weights in one vector, of whose sizes none is the width of the inputs."""

    def init(self, key, in_features):
        return jnp.ones(in_features * self.features)

    def step(self, params, state, x) -> Any:
        return super().step(params.reshape(-1, self.features), state, x)


@pytest.mark.parametrize("name", ["rtrl", "uoro"])
def test_the_width_of_inputs_follows_from_the_number_of_params(name):
    cell = Flat(3, "none")
    online, state = made(name, cell)
    assert jax.eval_shape(lambda x: online.update(params(cell), state, x, None).y, X).shape == (
        4,
        3,
    )
    wide = r"x has shape \(4, 5\); expected \[\*batch, 2\]"
    refused(name, lambda: online.update(params(cell), state, np.ones((4, 5)), None), wide)
