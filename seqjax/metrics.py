"""Metrics that are not losses: F1, BLEU, absolute errors, forecast errors, likelihood per step.

Perplexity, bits per token, accuracy and squared error are in `seqjax.losses`. Over batches, merge the
`Mean`s or add the confusion matrices.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jaxtyping import Array, Float64, Int64

from seqjax import checks
from seqjax.losses import Mean, mean_over
from seqjax.numerics import accumulator, where_rows

TOKENIZATIONS = ("13a", "intl", "char", "zh", "none")


def confusion_matrix(
    targets: npt.ArrayLike,
    predictions: npt.ArrayLike,
    classes: int,
    *,
    mask: npt.ArrayLike | None = None,
) -> Int64[np.ndarray, "classes classes"]:
    """C[i, j] = number of valid tokens of class i that were predicted as class j

    Computed by NumPy on the host. The matrices of several batches add.

    Args:
        targets: int[*tokens] in [0, classes).
        predictions: int[*tokens] in [0, classes).
        classes: number of classes.
        mask: bool[*tokens]; None takes every token.

    Raises:
        ValueError: shapes or dtypes do not fit, or a valid token is outside the classes.

    >>> confusion_matrix([0, 0, 1, -1], [0, 1, 1, 0], classes=2, mask=[True, True, True, False])
    array([[1, 1],
           [0, 1]])
    """
    checks.positive("confusion_matrix: classes", classes)
    targets, predictions = np.asarray(targets), np.asarray(predictions)
    if targets.shape != predictions.shape:
        raise ValueError(
            f"confusion_matrix: predictions has shape {predictions.shape} but targets has "
            f"{targets.shape}; both are int[*tokens]"
        )
    valid = np.ones(targets.shape, bool) if mask is None else np.asarray(mask)
    if valid.shape != targets.shape or valid.dtype != bool:
        raise ValueError(
            f"confusion_matrix: mask is {valid.dtype}{list(valid.shape)}; "
            f"expected bool{list(targets.shape)}, as the tokens are"
        )
    for name, values in (("targets", targets), ("predictions", predictions)):
        if not np.issubdtype(values.dtype, np.integer):
            raise ValueError(f"confusion_matrix: {name} is {values.dtype}; expected integers")
        outside = values[valid & ((values < 0) | (values >= classes))]
        if outside.size:
            raise ValueError(
                f"confusion_matrix: {name} holds {outside[0]}; expected classes in [0, {classes})"
            )
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (targets[valid], predictions[valid]), 1)
    return counts


class F1(NamedTuple):
    """F1 of each class, and its two averages."""

    per_class: Float64[np.ndarray, " classes"]
    micro: float
    macro: float


def f1(confusion: npt.ArrayLike) -> F1:
    """F1_k = 2 TP_k / (2 TP_k + FP_k + FN_k)
    micro = 2 Σ TP / (2 Σ TP + Σ FP + Σ FN)
    macro = mean of F1_k over the classes that occur

    with TP_k = C_kk, FP_k = Σ_i C_ik - C_kk, FN_k = Σ_j C_kj - C_kk. As in scikit-learn's `f1_score`,
    0 / 0 is 0, and macro leaves out a class that is neither a target nor predicted. Micro is the
    accuracy where each token has one class.

    Args:
        confusion: C, counts [classes, classes], as `confusion_matrix` returns them.

    Raises:
        ValueError: confusion is not a square matrix of counts.

    Reference: van Rijsbergen 1979.

    >>> f1([[1, 1], [0, 2]])
    F1(per_class=array([0.66666667, 0.8       ]), micro=0.75, macro=0.7333333333333334)
    """
    counts = np.asarray(confusion)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1] or counts.size == 0:
        raise ValueError(f"f1: confusion has shape {counts.shape}; expected [classes, classes]")
    if not np.issubdtype(counts.dtype, np.integer) or counts.min() < 0:
        raise ValueError("f1: confusion: expected counts, integers of at least 0")
    twice_tp = 2.0 * np.diagonal(counts)
    both = counts.sum(axis=0) + counts.sum(axis=1)  # 2 TP + FP + FN
    per_class = twice_tp / np.maximum(both, 1)
    micro, macro = twice_tp.sum() / max(both.sum(), 1), per_class.sum() / max((both > 0).sum(), 1)
    return F1(per_class, float(micro), float(macro))


class BLEU(NamedTuple):
    """The score, 0 to 100, and sacrebleu's signature, which states how it was computed: report both."""

    score: float
    signature: str


