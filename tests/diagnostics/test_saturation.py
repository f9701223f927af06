"""Gates are those that the step uses, and are counted where they are open and shut."""

import dataclasses
import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seqjax as sj
from seqjax.cell import gates_of, leaves
from seqjax.diagnostics import saturation
from tests.contract.registry import LeakySum

pytestmark = pytest.mark.usefixtures("quick_compilation")

F64: Any = {"param_dtype": jnp.float64}


class Step(NamedTuple):
    """A step from the middle of a run: its named values, and the states of the leaf cell."""

    gates: dict[str, jax.Array]
    units: dict[str, jax.Array]
    keep: Any
    before: Any
    after: Any


@functools.partial(jax.jit, static_argnames="cell")
def one_step(cell):
    params = cell.init(jax.random.key(1), 3)
    params = jax.tree.map(lambda p: p + 0.3 * jnp.sin(jnp.arange(p.size)).reshape(p.shape), params)
    xs = jax.random.normal(jax.random.key(2), (3, 2, 3), jnp.float64)
    state = cell.initial_state(params, (2,), key=jax.random.key(3))
    before, _ = jax.lax.scan(functools.partial(cell.step, params), state, xs[:-1])
    after, _ = cell.step(params, before, xs[-1])
    found = gates_of(cell, params, before, xs[-1])
    of = lambda kind: {name: gate.value for name, gate in found.items() if gate.activation == kind}
    (leaf,) = leaves(cell, params)
    keep = found[leaf.cell.memory_path].value if leaf.cell.memory_path in found else None
    return Step(of("sigmoid"), of("tanh"), keep, memory(before), memory(after))


def memory(state):
    """The state of the leaf cell."""
    return memory(state.cell) if hasattr(state, "cell") else state


def assert_close(ours, theirs):
    np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-14)


LSTMS = {
    "LSTM": lambda: sj.LSTM(3, **F64),
    "PeepholeLSTM": lambda: sj.PeepholeLSTM(3, **F64),
    "DiagonalLSTM": lambda: sj.DiagonalLSTM(3, **F64),
    "CIFG": lambda: sj.CIFG(3, **F64),
    "LayerNorm of an LSTM": lambda: sj.LayerNorm(sj.LSTM(3, **F64)),
    "RecurrentDropout of an LSTM": lambda: sj.RecurrentDropout(sj.LSTM(3, **F64), rate=0.5),
    "LayerNorm of Zoneout": lambda: sj.LayerNorm(
        sj.Zoneout(sj.LSTM(3, **F64), rate=0.0, memory_rate=0.0)
    ),
}


@pytest.mark.parametrize("name", list(LSTMS))
def test_the_gates_of_an_lstm_make_its_next_state(name, x64):
    found = one_step(LSTMS[name]())
    g, f, o = found.units["g"], found.gates["f"], found.gates["o"]
    i = 1 - f if name == "CIFG" else found.gates["i"]
    assert_close(f * found.before.c + i * g, found.after.c)
    assert_close(o * jnp.tanh(found.after.c), found.after.h)
    assert_close(found.units["tanh(c)"], jnp.tanh(found.after.c))
    assert_close(found.keep, f)


GRUS = {
    "GRU": lambda: sj.GRU(3, **F64),
    "ChoGRU": lambda: sj.ChoGRU(3, **F64),
    "DiagonalGRU": lambda: sj.DiagonalGRU(3, **F64),
    "LayerNorm of a GRU": lambda: sj.LayerNorm(sj.GRU(3, **F64)),
    "Zoneout of a GRU": lambda: sj.Zoneout(sj.GRU(3, **F64), rate=0.0),
    "MGU": lambda: sj.MGU(3, **F64),
    "Zoneout of an MGU": lambda: sj.Zoneout(sj.MGU(3, **F64), rate=0.0),
}


