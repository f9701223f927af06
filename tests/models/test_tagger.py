"""Many to many, aligned: each step by hand, words and their letters, padding that changes nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seqjax as sj
from seqjax.data import Example, pad
from seqjax.models import Spelled, Tokens, WordsAndLetters

pytestmark = pytest.mark.usefixtures("quick_compilation")

BOTH = sj.Bidirectional(sj.GRU(3), sj.LSTM(2))
READER = sj.Bidirectional(sj.GRU(2), sj.GRU(3))
EXAMPLES = [Example([1, 4, 2, 2], [1, 0, 2, 2]), Example([4], [1]), Example([2, 3], [0, 1])]
SPELLED = [
    Example(Spelled([1, 2, 3], [[1, 2, 0], [3, 1, 2], [2, 0, 0]]), [0, 1, 2]),
    Example(Spelled([2], [[3, 1, 2, 1, 1]]), [2]),
]


def make(**options):
    inputs = options.pop("inputs", Tokens(6, 4))
    model = sj.models.Tagger(inputs, BOTH, tags=3, **options)
    return model, model.init(jax.random.key(0))


def spelling():
    return WordsAndLetters(Tokens(6, 4), Tokens(5, 3), READER)


def log_softmax(logits):
    logits = np.asarray(logits, np.float64)
    return logits - np.log(np.sum(np.exp(logits), axis=-1, keepdims=True))


def by_hand(model, params, tokens):
    """Log p of each tag at each step of one sentence by itself."""
    _, ys = sj.unroll(model.cell, params.cell, params.inputs[np.array(tokens)])
    readout = jax.tree.map(np.asarray, params.readout)
    return log_softmax(np.asarray(ys) @ readout.kernel + readout.bias)


def test_each_sentence_is_tagged_as_if_it_were_alone():
    model, params = make()
    batch = pad(EXAMPLES, time=6, rows=4)
    logits = model.apply(params, batch.inputs, batch.lengths)
    for row, example in enumerate(EXAMPLES):
        found = log_softmax(logits[: len(example.inputs), row])
        np.testing.assert_allclose(
            found, by_hand(model, params, example.inputs), rtol=1e-5, atol=1e-5
        )


def test_the_loss_is_the_mean_over_all_real_steps():
    model, params = make()
    value, (_, metrics) = model.loss(params, None, pad(EXAMPLES, time=6, rows=5), None)
    of = [(by_hand(model, params, e.inputs), np.array(e.targets)) for e in EXAMPLES]
    chosen = np.concatenate([log_p[np.arange(len(tags)), tags] for log_p, tags in of])
    np.testing.assert_allclose(value, -chosen.mean(), rtol=1e-5)
    right = sum(int(np.sum(log_p.argmax(-1) == tags)) for log_p, tags in of)
    assert (float(metrics["accuracy"].total), float(metrics["accuracy"].count)) == (right, 7)


@pytest.mark.parametrize(
    ("examples", "inputs"),
    [(EXAMPLES, Tokens(6, 4)), (SPELLED, spelling())],
    ids=["words", "letters"],
)
def test_padding_changes_neither_loss_nor_gradient(examples, inputs):
    model, params = make(inputs=inputs)
    measure = jax.jit(jax.value_and_grad(lambda p, batch: model.loss(p, None, batch, None)[0]))
    value, gradient = measure(params, pad(examples, time=4, rows=len(examples)))
    again, same = measure(params, pad(examples, time=7, rows=5, multiple=3))
    np.testing.assert_allclose(again, value, rtol=1e-6)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-7), same, gradient
    )


def test_a_word_is_its_row_and_both_ends_of_its_letters():
    inputs = spelling()
    params = inputs.init(jax.random.key(0))
    batch = pad(SPELLED, time=3, rows=2)
    xs = inputs.apply(params, batch.inputs)
    assert xs.shape == (3, 2, inputs.features) == (3, 2, 4 + 2 * 5)
    for row, example in enumerate(SPELLED):
        for t, (word, letters) in enumerate(zip(*example.inputs, strict=True)):
            known = params.letters[np.array([letter for letter in letters if letter])]
            _, ys = sj.unroll(inputs.cell, params.cell, known)
            expected = np.concatenate([params.words[word], ys[-1], ys[0]])
            np.testing.assert_allclose(xs[t, row], expected, rtol=1e-5, atol=1e-6)
    assert not np.any(xs[1:, 1, 4:])  # no word, no letters


def test_letters_that_do_not_stand_beside_words_are_refused():
    inputs = spelling()
    with pytest.raises(ValueError, match=r"letters has shape \(2, 5\) and words \(3,\)"):
        inputs.apply(
            inputs.init(jax.random.key(0)), Spelled(jnp.ones(3, int), jnp.ones((2, 5), int))
        )


def test_noise_is_there_with_a_key_only():
    model, params = make(dropout=0.5)
    batch = pad(EXAMPLES, time=4, rows=3)
    apply = lambda key: np.asarray(model.apply(params, batch.inputs, batch.lengths, key=key))
    np.testing.assert_array_equal(apply(None), apply(None))
    assert not np.allclose(apply(jax.random.key(1)), apply(jax.random.key(2)))


def test_smoothing_is_for_training_alone():
    model, params = make(label_smoothing=0.3)
    plain, _ = make()
    batch = pad(EXAMPLES, time=4, rows=3)
    value = lambda m, key: float(m.loss(params, None, batch, key)[0])
    assert value(model, None) == value(plain, None)
    # (1 - s) log p(target) + s · the mean of log p over the tags (Szegedy et al. 2016).
    of = [(by_hand(model, params, e.inputs), np.array(e.targets)) for e in EXAMPLES]
    chosen = np.concatenate([log_p[np.arange(len(tags)), tags] for log_p, tags in of])
    spread = np.concatenate([log_p.mean(axis=-1) for log_p, _ in of])
    np.testing.assert_allclose(
        value(model, jax.random.key(0)), -np.mean(0.7 * chosen + 0.3 * spread), rtol=1e-5
    )
