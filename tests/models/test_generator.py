"""One to many: what a sequence is made of, where it begins, and that drawing follows what is learned."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seqjax as sj
from seqjax.data import Example, pad
from seqjax.models import Bits, Generator, Numbers, Symbols, Tokens, Vectors

pytestmark = pytest.mark.usefixtures("quick_compilation")

WORDS = Symbols(Tokens(5, 3))
CLASSES = Tokens(4, 2)
SEQUENCES: dict[str, list[Any]] = {
    "symbols": [[1, 4, 2], [3]],
    "bits": [[[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]], [[0.0, 1.0]]],
    "numbers": [[[0.5, -1.0], [2.0, 0.1], [0.0, 0.3]], [[1.0, 1.5]]],
}
KINDS = {"symbols": WORDS, "bits": Bits(2), "numbers": Numbers(2)}


def make(kind: str = "symbols", cell: sj.Cell | None = None, **options: Any):
    options = {"condition": CLASSES} | options
    cell = sj.Stack((sj.LSTM(3), sj.GRU(2))) if cell is None else cell
    model = Generator(KINDS[kind], cell, **options)
    return model, model.init(jax.random.key(0))


def nats_by_hand(kind: str, outputs: np.ndarray, element: Any) -> float:
    """-log p of one element from the numbers of its distribution."""
    if kind == "symbols":
        p = np.exp(outputs) / np.sum(np.exp(outputs))
        return -np.log(p[element])
    if kind == "bits":
        p = 1 / (1 + np.exp(-outputs))
        return -sum(np.log(q if bit else 1 - q) for q, bit in zip(p, element, strict=True))
    mean, sd = outputs[:2], np.exp(outputs[2:])
    density = np.exp(-0.5 * ((np.array(element) - mean) / sd) ** 2) / (sd * np.sqrt(2 * np.pi))
    return -np.sum(np.log(density))


def run_by_hand(model: Generator, params: Any, condition: Any, sequence: list[Any]) -> np.ndarray:
    """The outputs before each element of one sequence, by single steps from the bridged state."""
    cell, numpy = model.cell, lambda tree: jax.tree.map(np.asarray, tree)
    state = cell.initial_state(params.cell)
    c = np.zeros(0, np.float32)
    if model.condition is not None:
        c = np.asarray(model.condition.apply(params.condition, condition))
        bridge = numpy(params.bridge.readout)
        s = np.tanh(c @ bridge.kernel + bridge.bias)
        leaves, structure = jax.tree.flatten(state)
        ends = np.cumsum([leaf.size for leaf in leaves])
        assert ends[-1] == s.size
        state = jax.tree.unflatten(structure, [jnp.asarray(a) for a in np.split(s, ends[:-1])])
    e, readout, outputs = np.zeros(model.elements.features, np.float32), numpy(params.readout), []
    for element in sequence:
        state, y = cell.step(params.cell, state, jnp.asarray(np.concatenate([e, c])))
        outputs.append(np.asarray(y) @ readout.kernel + readout.bias)
        e = np.asarray(model.elements.read(params.elements, jnp.asarray(element)))
    return np.array(outputs, np.float64)


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("condition", [None, CLASSES, Vectors(2)], ids=["none", "class", "vector"])
def test_the_loss_is_the_mean_of_single_steps_from_the_bridged_state(kind, condition):
    model, params = make(kind, condition=condition)
    given = {None: [(), ()], CLASSES: [3, 1]}.get(condition, [[[0.5, -1.0]], [[2.0, 0.0]]])
    if isinstance(condition, Vectors):  # of a vector each number is one: [rows, width]
        given = [np.array([0.5, -1.0]), np.array([2.0, 0.0])]
    sequences = SEQUENCES[kind]
    labels = given if condition is CLASSES else [()] * 2
    batch = pad([Example(c, s) for c, s in zip(labels, sequences, strict=True)], time=4, rows=3)
    if isinstance(condition, Vectors):
        batch = batch._replace(inputs=np.stack([*given, np.zeros(2)]).astype(np.float32))
    value, (_, metrics) = jax.jit(model.loss)(params, None, batch, None)
    nats = [
        nats_by_hand(kind, outputs, element)
        for c, sequence in zip(given, sequences, strict=True)
        for outputs, element in zip(
            run_by_hand(model, params, jnp.asarray(c) if condition else None, sequence),
            sequence,
            strict=True,
        )
    ]
    np.testing.assert_allclose(value, np.mean(nats), rtol=1e-5)
    assert float(metrics["nats"].count) == 4


@pytest.mark.parametrize("kind", list(KINDS))
def test_padding_changes_neither_loss_nor_gradient(kind):
    model, params = make(kind)
    examples = [Example(c, s) for c, s in zip([2, 0], SEQUENCES[kind], strict=True)]
    measure = jax.jit(jax.value_and_grad(lambda p, batch: model.loss(p, None, batch, None)[0]))
    value, gradient = measure(params, pad(examples, time=3, rows=2))
    again, same = measure(params, pad(examples, time=7, rows=5))
    np.testing.assert_allclose(again, value, rtol=1e-6)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-7), same, gradient
    )


@pytest.mark.parametrize("kind", list(KINDS))
def test_what_is_drawn_follows_the_model(kind):
    """Greedy, each element is the likeliest given those before it, as `apply` sees them."""
    model, params = make(kind)
    labels = jnp.array([0, 3, 1])
    written = model.generate(params, jax.random.key(1), labels, steps=6, temperature=0.0)
    outputs = model.apply(params, written, labels)
    likeliest = model.elements.draw(jax.random.key(0), outputs, 0.0)
    np.testing.assert_allclose(written, likeliest, rtol=1e-5, atol=1e-6)


def test_symbols_are_drawn_as_often_as_their_probability_says():
    model, params = make()
    count = 4000
    labels = jnp.full((count,), 2)
    written = np.asarray(model.generate(params, jax.random.key(1), labels, steps=2))
    for pair in itertools.product(range(5), repeat=2):
        sequence = jnp.array(pair)[:, None]
        outputs = model.apply(params, sequence, jnp.array([2]))
        p = float(np.exp(-np.sum(model.elements.nats(outputs, sequence))))
        found = np.mean(np.all(pair == written.T, axis=-1))
        assert abs(found - p) < 4 * np.sqrt(p * (1 - p) / count)


def test_a_prompt_is_what_was_written_before():
    model, params = make("bits")
    label = jnp.array([1])
    whole = model.generate(params, jax.random.key(0), label, steps=7, temperature=0.0)
    rest = model.generate(
        params, jax.random.key(0), label, steps=4, temperature=0.0, prompt=whole[:3]
    )
    np.testing.assert_array_equal(rest, whole[3:])


def test_another_temperature_does_not_compile_again():
    model, params = make("bits", condition=None)
    generate = lambda t: model.generate(
        params, jax.random.key(0), steps=3, batch_shape=(2,), temperature=t
    )
    assert generate(1.0).shape == (3, 2, 2)
    with jax.log_compiles(), pytest.MonkeyPatch.context() as patch:
        compiled: list[str] = []
        patch.setattr("logging.Logger.handle", lambda self, r: compiled.append(r.getMessage()))
        generate(0.5)
    assert not [line for line in compiled if "_generate" in line]


def test_numbers_are_drawn_with_their_mean_and_deviation():
    outputs = jnp.broadcast_to(jnp.array([1.0, -2.0, jnp.log(0.5), jnp.log(3.0)]), (20000, 4))
    drawn = np.asarray(Numbers(2).draw(jax.random.key(0), outputs, 1.0))
    np.testing.assert_allclose(drawn.mean(axis=0), [1, -2], atol=0.08)
    np.testing.assert_allclose(drawn.std(axis=0), [0.5, 3], rtol=0.03)
    np.testing.assert_allclose(Numbers(2).draw(jax.random.key(0), outputs, 0.0)[0], [1, -2])


def test_bits_are_drawn_each_with_its_odds():
    logits = jnp.broadcast_to(jnp.array([0.0, 2.0]), (20000, 2))
    for temperature in (1.0, 2.0):
        drawn = np.asarray(Bits(2).draw(jax.random.key(0), logits, temperature))
        expected = 1 / (1 + np.exp(-np.array([0.0, 2.0]) / temperature))
        np.testing.assert_allclose(drawn.mean(axis=0), expected, atol=0.015)


def test_complex_memory_clocks_and_noise_begin_as_they_should():
    """Of an LRU the real and the imaginary part have numbers of their own; a mask has none."""
    model, params = make(cell=sj.Dropout(sj.LRU(4), 0.5))
    assert params.bridge is not None
    entries = params.bridge.readout.bias.size
    assert entries == 2 * 4
    noisy = model.apply(params, jnp.ones((3, 2), int), jnp.array([0, 1]), key=jax.random.key(1))
    assert noisy.shape == (3, 2, 5)
    still = model.apply(params, jnp.ones((3, 2), int), jnp.array([0, 1]))
    assert not np.allclose(noisy, still)


@pytest.mark.usefixtures("unchecked")
def test_bad_input_is_named():
    model, params = make()
    tokens = jnp.ones((3, 2), int)
    with pytest.raises(
        ValueError, match=r"condition: expected one that Tokens.* reads, got NoneType"
    ):
        model.apply(params, tokens)
    with pytest.raises(ValueError, match=r"condition has batch \(3,\) but elements have \(2,\)"):
        model.apply(params, tokens, jnp.ones(3, int))
    bare, bare_params = make(condition=None)
    with pytest.raises(ValueError, match="condition: expected none, got"):
        bare.apply(bare_params, tokens, jnp.ones(2, int))
    with pytest.raises(ValueError, match="steps: expected a positive integer, got 0"):
        bare.generate(bare_params, jax.random.key(0), steps=0)
    with pytest.raises(ValueError, match="temperature: expected a number of at least 0, got -1"):
        bare.generate(bare_params, jax.random.key(0), steps=1, temperature=-1.0)
    with pytest.raises(ValueError, match="expected a cell without Bidirectional"):
        make(cell=sj.Bidirectional(sj.GRU(2), sj.GRU(2)))
    with pytest.raises(ValueError, match=r"Bits: elements has shape \(3, 3\); expected"):
        make("bits", condition=None)[0].apply(make("bits", condition=None)[1], jnp.ones((3, 3)))
