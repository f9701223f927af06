"""Metrics against sums by hand, NumPy in float64 and the definitions of scikit-learn."""

import math
import sys
from typing import Any

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra import numpy as hnp

from seqjax import losses, metrics

pytestmark = pytest.mark.usefixtures("quick_compilation")

# Confusion and F1 ---------------------------------------------------------------------------------


def test_a_row_of_the_matrix_is_a_target_and_a_column_a_prediction():
    counts = metrics.confusion_matrix([0, 0, 0, 1, 2, 2], [0, 1, 1, 1, 0, 2], classes=4)
    expected = [[1, 2, 0, 0], [0, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]]
    np.testing.assert_array_equal(counts, expected)
    assert counts.dtype == np.int64


@given(hnp.arrays(np.int32, (2, 5, 3), elements=st.integers(0, 3)), hnp.arrays(bool, (5, 3)))
def test_matrices_of_batches_add_and_padding_counts_for_nothing(classes, mask):
    targets, predictions = classes
    whole = metrics.confusion_matrix(targets[mask], predictions[mask], 4)
    padded = np.where(mask, targets, -1), np.where(mask, predictions, 99)
    parts = [
        metrics.confusion_matrix(t, p, 4, mask=m) for t, p, m in zip(*padded, mask, strict=True)
    ]
    np.testing.assert_array_equal(sum(parts), whole)
    assert whole.sum() == mask.sum()


def test_f1_by_hand():
    """Class 0: TP 2, FP 1, FN 1; class 1: TP 1, FP 2, FN 0; class 2: TP 0, FP 0, FN 2."""
    found = metrics.f1([[2, 1, 0], [0, 1, 0], [1, 1, 0]])
    np.testing.assert_allclose(found.per_class, [4 / 6, 2 / 4, 0], rtol=1e-15)
    assert found.micro == pytest.approx(2 * 3 / (2 * 3 + 3 + 3), rel=1e-15)
    assert found.macro == pytest.approx((4 / 6 + 2 / 4 + 0) / 3, rel=1e-15)


@given(hnp.arrays(np.int64, (4, 4), elements=st.integers(0, 5)))
def test_f1_is_the_harmonic_mean_of_precision_and_recall(counts):
    """Token by token from the definitions, class by class, with 0 where scikit-learn warns."""
    pairs = [(i, j) for i in range(4) for j in range(4) for _ in range(counts[i, j])]
    expected, occur = [], []
    for k in range(4):
        hits = sum(pair == (k, k) for pair in pairs)
        wanted, taken = sum(i == k for i, _ in pairs), sum(j == k for _, j in pairs)
        precision, recall = hits / max(taken, 1), hits / max(wanted, 1)
        both = precision + recall
        expected.append(2 * precision * recall / both if both else 0.0)
        occur += [k] if wanted or taken else []
    found = metrics.f1(counts)
    np.testing.assert_allclose(found.per_class, expected, rtol=1e-14)
    assert found.macro == pytest.approx(sum(expected[k] for k in occur) / max(len(occur), 1))
    accuracy = sum(i == j for i, j in pairs) / max(len(pairs), 1)
    assert found.micro == pytest.approx(accuracy)


def test_a_class_that_never_occurs_is_0_and_leaves_the_averages_alone():
    found = metrics.f1([[3, 0, 1], [0, 0, 0], [0, 0, 2]])
    without = metrics.f1([[3, 1], [0, 2]])
    assert found.per_class[1] == 0
    assert (found.micro, found.macro) == (without.micro, without.macro)
    nothing = metrics.f1(np.zeros((2, 2), int))
    assert (nothing.micro, nothing.macro, nothing.per_class.tolist()) == (0, 0, [0, 0])


@pytest.mark.peer
def test_f1_is_that_of_scikit_learn():
    peer = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    rng = np.random.default_rng(0)
    targets, predictions = rng.choice([0, 1, 3], (2, 60))
    found = metrics.f1(metrics.confusion_matrix(targets, predictions, 4))
    f1 = lambda **options: peer.f1_score(targets, predictions, zero_division=0, **options)
    np.testing.assert_allclose(found.per_class, f1(average=None, labels=range(4)), rtol=1e-14)
    assert found.micro == pytest.approx(f1(average="micro"))
    assert found.macro == pytest.approx(f1(average="macro"))


# BLEU ---------------------------------------------------------------------------------------------


def test_bleu_by_hand():
    """The reference holds 6 of 7 tokens (the full stop is one, and "the" is not "The"), 4 of 6 pairs,
    2 of 5 triples and 1 of 4 quadruples; both have 7 tokens.
    """
    found = metrics.corpus_bleu(["The cat sat on the mat."], ["The cat sat on a mat."])
    expected = 100 * (6 / 7 * 4 / 6 * 2 / 5 * 1 / 4) ** 0.25
    assert found.score == pytest.approx(expected, rel=1e-12)


