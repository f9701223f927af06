"""What every online rule refuses in a sentence, at its one door, and what it lets pass."""

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
RULES = {
    "rtrl": sj.rtrl,
    "snap(1)": sj.snap(1),
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
    rule = RULES[name](cell, step_loss)
    return rule, rule.init(params(cell), (4,), key=jax.random.key(1))


def refused(name, call, message):
    """Refused in a sentence that begins with the rule and names what a user knows."""
    with pytest.raises(ValueError, match=message) as refusal:
        call()
    assert str(refusal.value).startswith(f"{name}: ")
    assert "Cut" not in str(refusal.value)


INITS: dict[str, Any] = {
    "params of the cell alone": (
        lambda: (params().cell,),
        r"params is a ElmanParams; expected sj\.On",
    ),
    "a plain tuple": (lambda: (tuple(params()),), r"params is a tuple; expected sj\.OnlineParams"),
    "another cell": (
        lambda: (params(sj.GRU(3)),),
        r"params\.cell is GRUParams of shapes .*; expected what Elman\(features=3\)\.init",
    ),
    "another width": (lambda: (params(sj.Elman(5)),), r"params\.cell is ElmanParams of shapes"),
    "an integer head": (
        lambda: (params()._replace(head=jnp.arange(3)),),
        r"params\.head is int32; expected floating point",
    ),
    "an integer": (lambda: (params(), 4), r"batch_shape: expected a tuple of integers .* got 4"),
    "a negative size": (lambda: (params(), (-4,)), r"batch_shape: .* of at least 0, got \(-4,\)"),
    "a fraction": (lambda: (params(), (1.5,)), r"batch_shape: .* got \(1\.5,\)"),
}


@EVERY_RULE
@pytest.mark.parametrize("case", INITS)
def test_init_refuses(case, name):
    arguments, message = INITS[case]
    rule, _ = made(name)
    refused(name, lambda: rule.init(*arguments(), key=jax.random.key(0)), message)


@EVERY_RULE
def test_init_refuses_states_and_keys(name):
    rule, _ = made(name)
    few = CELL.initial_state(params().cell, (3,))
    other = sj.GRU(3).initial_state(params(sj.GRU(3)).cell, (4,))
    init = functools.partial(rule.init, params(), (4,))
    refused(
        name,
        lambda: init(state=few, key=jax.random.key(0)),
        r"state\.h is float32\[3, 3\]; expected float32\[4, 3\], as Elman\(features=3\)\.initial_state",
    )
    refused(
        name, lambda: init(state=other, key=jax.random.key(0)), "state has structure .*GRUState"
    )
    key: Any = 0
    refused(name, lambda: init(key=key), "key: expected one key, .* got 0")


X = np.ones((4, 2), np.float32)
UPDATES: dict[str, Any] = {
    "params of the cell alone": (lambda s: (params().cell, s, X), r"params is a ElmanParams"),
    "another cell": (
        lambda s: (params(sj.GRU(3)), s, X),
        r"params\.cell is GRUParams .*; expected what Elman",
    ),
    "no state": (lambda s: (params(), None, X), r"online_state has structure PyTreeDef\(None\)"),
    "a recurrent state": (lambda s: (params(), s.cell, X), "online_state has structure"),
    "wide inputs": (
        lambda s: (params(), s, np.ones((4, 5))),
        r"x has shape \(4, 5\); .* 2 features",
    ),
    "no axis": (lambda s: (params(), s, 1.0), r"x has shape \(\); expected \[\*batch, 2\]"),
    "no batch": (
        lambda s: (params(), s, X[0]),
        r"online_state\.cell\.h is float32\[4, 3\]; expected \[3\], as .* for x of shape \(2,\)",
    ),
    "another batch": (
        lambda s: (params(), s, X[:3]),
        r"online_state\.cell\.h is float32\[4, 3\]; expected \[3, 3\], as init\(params, \(3,\)\)",
    ),
    "token ids": (
        lambda s: (params(), s, X.astype(np.int32)),
        "x is int32; expected floating point",
    ),
    "a ragged list": (
        lambda s: (params(), s, [[1.0], [1.0, 2.0]]),
        "x: expected an array of numbers",
    ),
}


@EVERY_RULE
@pytest.mark.parametrize("case", UPDATES)
def test_update_refuses(case, name):
    arguments, message = UPDATES[case]
    rule, state = made(name)
    refused(name, lambda: rule.update(*arguments(state), None), message)


@pytest.mark.parametrize(
    ("name", "maker"), [("rtrl", "uoro"), ("uoro", "rtrl"), ("snap(1)", "rtrl")]
)
def test_a_state_that_another_rule_made_is_refused(name, maker):
    rule, other = made(name)[0], made(maker)[1]
    refused(name, lambda: rule.update(params(), other, X, None), "online_state.* expected")


LOSSES: dict[str, Any] = {
    "rows": (
        lambda head, y, target: y,
        r"step_loss gives float32\[4, 3\]; expected one real number",
    ),
    "an aux": (
        lambda head, y, target: (jnp.sum(y), {}),
        "step_loss gives tuple; expected one real",
    ),
    "nothing": (lambda head, y, target: None, "step_loss gives NoneType; expected one real number"),
    "a count": (lambda head, y, target: jnp.sum(y > 0), r"step_loss gives int32\[\]; expected one"),
    "no function": (None, "step_loss: expected a function, got None"),
}


@EVERY_RULE
@pytest.mark.parametrize("case", LOSSES)
def test_a_loss_that_is_no_scalar_is_refused(case, name):
    loss, message = LOSSES[case]
    _, state = made(name)
    x = jnp.asarray(X)
    call = lambda x: RULES[name](CELL, loss).update(params(), state, x, None)
    refused(name, lambda: jax.eval_shape(call, x), message)


@pytest.mark.parametrize("name", ["eprop", "rflo"])
def test_a_signal_of_another_shape_than_y_is_refused(name):
    signal: Any
    for signal, message in (
        (
            lambda head, y, target: y[..., :1],
            r"signal gives shape \(4, 1\); expected that of y, \(4, 3\)",
        ),
        ("random", "signal: expected a function, got 'random'"),
    ):
        call = lambda x, s=signal: RULES[name](CELL, step_loss, signal=s).update(
            params(), made(name)[1], x, None
        )
        refused(name, lambda c=call: jax.eval_shape(c, jnp.asarray(X)), message)


@pytest.mark.parametrize("name", ["rtrl", "uoro"])
def test_lists_and_numpy_are_taken_as_arrays(name):
    rule, state = made(name)
    reset: Any = [True, False, False, True]
    update = functools.partial(rule.update, params(), state)
    assert_close(
        update(X.tolist(), None, reset=reset),
        update(jnp.asarray(X), None, reset=jnp.asarray(reset)),
    )


def test_keys_of_both_kinds_make_the_same_state():
    rule, state = made("uoro")
    assert_close(rule.init(params(), (4,), key=jax.random.PRNGKey(1)), state)
    cell = sj.Zoneout(sj.GRU(2), 0.5)  # whose state holds keys
    rule, state = made("rtrl", cell)
    assert_close(rule.init(params(cell), (4,), key=jax.random.PRNGKey(1)), state)


def test_an_influence_that_was_made_narrow_is_taken_and_stays_narrow():
    rule, state = made("rtrl")
    narrow = jax.tree.map(lambda J: J.astype(jnp.bfloat16), state.influence)
    after = jax.eval_shape(
        lambda x: rule.update(params(), state._replace(influence=narrow), x, None).state, X
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


@pytest.mark.parametrize("name", ["rtrl", "snap(1)", "uoro"])
@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_is_wrong_with_a_step_of_ones_own_is_said(mistake, name):
    kind, message = MISTAKES[mistake]
    cell = Own(3, mistake)
    with pytest.raises(kind, match=message):
        RULES[name](cell, step_loss).init(params(cell), (4,), key=jax.random.key(0))


def test_a_cell_that_is_no_static_argument_is_refused():
    cell = Own(3, mistake=[])  # pyright: ignore[reportArgumentType] - the wrong type is the test
    with pytest.raises(ValueError, match="Own is not hashable"):
        sj.rtrl(cell, step_loss)


@pytest.mark.parametrize(
    "rule",
    [sj.snap, "rtrl", None, sj.rtrl(CELL, step_loss)],
    ids=["a factory", "a name", "nothing", "an Online"],
)
def test_online_refuses_what_is_no_rule(rule):
    with pytest.raises(
        ValueError, match=r"online: rule is .*; expected .* rule\(cell, step_loss\)"
    ):
        sj.online(CELL, rule)


XS = np.ones((5, 4, 2), np.float32)
BATCHES: dict[str, Any] = {
    "flat resets": ((XS, XS, np.zeros(5, bool)), r"resets is bool\[5\]; expected bool\[5, 4\]"),
    "integer resets": ((XS, XS, np.zeros((5, 4), int)), r"resets is int32\[5, 4\]; expected bool"),
    "flat inputs": (
        (XS[:, 0, 0], XS),
        r"xs has shape \(5,\); expected \[time, \*batch, in_features\]",
    ),
    "ragged inputs": (([[1.0], []], XS), "xs: expected an array of numbers"),
    "names as targets": ((XS, {"name": "text"}), r"targets\['name'\]: expected an array"),
}


@pytest.mark.parametrize("case", BATCHES)
def test_online_refuses_batches(case):
    batch, message = BATCHES[case]
    optimizer = optax.sgd(0.1)
    update = sj.online(CELL, sj.rtrl)(step_loss, optimizer)
    refused("online", lambda: update(params(), (), None, batch, None), message)


@pytest.mark.parametrize("key", [None, jax.random.key(0)], ids=["no key", "a key"])
def test_online_refuses_a_carry_that_the_rule_does_not_give(key):
    update = sj.online(CELL, sj.rtrl)(step_loss, optax.sgd(0.1))
    for carry, message in (
        (made("uoro")[1], "carry has structure .*UOROState"),
        (made("rtrl")[1].cell, "carry has structure"),
        (
            jax.tree.map(lambda a: a[:3], made("rtrl")[1]),
            r"carry\.cell\.h is float32\[3, 3\]; .*\[4, 3\]",
        ),
    ):
        call = lambda carry=carry: update(params(), (), carry, (XS, XS), key)
        refused("online", call, message)
    whole: Any = params().cell
    with pytest.raises(ValueError, match=r"params is a ElmanParams; expected sj\.OnlineParams"):
        update(whole, (), made("rtrl")[1], (XS, XS), key)


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
    rule, state = made(name, cell)
    assert jax.eval_shape(lambda x: rule.update(params(cell), state, x, None).y, X).shape == (4, 3)
    wide = r"x has shape \(4, 5\); expected \[\*batch, 2\]"
    refused(name, lambda: rule.update(params(cell), state, np.ones((4, 5)), None), wide)
