"""What is measured and not minimised: F1, BLEU, absolute errors, and which mean a likelihood is.

`seqjax.losses` has the measures that are losses too: perplexity, bits per token, accuracy, squared
error. Sums over batches are its `Mean`s here as well, or matrices of counts, which simply add.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jaxtyping import Array, Float64, Int64, Shaped

from seqjax import checks
from seqjax.losses import Mean, mean_over
from seqjax.numerics import accumulator

TOKENIZATIONS = ("13a", "intl", "char", "zh", "none")


def confusion_matrix(
    targets: npt.ArrayLike,
    predictions: npt.ArrayLike,
    classes: int,
    *,
    mask: npt.ArrayLike | None = None,
) -> Int64[np.ndarray, "classes classes"]:
    """C[i, j] = how many real tokens of class i were taken for class j. Matrices of batches add.

    On the host, in NumPy. targets, predictions: int[*tokens] in [0, classes). mask: bool[*tokens]; None
    takes every token. Raises a ValueError for shapes or dtypes that do not fit, and for a real token
    whose class is none.

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
    real = np.ones(targets.shape, bool) if mask is None else np.asarray(mask)
    if real.shape != targets.shape or real.dtype != bool:
        raise ValueError(
            f"confusion_matrix: mask is {real.dtype}{list(real.shape)}; "
            f"expected bool{list(targets.shape)}, as the tokens are"
        )
    for name, values in (("targets", targets), ("predictions", predictions)):
        if not np.issubdtype(values.dtype, np.integer):
            raise ValueError(f"confusion_matrix: {name} is {values.dtype}; expected integers")
        outside = values[real & ((values < 0) | (values >= classes))]
        if outside.size:
            raise ValueError(
                f"confusion_matrix: {name} holds {outside[0]}; expected classes in [0, {classes})"
            )
    pairs = targets[real].astype(np.int64) * classes + predictions[real].astype(np.int64)
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes).astype(np.int64)


class F1(NamedTuple):
    """F1 of each class, and its two averages."""

    per_class: Float64[np.ndarray, " classes"]
    micro: float
    macro: float


def f1(confusion: npt.ArrayLike) -> F1:
    """F1_k = 2 TP_k / (2 TP_k + FP_k + FN_k)
    micro = 2 Σ TP / (2 Σ TP + Σ FP + Σ FN)
    macro = mean of F1_k over the classes that occur

    confusion: counts [classes, classes], C[i, j] of class i taken for j, as `confusion_matrix` gives:
    TP_k = C_kk, FP_k = Σ_i C_ik - C_kk, FN_k = Σ_j C_kj - C_kk.

    As in scikit-learn's `f1_score`: F1_k is 0 where TP_k is, and where a class is neither a target nor
    predicted (0 / 0); macro leaves out such a class, and so equals scikit-learn without `labels`.
    Where each token has one class, micro is the accuracy. Without a count all are 0.

    Raises a ValueError for what is no square matrix of counts. Reference: van Rijsbergen 1979.

    >>> f1([[1, 1], [0, 2]])
    F1(per_class=array([0.66666667, 0.8       ]), micro=0.75, macro=0.7333333333333334)
    """
    counts = np.asarray(confusion)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1] or counts.size == 0:
        raise ValueError(f"f1: confusion has shape {counts.shape}; expected [classes, classes]")
    if not np.issubdtype(counts.dtype, np.integer) or counts.min() < 0:
        raise ValueError("f1: confusion: expected counts, integers of at least 0")
    counts = counts.astype(np.float64)
    tp = np.diagonal(counts)
    fp = counts.sum(axis=0) - tp
    fn = counts.sum(axis=1) - tp
    per_class = _ratio(2 * tp, 2 * tp + fp + fn)
    micro = _ratio(2 * tp.sum(), 2 * tp.sum() + fp.sum() + fn.sum())
    occur = tp + fp + fn > 0
    macro = _ratio(per_class[occur].sum(), np.float64(occur.sum()))
    return F1(per_class, float(micro), float(macro))


