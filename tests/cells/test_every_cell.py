"""What all leaf cells have in common: how they start, what their initialisers draw, what they refuse."""

import dataclasses
import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seqjax as sj
from seqjax.initializers import NAMED, Chrono, Glorot, Orthogonal
from tests import oracles
from tests.contract.registry import IN_FEATURES, REGISTRY
from tests.oracles import ACTIVATIONS

pytestmark = pytest.mark.usefixtures("quick_compilation")

BUILT: dict[str, Any] = {name: entry.build(jnp.float32, None) for name, entry in REGISTRY.items()}
LEAVES = {
    name: cell for name, cell in BUILT.items() if type(cell).__module__.startswith("seqjax.cells.")
}
BY_CLASS = {type(cell).__name__: cell for cell in reversed(LEAVES.values())}

# The shapes of the state, but for the batch, where they are not [features] throughout.
STATES = {
    sj.LSTM: lambda cell: [(cell.out_features,), (cell.features,)],
    sj.LRU: lambda cell: [(cell.state_features,)],
    sj.SkipRNN: lambda cell: [(cell.skip, cell.features)],
    sj.ClockworkRNN: lambda cell: [(cell.features,), ()],
    sj.TimeDelay: lambda cell: [(cell.window, IN_FEATURES)],
}


def params_of(cell: Any) -> Any:
    """The params as shapes, which are quick to make."""
    return jax.eval_shape(lambda key: cell.init(key, IN_FEATURES), jax.random.key(0))


@pytest.mark.parametrize("name", LEAVES)
def test_the_state_starts_at_zero(name):
    cell = LEAVES[name]
    state = cell.initial_state(params_of(cell), (2,))
    shapes = STATES.get(type(cell), lambda cell: [(cell.features,)] * len(state))
    for leaf, shape in zip(state, shapes(cell), strict=True):
        np.testing.assert_array_equal(leaf, np.zeros((2, *shape)))


class Gates(NamedTuple):
    """The gates of a cell, a letter each, in the order in which kernels and biases are packed.

    keeper: the gate whose bias has a field of its own; start: what that is by default.
    opposed: with `Chrono` the bias of i starts at its negative. renews: where the keeper is open,
    the cell overwrites.
    """

    letters: str
    keeper: str = ""
    start: float = 0.0
    opposed: bool = False
    renews: bool = False

    @property
    def field(self) -> str:
        return {"f": "forget_bias", "z": "update_bias"}[self.keeper]


PACKED = {
    sj.Elman: Gates("h"),
    sj.PreActivationRNN: Gates("h"),
    sj.LSTM: Gates("ifgo", "f", 1.0, opposed=True),
    sj.PeepholeLSTM: Gates("ifgo", "f", 1.0, opposed=True),
    sj.CIFG: Gates("fgo", "f", 1.0),
    sj.DiagonalLSTM: Gates("ifgo", "f", 1.0, opposed=True),
    sj.GRU: Gates("rzn", "z"),
    sj.DiagonalGRU: Gates("rzn", "z"),
    sj.ChoGRU: Gates("rzn", "z"),
    sj.MGU: Gates("fn", "f", renews=True),
    sj.MinGRU: Gates("zn", "z", renews=True),
    sj.MinLSTM: Gates("ifn", "f", 1.0, opposed=True),
    sj.RGLRU: Gates("ri"),
    sj.SLSTM: Gates("ifzo", "f", 1.0),
    sj.SkipRNN: Gates("h"),
}
KEEPERS = [cell for cell, gates in PACKED.items() if gates.keeper]
NOT_PACKED = {sj.LRU, sj.ClockworkRNN, sj.TimeDelay}  # whose initial values have tests of their own
ALL = pytest.mark.parametrize("cell", PACKED)
ALL_THAT_KEEP = pytest.mark.parametrize("cell", KEEPERS)


def test_every_leaf_cell_is_here():
    assert PACKED.keys() | NOT_PACKED == {type(cell) for cell in LEAVES.values()}


def make(cell: Any, features: int, **options: Any) -> Any:
    """A cell of that class; without an option that it has no field for."""
    names = {field.name for field in dataclasses.fields(cell)}
    needed = {"skip": 4} if "skip" in names else {}
    return cell(features, **needed, **{k: v for k, v in options.items() if k in names})


def kernels(cell: Any, params: Any) -> dict[str, list[np.ndarray]]:
    """The square matrices of each kernel."""
    blocks = {}
    for name in params._fields:
        kernel = np.asarray(getattr(params, name))
        if name.endswith("_kernel") and kernel.ndim == 4:  # [heads, size, gates, size]
            blocks[name] = [
                kernel[head, :, gate] for head in range(len(kernel)) for gate in range(4)
            ]
        elif name.endswith("_kernel"):
            blocks[name] = np.split(kernel, len(PACKED[cell].letters), axis=1)
    return blocks


def biases(cell: Any, params: Any) -> dict[str, np.ndarray]:
    """The bias of each gate, and the one inside the reset."""
    bias = params.threshold if cell is sj.PreActivationRNN else params.bias
    letters = PACKED[cell].letters
    by_gate = dict(zip(letters, np.split(np.asarray(bias), len(letters)), strict=True))
    return by_gate | ({"inner": np.asarray(params.inner_bias)} if cell is sj.GRU else {})


@pytest.mark.parametrize("rule", NAMED)
@ALL
def test_each_initialiser_draws_each_gate_alone(cell, rule, key):
    # Two heads of eight units, where there are heads.
    heads = {"heads": 2} if cell is sj.SLSTM else {}
    size = 8 * heads.get("heads", 1)
    made = make(cell, size, input_init=rule, recurrent_init=rule, **heads)
    blocks = list(itertools.chain(*kernels(cell, made.init(key, size)).values()))
    assert all(oracles.is_drawn_by(rule, block) for block in blocks)
    if rule not in ("identity", "zeros"):
        pairs = itertools.combinations(blocks, 2)
        assert not any(a.shape == b.shape and np.allclose(a, b) for a, b in pairs)


