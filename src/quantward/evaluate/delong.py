"""DeLong's test of two correlated AUROCs, as an independent witness of the bootstrap; mid-ranks, O(n log n)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from quantward.core.values import FloatArray, IntArray
from quantward.evaluate.metrics import Mask
from quantward.evaluate.proportions import quantile


@dataclass(frozen=True)
class DeLong:
    """Candidate - baseline AUROC with its normal interval and two-sided p; p is 1 where nothing differs at all."""

    delta: float
    error: float
    low: float
    high: float
    p: float


def placements(positive: Mask, score: FloatArray) -> FloatArray:
    """For each image the share of the other class that it is on the right side of, ties as halves, shape (n,).

    A positive's share of negatives with a lower score, a negative's share of positives with a higher one; the mean
    over either class is the AUROC. From mid-ranks within all and within each class (Sun and Xu 2014).

    >>> placements(np.array([True, True, False]), np.array([0.9, 0.5, 0.5])).tolist()
    [1.0, 0.5, 0.75]
    """
    found = np.empty(len(score))
    whole = _midranks(score)
    up, down = int(positive.sum()), int((~positive).sum())
    found[positive] = (whole[positive] - _midranks(score[positive])) / down
    found[~positive] = 1 - (whole[~positive] - _midranks(score[~positive])) / up
    return found


def _midranks(values: FloatArray) -> FloatArray:
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(count) - (count - 1) / 2)[place])


def delong(positive: Mask, baseline: FloatArray, candidate: FloatArray, level: float = 0.95) -> DeLong | None:
    """Compare two scores of the same images (DeLong, DeLong and Clarke-Pearson 1988).

    var = s^2(positives) / m + s^2(negatives) / n of the differences of placements. None with fewer than two images of
    either kind.
    """
    if positive.sum() < 2 or (~positive).sum() < 2:
        return None
    change = placements(positive, candidate) - placements(positive, baseline)
    parts = [change[positive], change[~positive]]
    return _normal(float(parts[0].mean()), sum(float(part.var(ddof=1)) / len(part) for part in parts), level)


def delong_macro(truth: IntArray, baseline: FloatArray, candidate: FloatArray, level: float = 0.95) -> DeLong | None:
    """The same for the macro one-against-rest AUROC of (n, classes) probabilities.

    The macro AUROC is a mean over images of one influence each: an image of class k speaks as a positive of k and as a
    negative of every other class. Its variance is the sum over classes of n_k times the variance within the class.
    None with fewer than two images of a class.
    """
    classes = baseline.shape[1]
    counts = np.bincount(truth, minlength=classes)
    if counts.min() < 2:
        return None
    influence, delta = np.zeros(len(truth)), 0.0
    for k in range(classes):
        positive = truth == k
        change = placements(positive, candidate[:, k]) - placements(positive, baseline[:, k])
        influence += change / np.where(positive, counts[k], len(truth) - counts[k]) / classes
        delta += float(change[positive].mean()) / classes
    variance = sum(counts[k] * float(influence[truth == k].var(ddof=1)) for k in range(classes))
    return _normal(delta, variance, level)


def _normal(delta: float, variance: float, level: float) -> DeLong:
    if abs(delta) < 1e-12:
        delta = 0.0
    error = math.sqrt(variance) if variance > 1e-24 else 0.0
    if error == 0.0:
        return DeLong(delta, 0.0, delta, delta, 1.0 if delta == 0.0 else 0.0)
    z = quantile(level)
    return DeLong(delta, error, delta - z * error, delta + z * error, math.erfc(abs(delta) / error / math.sqrt(2)))
