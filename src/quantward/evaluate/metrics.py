"""Every metric as a plain function of truth and probabilities: the definitions that all faster code is tested against.

Shapes: `truth` (n,) holds class indices, `probabilities` (n, classes); a one-against-rest function takes `positive`
(n,) bool and `score` (n,). `weights` (n,) are non-negative; None means one each. An undefined value is NaN, and
`undefined` says why: a metric of a class that is absent does not exist, and a macro mean over it does not either.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from quantward.core.values import FloatArray, IntArray, Predictions

Mask = npt.NDArray[np.bool_]
BINS = 15

OVERALL = (
    "accuracy",
    "balanced_accuracy",
    "auroc",
    "auprc",
    "f1",
    "sensitivity",
    "specificity",
    "kappa",
    "brier",
    "ece",
    "ece_debiased",
)
"""Names of the metrics of a whole prediction set, in the order in which they are shown."""

PER_CLASS = ("auroc", "auprc", "f1", "sensitivity", "specificity", "brier", "ece", "ece_debiased")
"""Names of the metrics that also exist for one class against the rest."""

SMALLER_IS_BETTER = frozenset({"brier", "ece", "ece_debiased"})


def _binned(place: IntArray, amount: FloatArray, bins: int) -> FloatArray:
    return np.bincount(place, amount, bins).astype(np.float64)


def _weights(weights: FloatArray | None, n: int) -> FloatArray:
    return np.ones(n) if weights is None else np.asarray(weights, np.float64)


def _ratio(part: float, whole: float) -> float:
    return float(part) / float(whole) if whole > 0 else math.nan


def predicted(probabilities: FloatArray) -> IntArray:
    """The class with the largest probability, shape (n,); the first one where several are largest."""
    return np.asarray(np.argmax(probabilities, axis=1))


def confusion(truth: IntArray, probabilities: FloatArray, weights: FloatArray | None = None) -> npt.NDArray[np.float64]:
    """Weight of each pair (true class, predicted class), shape (classes, classes).

    >>> confusion(np.array([0, 1, 1]), np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]])).tolist()
    [[1.0, 0.0], [1.0, 1.0]]
    """
    classes = probabilities.shape[1]
    cell = np.asarray(truth) * classes + predicted(probabilities)
    w = _weights(weights, len(cell))
    return np.bincount(cell, w, classes * classes).astype(np.float64).reshape(classes, classes)


def accuracy(truth: IntArray, probabilities: FloatArray, weights: FloatArray | None = None) -> float:
    """Weighted share of images whose predicted class is the true one.

    >>> accuracy(np.array([0, 1]), np.array([[0.9, 0.1], [0.6, 0.4]]))
    0.5
    """
    table = confusion(truth, probabilities, weights)
    return _ratio(np.trace(table), table.sum())


def sensitivities(truth: IntArray, probabilities: FloatArray, weights: FloatArray | None = None) -> FloatArray:
    """TP / (TP + FN) of each class against the rest, shape (classes,); NaN for a class that is absent."""
    table = confusion(truth, probabilities, weights)
    return np.array([_ratio(table[k, k], table[k].sum()) for k in range(len(table))])


def specificities(truth: IntArray, probabilities: FloatArray, weights: FloatArray | None = None) -> FloatArray:
    """TN / (TN + FP) of each class against the rest, shape (classes,); NaN where every image is of the class."""
    table = confusion(truth, probabilities, weights)
    found = np.empty(len(table))
    for k in range(len(table)):
        others = np.delete(table, k, axis=0)
        found[k] = _ratio(np.delete(others, k, axis=1).sum(), others.sum())
    return found


def f1_scores(truth: IntArray, probabilities: FloatArray, weights: FloatArray | None = None) -> FloatArray:
    """2 TP / (2 TP + FP + FN) of each class against the rest, shape (classes,); NaN for a class that is absent.

    A class without images has no F1 here even where it was predicted: the 0 that the formula then gives (and that
    scikit-learn returns) says nothing about finding that class.
    """
    table = confusion(truth, probabilities, weights)
    hits, rows, columns = np.diag(table), table.sum(axis=1), table.sum(axis=0)
    return np.array([_ratio(2 * hits[k], rows[k] + columns[k]) if rows[k] > 0 else math.nan for k in range(len(hits))])


def balanced_accuracy(truth: IntArray, probabilities: FloatArray, weights: FloatArray | None = None) -> float:
    """Mean of the classes' sensitivities; NaN where a class is absent."""
    return float(np.mean(sensitivities(truth, probabilities, weights)))