def corpus_bleu(
    hypotheses: Sequence[str],
    references: Sequence[str],
    *,
    tokenize: str = "13a",
    lowercase: bool = False,
) -> BLEU:
    """BLEU = 100 · min(1, exp(1 - r/c)) · (p_1 p_2 p_3 p_4)^¼

    p_n is the fraction of the hypotheses' n-grams found in their references, over the whole corpus; c
    and r are the numbers of tokens of hypotheses and references. Computed by sacrebleu with exponential
    smoothing. Scores with different tokenisation or casing are not comparable.

    Args:
        hypotheses: sentences as plain text, cased and not tokenised.
        references: as many sentences.
        tokenize: tokenisation of both by sacrebleu: "13a" (WMT), "intl", "char", "zh", or "none" for
            sentences already split at spaces, such as those a `Vocabulary` decodes.
        lowercase: ignore case.

    Raises:
        ValueError: there are no sentences, unequal numbers of them, or a `str` in place of a list.
        ImportError: sacrebleu is missing: pip install 'seqjax[text]'.

    References: Papineni et al. 2002; Post 2018.

    >>> bleu = corpus_bleu(["The cat sat on the mat."], ["The cat sat on a mat."])
    >>> f"{bleu.score:.1f}", "tok:13a" in bleu.signature
    ('48.9', True)
    """
    checks.one_of("corpus_bleu: tokenize", tokenize, TOKENIZATIONS)
    for name, sentences in (("hypotheses", hypotheses), ("references", references)):
        if isinstance(sentences, str):
            raise ValueError(f"corpus_bleu: {name}: expected a list of sentences, got one string")
    if not hypotheses or len(hypotheses) != len(references):
        raise ValueError(
            f"corpus_bleu: {len(hypotheses)} hypotheses but {len(references)} references; "
            "expected as many, and at least one"
        )
    sacrebleu = checks.package("corpus_bleu", "sacrebleu", "text")
    # `force` silences a warning about tokenised text, which "none" asks for.
    metric = sacrebleu.BLEU(tokenize=tokenize, lowercase=lowercase, force=tokenize == "none")
    found = metric.corpus_score(list(hypotheses), [list(references)])
    return BLEU(float(found.score), str(metric.get_signature()))


def mean_absolute_error(predictions: Array, targets: Array, *, mask: Array | None = None) -> Array:
    """MAE = mean over valid tokens t and features i of |ŷ_{t,i} - y_{t,i}|

    Arguments and errors are those of `losses.mean_squared_error`. Over many batches, merge the `Mean`s
    of `forecast_errors`.

    >>> predictions = jnp.array([[1.0, -2.0], [jnp.nan, 0.0]])
    >>> print(mean_absolute_error(predictions, jnp.zeros((2, 2)), mask=jnp.array([True, False])))
    1.5
    """
    errors = _errors("mean_absolute_error", predictions, targets)
    return mean_over(jnp.mean(jnp.abs(errors), axis=-1), mask).value


class ForecastErrors(NamedTuple):
    """Forecast errors as `Mean`s: merge those of several batches, then take `.value`.

    mse, mae: of scaled values, averaged over all columns.
    column_mse, column_mae: of each column, in its own unit (squared for column_mse).
    """

    mse: Mean
    mae: Mean
    column_mse: Mean
    column_mae: Mean

    def merge(self, other: "ForecastErrors") -> "ForecastErrors":
        """The errors over the tokens of both."""
        return ForecastErrors(*(a.merge(b) for a, b in zip(self, other, strict=True)))