@ALL
def test_kernels_are_drawn_as_glorot_and_orthogonal_unless_another_rule_is_asked_for(cell, key):
    drawn = kernels(cell, make(cell, 8).init(key, 8))
    for name, blocks in drawn.items():
        rule = "glorot" if name == "input_kernel" else "orthogonal"
        assert all(oracles.is_drawn_by(rule, block) for block in blocks)


@ALL
def test_the_biases_are_drawn_by_their_own_initialiser_but_for_the_gate_that_keeps(cell, key):
    rules = {"bias_init": "uniform_fan_in", "threshold_init": "uniform_fan_in"}
    params = make(cell, 64, recurrent_init="zeros", input_init="zeros", **rules).init(key, 64)
    for gate, bias in biases(cell, params).items():
        if gate == PACKED[cell].keeper and PACKED[cell].start:
            np.testing.assert_array_equal(bias, np.ones(64))
        else:
            assert 0.1 < np.abs(bias).max() <= 1 / 8  # 1 / √64


@ALL
def test_the_biases_start_at_zero_but_for_the_gate_that_keeps(cell, key):
    gates = PACKED[cell]
    fields = [{}, *({gates.field: value} for value in (1.5, -2.5) if gates.keeper)]
    for options in fields:
        params = make(cell, 5, **options).init(key, 5)
        for gate, bias in biases(cell, params).items():
            start = options.get(gates.field, gates.start) if gate == gates.keeper else 0
            np.testing.assert_array_equal(bias, np.full(5, start))


@pytest.mark.parametrize("longest", [2, 9, 100])
@ALL_THAT_KEEP
def test_chrono_spreads_the_gate_that_keeps_and_opposes_the_input_gate(cell, longest, key):
    gates = PACKED[cell]
    options = {gates.field: Chrono(longest, negated=gates.renews)}
    made = make(cell, 64, recurrent_init="zeros", **options)
    by_gate = biases(cell, made.init(key, 2))
    keeper = by_gate.pop(gates.keeper)
    if gates.opposed:
        np.testing.assert_array_equal(by_gate.pop("i"), -keeper)
    for bias in by_gate.values():
        np.testing.assert_array_equal(bias, np.zeros(64))
    # A unit whose gate stays at σ(log u) keeps for 1 + u steps, u ~ U(1, longest - 1).
    log_u, most = (-keeper if gates.renews else keeper), longest - 1
    assert 0 <= log_u.min() <= log_u.max() <= np.log(most)
    if longest > 2:
        # u lies on either side of the middle, all 64 on the same with probability 2⁻⁶³, and above
        # 7/8 of the most, none with probability 2e-4.
        assert log_u.min() < np.log(longest / 2)
        assert log_u.max() > np.log(7 / 8 * most)


def named(ending: str) -> Any:
    """Each class of cells with each of its fields whose name ends so."""
    return pytest.mark.parametrize(
        ("name", "field"),
        [
            (name, field.name)
            for name, cell in BY_CLASS.items()
            for field in dataclasses.fields(cell)
            if field.name.endswith(ending)
        ],
    )


def refusal(name: str, **fields: Any) -> str:
    """What a cell says to a hyperparameter."""
    with pytest.raises(ValueError, match=f"^{name}: ") as refused:
        dataclasses.replace(BY_CLASS[name], **fields)
    return str(refused.value)


@pytest.mark.parametrize("features", [0, -1])
@pytest.mark.parametrize("name", BY_CLASS)
def test_features_below_one_are_refused(name, features):
    message = f"{name}: features: expected a positive integer, got {features}"
    assert refusal(name, features=features) == message


@named("_init")
def test_an_unknown_initialiser_is_refused_with_the_known_names(name, field):
    known = ["uniform_fan_in", "zeros"]
    if field in ("bias_init", "threshold_init", "peephole_init"):
        for unknown in ("kaiming", "glorot"):
            names = ", ".join(map(repr, known))
            message = f"{name}: {field}: expected one of {names}, got {unknown!r}"
            assert refusal(name, **{field: unknown}) == message
        for rule in (Orthogonal(), Glorot()):
            message = f"{name}: {field}: {rule} draws matrices only, and this is a vector"
            assert refusal(name, **{field: rule}) == message
    else:
        message = refusal(name, **{field: "kaiming"})
        assert message.startswith(f"{name}: {field}: expected one of ")
        assert message.endswith(", got 'kaiming'")
        assert all(repr(rule) in message for rule in NAMED)


@named("_bias")
def test_a_bias_that_is_no_number_is_refused(name, field):
    for value in (float("nan"), float("inf")):
        message = f"{name}: {field}: expected a finite number, got {value}"
        assert refusal(name, **{field: value}) == message


@named("activation")
def test_an_unknown_activation_is_refused_with_the_known_names(name, field, unchecked):
    message = refusal(name, **{field: "gelu"})
    assert message.startswith(f"{name}: {field}: expected one of ")
    assert message.endswith(", got 'gelu'")
    assert all(repr(activation) in message for activation in ACTIVATIONS)


@pytest.mark.parametrize("name", BY_CLASS)
def test_inputs_of_another_size_are_refused(name):
    cell = BY_CLASS[name]
    params = params_of(cell)
    message = rf"^{name}: x has shape \(4, 5\); expected \[\*batch, {IN_FEATURES}\], "
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(cell.step, params, cell.initial_state(params, (4,)), jnp.ones((4, 5)))