def test_bleu_counts_over_the_whole_corpus_and_punishes_what_is_short():
    """8 of 8 tokens, 6 of 6 pairs, 4 of 4 and 2 of 2: all precisions are 1, and c = 8, r = 10."""
    hypotheses = ["a b c d", "e f g h"]
    references = ["a b c d x", "e f g h y"]
    found = metrics.corpus_bleu(hypotheses, references)
    assert found.score == pytest.approx(100 * math.exp(1 - 10 / 8), rel=1e-12)


def test_case_counts_unless_it_is_asked_not_to():
    hypotheses, references = ["THE CAT SAT DOWN"], ["the cat sat down"]
    assert metrics.corpus_bleu(hypotheses, references).score == pytest.approx(0, abs=1e-9)
    found = metrics.corpus_bleu(hypotheses, references, lowercase=True)
    assert found.score == pytest.approx(100)
    assert "case:lc" in found.signature


def test_the_signature_says_how_text_was_cut():
    for tokenize in metrics.TOKENIZATIONS:
        found = metrics.corpus_bleu(["a b c d ."], ["a b c d ."], tokenize=tokenize)
        assert found.score == pytest.approx(100)
        assert f"tok:{tokenize}|" in found.signature
    joined = metrics.corpus_bleu(["a b c d."], ["a b c d ."], tokenize="none")
    assert joined.score < 99
    assert metrics.corpus_bleu(["a b c d."], ["a b c d ."]).score == pytest.approx(100)


def test_without_sacrebleu_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    with pytest.raises(ImportError, match=r"pip install 'seqjax\[text\]'"):
        metrics.corpus_bleu(["a"], ["a"])


# Errors of forecasts ------------------------------------------------------------------------------


def some_forecasts(seed=0, shape=(6, 4), columns=3):
    rng = np.random.default_rng(seed)
    predictions, targets = rng.normal(size=(2, *shape, columns)).astype(np.float32)
    mask = rng.random(shape) < 0.6
    mask.flat[0], mask.flat[-1] = True, False
    return predictions, targets, mask


def test_the_mean_absolute_error_is_that_of_the_real_tokens():
    predictions, targets, mask = some_forecasts()
    errors = np.abs(predictions.astype(np.float64) - targets)
    spoiled = jnp.asarray(np.where(mask[..., None], predictions, np.nan))
    targets = jnp.asarray(targets)
    found = jax.jit(metrics.mean_absolute_error)(spoiled, targets, mask=jnp.asarray(mask))
    # Float32 sums of at most 24 numbers.
    np.testing.assert_allclose(found, errors[mask].mean(), rtol=1e-6)
    found = metrics.mean_absolute_error(jnp.asarray(predictions), targets)
    np.testing.assert_allclose(found, errors.mean(), rtol=1e-6)
    nothing = metrics.mean_absolute_error(spoiled, targets, mask=jnp.zeros(mask.shape, bool))
    assert float(nothing) == 0


def test_bfloat16_is_widened_before_it_is_subtracted():
    """256 + 1 rounds to 256 in bfloat16; each difference here is exactly 1 in float32."""
    predictions = jnp.array([[256.0]], jnp.bfloat16)
    found = metrics.mean_absolute_error(predictions, jnp.array([[257.0]], jnp.float32))
    assert float(found) == 1