class BLEU(NamedTuple):
    """The score, from 0 to 100, and sacrebleu's signature of how it was computed: report both."""

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

    p_n: the share of the hypotheses' n-grams that their references hold, over the whole corpus; c and
    r: the tokens of all hypotheses and of all references. By sacrebleu, with its exponential smoothing
    of a p_n that would be 0.

    hypotheses, references: as many sentences each, as plain text: not cut into tokens, and cased.
    tokenize: how sacrebleu cuts both: "13a" as the WMT does; "intl", "char", "zh"; "none" at spaces,
        for sentences that are cut into tokens already, such as what a `Vocabulary` decodes.
    lowercase: compare without case. Scores of other tokenisation or casing cannot be compared.

    Needs the `sacrebleu` package: pip install 'seqjax[text]'. Raises a ValueError for no sentences, for
    unequal numbers of them, and for one `str` in place of a list. References: Papineni et al. 2002;
    Post 2018.

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
    try:
        from sacrebleu.metrics.bleu import BLEU as Sacrebleu
    except ImportError:
        raise ImportError(
            "corpus_bleu needs the sacrebleu package: pip install 'seqjax[text]'"
        ) from None
    # `force` silences its advice on text that looks cut into tokens: "none" says that it is.
    metric = Sacrebleu(tokenize=tokenize, lowercase=lowercase, force=tokenize == "none")
    found = metric.corpus_score(list(hypotheses), [list(references)])
    return BLEU(float(found.score), str(metric.get_signature()))


def mean_absolute_error(
    predictions: Shaped[Array, "..."],
    targets: Shaped[Array, "..."],
    *,
    mask: Shaped[Array, "..."] | None = None,
) -> Array:
    """MAE = mean over real tokens t and features i of |ŷ_{t,i} - y_{t,i}|

    In the targets' unit. Arguments, masking and ValueErrors are those of `losses.mean_squared_error`.
    Over many batches: merge the `Mean`s that `forecast_errors` gives.

    >>> predictions = jnp.array([[1.0, -2.0], [jnp.nan, 0.0]])
    >>> print(mean_absolute_error(predictions, jnp.zeros((2, 2)), mask=jnp.array([True, False])))
    1.5
    """
    errors = _errors("mean_absolute_error", predictions, targets)
    return mean_over(jnp.mean(jnp.abs(errors), axis=-1), mask).value


class ForecastErrors(NamedTuple):
    """Errors of forecasts as `Mean`s: merge those of batches, `.value` at the end.

    mse, mae: on scaled values, the mean over all columns.
    column_mse, column_mae: of each column, in its own unit, squared in the first.
    """

    mse: Mean
    mae: Mean
    column_mse: Mean
    column_mae: Mean

    def merge(self, other: "ForecastErrors") -> "ForecastErrors":
        """The errors over what both saw."""
        return ForecastErrors(*(a.merge(b) for a, b in zip(self, other, strict=True)))


def forecast_errors(
    predictions: Shaped[Array, "..."],
    targets: Shaped[Array, "..."],
    deviation: Sequence[float] | npt.ArrayLike,
    *,
    mask: Shaped[Array, "..."] | None = None,
) -> ForecastErrors:
    """e_{t,i} = ẑ_{t,i} - z_{t,i}
    MSE = mean over t, i of e²,   MAE = mean over t, i of |e|
    MSE_i = σ_i² · mean over t of e²_{t,i},   MAE_i = σ_i · mean over t of |e_{t,i}|

    Both are scaled, z = (x - μ) / σ, and so x̂ - x = σ e: the means need no undoing.

    predictions: ẑ, float[*tokens, columns]. targets: z, of that shape. deviation: σ, [columns], such as
    `Scaling.deviation` of the targets. mask: bool[*tokens]. Raises a ValueError for shapes or dtypes
    that do not fit.

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
    """Two means of a likelihood per step, in nats. They differ where pieces differ in length.

    over_steps: Σ over all steps, by their number; long pieces weigh more.
    over_pieces: the mean of the means of the pieces; each piece weighs the same.
    """

    over_steps: float
    over_pieces: float


def nll_per_step(totals: npt.ArrayLike, steps: npt.ArrayLike) -> StepMeans:
    """over_steps = Σ_p L_p / Σ_p T_p,   over_pieces = mean over p of L_p / T_p

    totals: L_p, the negative log-likelihood of each piece, summed over its steps, [pieces].
    steps: T_p, the steps that were scored, int[pieces]. Say which of the two is reported.

    Raises a ValueError for shapes that do not fit, no pieces, and a piece without steps.

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


def _ratio(a: npt.ArrayLike, b: npt.ArrayLike) -> np.ndarray:
    """A / b, and 0 where b is 0."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return np.divide(a, b, out=np.zeros_like(a), where=b != 0)


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
    """Σ over real tokens of each column, in its unit, and the number of tokens."""
    if mask is not None:
        errors = jnp.where(mask[..., None], errors, 0)
    return Mean(jnp.sum(errors, axis=tuple(range(errors.ndim - 1))) * unit, count)