def forecast_errors(
    predictions: Array,
    targets: Array,
    deviation: Sequence[float] | npt.ArrayLike,
    *,
    mask: Array | None = None,
) -> ForecastErrors:
    """e_{t,i} = ẑ_{t,i} - z_{t,i}
    MSE = mean over t, i of e²,   MAE = mean over t, i of |e|
    MSE_i = σ_i² · mean over t of e²_{t,i},   MAE_i = σ_i · mean over t of |e_{t,i}|

    Values are scaled, z = (x - μ) / σ, so x̂ - x = σ e, and μ cancels.

    Args:
        predictions: ẑ, float[*tokens, columns].
        targets: z, [*tokens, columns].
        deviation: σ, [columns], such as `Scaling.deviation` of the targets.
        mask: bool[*tokens].

    Raises:
        ValueError: shapes or dtypes do not fit.

    >>> errors = forecast_errors(jnp.array([[1.0, 2.0]]), jnp.array([[0.0, 0.0]]), (10.0, 0.5))
    >>> print(errors.mse.value, errors.mae.value, errors.column_mae.value)
    2.5 1.5 [10.  1.]
    """
    errors = _errors("forecast_errors", predictions, targets)
    sigma = jnp.asarray(deviation, errors.dtype)
    if sigma.shape != errors.shape[-1:]:
        raise ValueError(
            f"forecast_errors: deviation has shape {sigma.shape} but there are "
            f"{errors.shape[-1]} columns; expected [columns], such as Scaling.deviation"
        )
    square, absolute = jnp.square(errors), jnp.abs(errors)
    mse = mean_over(jnp.mean(square, axis=-1), mask)
    return ForecastErrors(
        mse=mse,
        mae=mean_over(jnp.mean(absolute, axis=-1), mask),
        column_mse=_column_means(square, jnp.square(sigma), mask, mse.count),
        column_mae=_column_means(absolute, sigma, mask, mse.count),
    )


class StepMeans(NamedTuple):
    """Two means of a likelihood per step, in nats, which differ if the pieces differ in length.

    over_steps: mean over all steps; long pieces weigh more.
    over_pieces: mean of the means of the pieces; each piece weighs the same.
    """

    over_steps: float
    over_pieces: float


def nll_per_step(totals: npt.ArrayLike, steps: npt.ArrayLike) -> StepMeans:
    """over_steps = Σ_p L_p / Σ_p T_p,   over_pieces = mean over p of L_p / T_p

    Args:
        totals: L_p, the negative log-likelihood of each piece summed over its steps, [pieces].
        steps: T_p, the number of scored steps of each piece, int[pieces].

    Raises:
        ValueError: shapes do not fit, there are no pieces, or a piece has no steps.

    >>> nll_per_step(totals=[10.0, 90.0], steps=[10, 30])
    StepMeans(over_steps=2.5, over_pieces=2.0)
    """
    sums, counts = np.asarray(totals, np.float64), np.asarray(steps)
    if sums.ndim != 1 or sums.shape != counts.shape or not sums.size:
        raise ValueError(
            f"nll_per_step: totals has shape {sums.shape} and steps has {counts.shape}; "
            "expected both [pieces], with at least one"
        )
    if not np.issubdtype(counts.dtype, np.integer) or counts.min() < 1:
        raise ValueError(f"nll_per_step: steps: expected integers of at least 1, got {steps!r}")
    return StepMeans(float(sums.sum() / counts.sum()), float((sums / counts).mean()))


def _errors(name: str, predictions: Array, targets: Array) -> Array:
    """ŷ - y in at least float32."""
    if predictions.shape != targets.shape or predictions.ndim == 0:
        raise ValueError(
            f"{name}: targets has shape {targets.shape} but predictions has {predictions.shape}; "
            "both are [*tokens, features]"
        )
    if not jnp.issubdtype(predictions.dtype, jnp.floating):
        raise ValueError(f"{name}: predictions is {predictions.dtype}; expected floating point")
    predictions = predictions.astype(accumulator(predictions.dtype))
    return predictions - targets.astype(predictions.dtype)


def _column_means(errors: Array, unit: Array, mask: Array | None, count: Array | float) -> Mean:
    """Mean over valid tokens of each column, in its unit."""
    errors = errors if mask is None else where_rows(mask, errors, jnp.zeros_like(errors))
    return Mean(jnp.sum(errors, axis=tuple(range(errors.ndim - 1))) * unit, count)