@pytest.mark.parametrize("name", list(GRUS))
def test_the_gates_of_a_gru_make_its_next_state(name, x64):
    found = one_step(GRUS[name]())
    minimal = "MGU" in name
    keep = 1 - found.gates["f"] if minimal else found.gates["z"]
    candidate = found.units["h̃" if minimal else "n"]
    assert_close((1 - keep) * candidate + keep * found.before.h, found.after.h)
    assert_close(found.keep, keep)
    assert set(found.gates) == ({"f"} if minimal else {"r", "z"})


@pytest.mark.parametrize("forget_gate", ["sigmoid", "exp"])
def test_an_slstm_keeps_its_share_of_the_weighted_mean(forget_gate, x64):
    found = one_step(sj.SLSTM(3, forget_gate=forget_gate, **F64))
    mean = found.keep * found.before.c / found.before.n + (1 - found.keep) * found.units["z"]
    assert_close(found.gates["o"] * mean, found.after.h)
    assert ("f" in found.gates) == (forget_gate == "sigmoid")


@pytest.mark.parametrize(
    "cell", [sj.MinGRU(3, **F64), sj.MinLSTM(3, **F64), sj.RGLRU(3, **F64), sj.LRU(3, **F64)]
)
def test_a_linear_cell_keeps_by_the_modulus_of_its_coefficient(cell, x64):
    params = cell.init(jax.random.key(1), 3)
    params = jax.tree.map(lambda p: p + 0.3 * jnp.sin(jnp.arange(p.size)).reshape(p.shape), params)
    x = jax.random.normal(jax.random.key(2), (3, 2, 3), jnp.float64)[-1]
    h = cell.initial_state(params, (2,)).h
    step = jax.jit(lambda h: cell.step(params, type(cell.initial_state(params))(h), x)[0].h)
    assert_close(one_step(cell).keep, jnp.abs(step(h + 1) - step(h)))


def test_simple_networks_show_their_units_and_other_cells_nothing(x64):
    found = one_step(sj.Elman(3, **F64))
    assert_close(found.units["φ"], found.after.h)
    found = one_step(sj.Elman(3, activation="sigmoid", **F64))
    assert_close(found.gates["φ"], found.after.h)
    found = one_step(sj.Elman(3, leak=0.25, **F64))
    assert_close(found.keep * found.before.h + 0.25 * found.units["φ"], found.after.h)
    found = one_step(sj.PreActivationRNN(3, **F64))
    assert_close(found.units["φ"], jnp.tanh(found.after.h))
    for cell in (sj.IRNN(3, **F64), LeakySum(3, jnp.float64)):
        assert one_step(cell)[:3] == ({}, {}, None)


@dataclasses.dataclass(frozen=True)
class Forgetful(sj.Cell):
    """A user's cell that names its gate within a function of its own that is jitted."""

    features: int
    memory_path = "f"

    def init(self, key, in_features):
        return jax.random.normal(key, (in_features, self.features))

    def initial_state(self, params, batch_shape=(), *, key=None):
        return jnp.ones((*batch_shape, self.features))

    def step(self, params, state, x):
        @jax.jit
        def forget(x):
            return sj.name_gate("f", jax.nn.sigmoid(x))

        state = forget(x @ params) * state
        return state, state


def test_a_cell_of_the_users_shows_the_gates_that_it_names():
    cell = sj.Stack((Forgetful(2), sj.GRU(2)))
    params = cell.init(jax.random.key(1), 3)
    xs = jax.random.normal(jax.random.key(2), (5, 4, 3))
    found = saturation(cell, params, xs)
    f = jax.nn.sigmoid(xs @ params.layers[0])
    values = by_name(found)["layers[0] f"]
    np.testing.assert_allclose(values.mean, f.mean(), rtol=1e-6)
    np.testing.assert_allclose(values.open, np.mean(f > 0.9), rtol=1e-6)
    np.testing.assert_allclose(found.memories[0].keep, f.mean(), rtol=1e-6)
    assert [m.name for m in found.memories] == ["layers[0]", "layers[1]"]