def kappa(truth: IntArray, probabilities: FloatArray, weights: FloatArray | None = None) -> float:
    """Cohen's kappa, (p_o - p_e) / (1 - p_e), of the predicted against the true classes (Cohen 1960).

    NaN where p_e is 1: all images are of one class and all are called so.
    """
    table = confusion(truth, probabilities, weights)
    total, rows, columns = table.sum(), table.sum(axis=1), table.sum(axis=0)
    if np.count_nonzero(rows + columns) < 2:
        return math.nan
    expected = columns @ rows / total
    return _ratio(np.trace(table) - expected, total - expected)


def auroc(positive: Mask, score: FloatArray, weights: FloatArray | None = None) -> float:
    """Area under the ROC curve: the weighted share of (positive, negative) pairs in the right order, ties as halves.

    NaN without positives or without negatives.

    >>> auroc(np.array([True, True, False]), np.array([0.9, 0.5, 0.5]))
    0.75
    """
    gain, loss = _by_score(positive, score, weights)
    above = np.cumsum(loss)
    wrong = float(np.sum(gain * (above - loss / 2)))
    pairs = float(gain.sum() * loss.sum())
    return 1.0 - wrong / pairs if pairs > 0 else math.nan


def auprc(positive: Mask, score: FloatArray, weights: FloatArray | None = None) -> float:
    """Average precision, sum over distinct scores of (R_i - R_{i-1}) P_i; no interpolation. NaN without positives.

    >>> auprc(np.array([True, False, True]), np.array([0.9, 0.8, 0.7]))
    0.8333333333333333
    """
    gain, loss = _by_score(positive, score, weights)
    hits, false = np.cumsum(gain), np.cumsum(loss)
    total = float(gain.sum())
    if total <= 0:
        return math.nan
    taken = hits + false > 0
    return float(np.sum(gain[taken] * hits[taken] / (hits + false)[taken])) / total


def _by_score(positive: Mask, score: FloatArray, weights: FloatArray | None) -> tuple[FloatArray, FloatArray]:
    """Weight of the positives and of the negatives at each distinct score, highest score first."""
    values, place = np.unique(-np.asarray(score), return_inverse=True)
    w = _weights(weights, len(score))
    gain = _binned(place, np.where(positive, w, 0.0), len(values))
    return gain, _binned(place, np.where(positive, 0.0, w), len(values))


def brier(truth: IntArray, probabilities: FloatArray, weights: FloatArray | None = None) -> float:
    """Mean over images of the sum over classes of (p - y)^2, between 0 and 2 (Brier 1950).

    >>> round(brier(np.array([0]), np.array([[0.8, 0.2]])), 12)
    0.08
    """
    return float(np.sum(brier_scores(truth, probabilities, weights)))


def brier_scores(truth: IntArray, probabilities: FloatArray, weights: FloatArray | None = None) -> FloatArray:
    """Mean over images of (p - y)^2 for each class, shape (classes,); they sum to `brier`."""
    w = _weights(weights, len(truth))
    hit = np.asarray(truth)[:, None] == np.arange(probabilities.shape[1])
    return np.array([_ratio(w @ column, w.sum()) for column in ((probabilities - hit) ** 2).T])


def bin_of(confidence: FloatArray, bins: int = BINS) -> IntArray:
    """The equal-width bin of each confidence: bin i holds (i / bins, (i + 1) / bins], the first one also 0.

    >>> bin_of(np.array([0.0, 0.5, 1.0]), bins=2).tolist()
    [0, 0, 1]
    """
    return np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], confidence, side="left")


def ece_binary(positive: Mask, score: FloatArray, weights: FloatArray | None = None, bins: int = BINS) -> float:
    """Expected calibration error of one class: sum over bins of |sum of w (p - y)| / sum of w (Naeini et al. 2015)."""
    w = _weights(weights, len(score))
    gap = _binned(bin_of(score, bins), w * (np.asarray(score) - positive), bins)
    return _ratio(float(np.abs(gap).sum()), float(w.sum()))