def test_errors_on_scaled_values_are_those_in_their_own_units_by_their_deviation():
    """The oracle undoes the scaling first, x = μ + σ z, and measures then."""
    predictions, targets, mask = some_forecasts(1)
    mean, deviation = np.array([5.0, -2.0, 0.0]), np.array([10.0, 0.5, 3.0])
    original = (mean + deviation * predictions) - (mean + deviation * targets)
    scaled = predictions.astype(np.float64) - targets
    found = jax.jit(metrics.forecast_errors)(
        jnp.asarray(np.where(mask[..., None], predictions, np.nan)),
        jnp.asarray(targets),
        jnp.asarray(deviation, jnp.float32),
        mask=jnp.asarray(mask),
    )
    values = [error.value for error in found]
    np.testing.assert_allclose(values[0], np.square(scaled[mask]).mean(), rtol=1e-5)
    np.testing.assert_allclose(values[1], np.abs(scaled[mask]).mean(), rtol=1e-5)
    np.testing.assert_allclose(values[2], np.square(original[mask]).mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(values[3], np.abs(original[mask]).mean(axis=0), rtol=1e-5)


def test_errors_of_ragged_batches_merge_to_those_of_the_whole():
    predictions, targets, mask = map(jnp.asarray, some_forecasts(2))
    deviation = (10.0, 0.5, 3.0)
    errors = jax.jit(lambda p, z, m: metrics.forecast_errors(p, z, deviation, mask=m))
    whole = errors(predictions, targets, mask)
    parts = [
        errors(predictions[rows], targets[rows], mask[rows]) for rows in (slice(1), slice(1, 6))
    ]
    merged = parts[0].merge(parts[1])
    for a, b in zip(merged, whole, strict=True):
        np.testing.assert_allclose(a.value, b.value, rtol=1e-6)
    squared = losses.mean_squared_error(predictions, targets, mask=mask)
    np.testing.assert_allclose(whole.mse.value, squared, rtol=1e-6)


# Likelihood per step ------------------------------------------------------------------------------


def test_long_pieces_weigh_more_in_the_mean_over_steps():
    """Means 1, 3 and 2 nats of 10, 30 and 5 steps: 110 / 45 over steps, 6 / 3 over pieces."""
    found = metrics.nll_per_step([10.0, 90.0, 10.0], [10, 30, 5])
    assert found.over_steps == pytest.approx(110 / 45, rel=1e-15)
    assert found.over_pieces == pytest.approx(2, rel=1e-15)
    same = metrics.nll_per_step([10.0, 30.0], [5, 5])
    assert same.over_steps == same.over_pieces == 4


# Refusals -----------------------------------------------------------------------------------------


ONE: Any = jnp.zeros((2, 3))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: metrics.confusion_matrix([0, 1], [0], 2), r"predictions has shape \(1,\) but"),
        (lambda: metrics.confusion_matrix([0, 2], [0, 1], 2), r"targets holds 2; .* in \[0, 2\)"),
        (lambda: metrics.confusion_matrix([0], [-1], 2), r"predictions holds -1; expected classes"),
        (lambda: metrics.confusion_matrix([0.0], [0], 2), "targets is float64; expected integers"),
        (lambda: metrics.confusion_matrix([0], [0], 0), "classes: expected a positive integer"),
        (
            lambda: metrics.confusion_matrix([0, 1], [0, 1], 2, mask=[1, 0]),
            r"mask is int64\[2\]; expected bool\[2\]",
        ),
        (
            lambda: metrics.confusion_matrix([0, 1], [0, 1], 2, mask=[True]),
            r"mask is bool\[1\]; expected bool\[2\]",
        ),
        (lambda: metrics.f1([[1, 2]]), r"confusion has shape \(1, 2\); expected \[classes"),
        (lambda: metrics.f1(np.zeros((0, 0), int)), r"confusion has shape \(0, 0\)"),
        (lambda: metrics.f1([[0.5]]), "expected counts, integers of at least 0"),
        (lambda: metrics.f1([[-1]]), "expected counts, integers of at least 0"),
        (lambda: metrics.corpus_bleu([], []), "0 hypotheses but 0 references"),
        (lambda: metrics.corpus_bleu(["a"], ["a", "b"]), "1 hypotheses but 2 references"),
        (lambda: metrics.corpus_bleu("a", ["a"]), "hypotheses: expected a list .* got one string"),
        (lambda: metrics.corpus_bleu(["a"], "a"), "references: expected a list of sentences"),
        (
            lambda: metrics.corpus_bleu(["a"], ["a"], tokenize="spacy"),
            "tokenize: expected one of '13a', 'intl', 'char', 'zh', 'none', got 'spacy'",
        ),
        (lambda: metrics.mean_absolute_error(ONE, ONE[0]), r"targets has shape \(3,\) but"),
        (
            lambda: metrics.mean_absolute_error(jnp.zeros(()), jnp.zeros(())),
            r"both are \[\*tokens, features\]",
        ),
        (
            lambda: metrics.mean_absolute_error(ONE.astype(jnp.int32), ONE),
            "predictions is int32; expected floating point",
        ),
        (
            lambda: metrics.mean_absolute_error(ONE, ONE, mask=jnp.ones(3, bool)),
            r"mask has shape \(3,\) but there are tokens \(2,\)",
        ),
        (
            lambda: metrics.forecast_errors(ONE, ONE, (1.0, 2.0)),
            r"deviation has shape \(2,\) but there are 3 columns",
        ),
        (
            lambda: metrics.forecast_errors(ONE, ONE, (1.0, 2.0, 3.0), mask=jnp.ones((2, 3), bool)),
            r"mask has shape \(2, 3\) but there are tokens \(2,\)",
        ),
        (lambda: metrics.nll_per_step([1.0], [1, 2]), r"totals has shape \(1,\) and steps has"),
        (lambda: metrics.nll_per_step([], []), r"expected both \[pieces\], with at least one"),
        (lambda: metrics.nll_per_step([1.0], [0]), "steps: expected integers of at least 1"),
        (lambda: metrics.nll_per_step([1.0], [1.5]), "steps: expected integers of at least 1"),
    ],
)
def test_what_cannot_be_measured_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