def lstm_with_biases(**biases):
    """An LSTM that sees neither input nor state: its gates are σ of their biases."""
    cell = sj.LSTM(4, input_init="zeros", recurrent_init="zeros")
    params = cell.init(jax.random.key(1), 2)
    packed = jnp.concatenate([jnp.full(4, biases.get(gate, 0.0)) for gate in "ifgo"])
    return cell, params._replace(bias=packed)


def by_name(found):
    return {v.name: v for v in found.values}


def test_biases_open_and_shut_gates():
    cell, params = lstm_with_biases(i=-5.0, f=5.0, o=0.0)
    found = saturation(cell, params, jnp.ones((6, 3, 2)))
    values = by_name(found)
    assert (values["f"].open, values["f"].shut) == (1, 0)
    assert (values["i"].open, values["i"].shut) == (0, 1)
    assert (values["o"].open, values["o"].shut, values["o"].saturated) == (0, 0, 0)
    np.testing.assert_allclose(values["f"].mean, 1 / (1 + math.exp(-5)), rtol=1e-6)
    # All 6 · 3 · 4 values of σ(0) = ½ lie in the bin that begins there.
    assert values["o"].histogram[10] == 72
    assert values["o"].histogram.sum() == 72
    (kept,) = found.memories
    np.testing.assert_allclose(kept.keep, values["f"].mean, rtol=1e-6)
    np.testing.assert_allclose(kept.half_life, math.log(2) / math.log1p(math.exp(-5)), rtol=1e-4)


def test_units_of_tanh_are_saturated_at_both_ends():
    cell = sj.Elman(4, input_init="zeros", recurrent_init="zeros")
    params = cell.init(jax.random.key(1), 2)
    params = params._replace(bias=jnp.array([-3.0, 3.0, 0.1, 3.0]))
    values = by_name(saturation(cell, params, jnp.ones((5, 2))))["φ"]
    assert not values.gate
    assert (values.shut, values.open, values.saturated) == (0.25, 0.5, 0.75)


def test_shares_are_of_the_rows_that_are_looked_at():
    cell = sj.GRU(2, recurrent_init="zeros")
    params = cell.init(jax.random.key(1), 1)
    # z is open where x is 10 and shut where it is -10.
    params = params._replace(input_kernel=jnp.ones_like(params.input_kernel))
    xs = jnp.broadcast_to(jnp.array([10.0, -10.0, -10.0, 10.0])[None, :, None], (3, 4, 1))
    assert by_name(saturation(cell, params, xs))["z"].open == 0.5
    assert by_name(saturation(cell, params, xs, rows=1))["z"].open == 1


def test_each_layer_of_a_stack_has_its_own_line():
    cell = sj.Stack((sj.Residual(sj.GRU(2)), sj.Dropout(sj.LayerNorm(sj.LSTM(2)), rate=0.5)))
    params = cell.init(jax.random.key(1), 2)
    found = saturation(cell, params, jnp.ones((3, 2, 2)), key=jax.random.key(0))
    gates_by_layer = ["layers[0] r", "layers[0] z", "layers[0] n"]
    gates_by_layer += [f"layers[1] {name}" for name in ("f", "i", "o", "g", "tanh(c)")]
    assert [v.name for v in found.values] == gates_by_layer
    assert [m.name for m in found.memories] == ["layers[0]", "layers[1]"]
    assert "gate layers[1] f" in str(found)
    # What the second layer reads is what the first one gave.
    first, second = sj.Residual(sj.GRU(2)), sj.LayerNorm(sj.LSTM(2))
    _, ys = sj.unroll(first, params.layers[0], jnp.ones((3, 2, 2)))
    alone = saturation(second, params.layers[1], ys)
    for in_stack, by_itself in zip(found.values[3:], alone.values, strict=True):
        np.testing.assert_array_equal(in_stack.histogram, by_itself.histogram)


def test_a_gate_that_is_shut_to_the_last_bit_keeps_nothing():
    cell, params = lstm_with_biases(f=-1000.0)
    (kept,) = saturation(cell, params, jnp.ones((3, 2))).memories
    assert kept.keep == 0
    assert 0 < kept.half_life < 0.01