def ece_debiased_binary(
    positive: Mask, score: FloatArray, weights: FloatArray | None = None, bins: int = BINS
) -> float:
    """`ece_binary` less its estimated bias: sum over bins of (n_b / n) (2 |g| - E|N(g, s^2)|).

    g is the bin's mean p - y and s^2 = f (1 - f) / n_b with f the bin's observed frequency: the plug-in error minus
    the amount by which noise of that size would lift it (Kumar, Liang and Ma 2019, the debiased estimator for the
    absolute error; their Monte Carlo mean of |N(g, s^2)| is taken in closed form). Can be slightly negative.
    """
    w = _weights(weights, len(score))
    place = bin_of(score, bins)
    count = _binned(place, w, bins)
    gap = _binned(place, w * (np.asarray(score) - positive), bins)
    hits = _binned(place, w * positive, bins)
    total = float(w.sum())
    return float(np.sum(debiased_gap(gap, hits, count))) / total if total > 0 else math.nan


def debiased_gap(gap: FloatArray, hits: FloatArray, count: FloatArray) -> FloatArray:
    """n_b (2 |g| - E|N(g, s^2)|) of bins, from their sums of p - y, of y and of 1. Any shape; empty bins give 0."""
    from scipy.special import erf

    size = np.maximum(count, 1e-300)
    frequency = hits / size
    plain = np.abs(gap)
    spread = np.sqrt(np.maximum(frequency * (1 - frequency), 0.0) * count)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        z = np.where(spread > 0, plain / np.where(spread > 0, spread, 1.0), np.inf)
        folded = spread * math.sqrt(2 / math.pi) * np.exp(-0.5 * z * z) + plain * erf(z / math.sqrt(2))
    return np.asarray(2 * plain - np.where(spread > 0, folded, plain))


def _each(function: Callable[..., float]) -> Callable[..., FloatArray]:
    def every(truth: IntArray, probabilities: FloatArray, weights: FloatArray | None = None) -> FloatArray:
        return np.array(
            [function(np.asarray(truth) == k, probabilities[:, k], weights) for k in range(probabilities.shape[1])]
        )

    return every


ONE_VS_REST: dict[str, Callable[..., FloatArray]] = {
    "auroc": _each(auroc),
    "auprc": _each(auprc),
    "f1": f1_scores,
    "sensitivity": sensitivities,
    "specificity": specificities,
    "brier": brier_scores,
    "ece": _each(ece_binary),
    "ece_debiased": _each(ece_debiased_binary),
}
"""For each name of `PER_CLASS`: (truth, probabilities, weights) -> one value a class, NaN where undefined."""

_WHOLE: dict[str, Callable[..., float]] = {
    "accuracy": accuracy,
    "balanced_accuracy": balanced_accuracy,
    "kappa": kappa,
    "brier": brier,
}


def overall(name: str, truth: IntArray, probabilities: FloatArray, weights: FloatArray | None = None) -> float:
    """One metric of `OVERALL`; those of `PER_CLASS` as the plain mean over classes (Brier: the sum)."""
    if name in _WHOLE:
        return _WHOLE[name](truth, probabilities, weights)
    return float(np.mean(ONE_VS_REST[name](truth, probabilities, weights)))


def per_class(name: str, truth: IntArray, probabilities: FloatArray, weights: FloatArray | None = None) -> FloatArray:
    """One metric of `PER_CLASS` for every class against the rest, shape (classes,)."""
    return ONE_VS_REST[name](truth, probabilities, weights)


def undefined(name: str, predictions: Predictions, k: int | None = None) -> str:
    """Why metric `name` (of class `k`, or of the whole) does not exist for these images; empty where it does.

    >>> one = Predictions(("a", "b"), np.array([0, 0]), np.full((2, 2), 0.5), ("cat", "dog"))
    >>> undefined("auroc", one)
    "no image of class 'dog'"
    """
    counts = np.bincount(predictions.truth, minlength=len(predictions.classes))
    absent = [name for name, count in zip(predictions.classes, counts, strict=True) if not count]
    if name in ("accuracy", *SMALLER_IS_BETTER):
        return ""
    if name == "kappa":
        called = {*predicted(predictions.probabilities).tolist(), *predictions.truth.tolist()}
        return "all images are of one class and called so" if len(called) == 1 else ""
    if k is None:
        if name == "specificity":
            alone = [c for c, count in zip(predictions.classes, counts, strict=True) if count == len(predictions)]
            return f"every image is of class {alone[0]!r}" if alone else ""
        return f"no image of class {absent[0]!r}" if absent else ""
    if name != "specificity" and not counts[k]:
        return f"no image of class {predictions.classes[k]!r}"
    if name in ("specificity", "auroc") and counts[k] == len(predictions):
        return f"every image is of class {predictions.classes[k]!r}"
    return ""
