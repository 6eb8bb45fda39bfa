"""Points of ROC and precision-recall curves for a report, thinned without moving a visible corner."""

from __future__ import annotations

import numpy as np

from quantward.core.values import FloatArray
from quantward.evaluate.metrics import Mask

Curve = tuple[tuple[float, float], ...]


def roc(positive: Mask, score: FloatArray, most: int = 200) -> Curve:
    """(1 - specificity, sensitivity) from (0, 0) to (1, 1), at most about `most` points; empty where undefined.

    >>> roc(np.array([True, False]), np.array([0.9, 0.2]))
    ((0.0, 0.0), (0.0, 1.0), (1.0, 1.0))
    """
    hits, false = _counts(positive, score)
    if hits[-1] == 0 or false[-1] == 0:
        return ()
    return _thinned(np.r_[0.0, false / false[-1]], np.r_[0.0, hits / hits[-1]], most)


def precision_recall(positive: Mask, score: FloatArray, most: int = 200) -> Curve:
    """(recall, precision) from the highest score down, at most about `most` points; empty without positives.

    >>> precision_recall(np.array([True, False]), np.array([0.9, 0.2]))
    ((0.0, 1.0), (1.0, 1.0), (1.0, 0.5))
    """
    hits, false = _counts(positive, score)
    if hits[-1] == 0:
        return ()
    precision = hits / (hits + false)
    return _thinned(np.r_[0.0, hits / hits[-1]], np.r_[precision[0], precision], most)


def _counts(positive: Mask, score: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Positives and negatives at or above each distinct score, highest first."""
    if not len(score):
        return np.zeros(1), np.zeros(1)
    order = np.argsort(-score, kind="stable")
    ranked, hit = score[order], positive[order]
    ends = np.r_[np.flatnonzero(ranked[1:] != ranked[:-1]), len(ranked) - 1]
    hits = np.cumsum(hit)[ends].astype(np.float64)
    return hits, ends + 1.0 - hits


def _thinned(x: FloatArray, y: FloatArray, most: int) -> Curve:
    """Drop points inside straight runs, then keep those that are spaced evenly along the curve, and both ends."""
    dx, dy = np.diff(x), np.diff(y)
    bend = np.r_[True, np.abs(dx[1:] * dy[:-1] - dx[:-1] * dy[1:]) > 1e-15, True]
    x, y = x[bend], y[bend]
    if len(x) > most:
        way = np.r_[0.0, np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y)))]
        keep = np.unique(np.searchsorted(way, np.linspace(0, way[-1], most)))
        x, y = x[keep], y[keep]
    return tuple(zip(x.tolist(), y.tolist(), strict=True))
