"""Whether a probability means what it says: more views of calibration than one ECE, and what noise alone would show."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from quantward.core.errors import Refused
from quantward.core.values import FloatArray, IntArray, Predictions
from quantward.evaluate.metrics import BINS, Mask, bin_of, ece_binary, predicted

_SMALLEST = 1e-12


def ece_equal_mass(positive: Mask, score: FloatArray, bins: int = BINS) -> float:
    """Expected calibration error of one class over bins of (nearly) equally many images; equal scores share a bin.

    Bin of a score: its mid-rank over n, in steps of 1 / bins (Nguyen and O'Connor 2015, with ties kept together).

    >>> round(ece_equal_mass(np.array([True, False]), np.array([0.75, 0.25]), bins=2), 12)
    0.25
    """
    n = len(score)
    _, place, count = np.unique(score, return_inverse=True, return_counts=True)
    middle = (np.cumsum(count) - count / 2)[place]
    bin_ = np.minimum((bins * middle / n).astype(np.int64), bins - 1)
    return float(np.abs(np.bincount(bin_, score - positive, bins)).sum()) / n


def ece_top_label(truth: IntArray, probabilities: FloatArray, bins: int = BINS) -> float:
    """ECE of the largest probability against being right (Guo et al. 2017): what a user of one answer sees."""
    return ece_binary(predicted(probabilities) == truth, probabilities.max(axis=1), None, bins)


@dataclass(frozen=True)
class BrierParts:
    """brier = reliability - resolution + uncertainty + within. `within` is what binning the scores leaves over."""

    brier: float
    reliability: float
    resolution: float
    uncertainty: float
    within: float


def brier_parts(positive: Mask, score: FloatArray, bins: int = BINS) -> BrierParts:
    """Murphy's decomposition of one class's Brier score over equal-width bins (Murphy 1973; Stephenson et al. 2008).

    reliability = sum n_b (p_b - f_b)^2 / n, resolution = sum n_b (f_b - f)^2 / n, uncertainty = f (1 - f).

    >>> parts = brier_parts(np.array([True, False]), np.array([0.8, 0.2]))
    >>> round(parts.reliability - parts.resolution + parts.uncertainty + parts.within, 12) == round(parts.brier, 12)
    True
    """
    n = len(score)
    place = bin_of(score, bins)
    count = np.bincount(place, minlength=bins)
    used = count > 0
    size = count[used]
    confidence = np.bincount(place, score, bins)[used] / size
    frequency = np.bincount(place, positive.astype(float), bins)[used] / size
    rate = float(np.mean(positive))
    brier = float(np.mean((score - positive) ** 2))
    reliability = float(size @ (confidence - frequency) ** 2) / n
    resolution = float(size @ (frequency - rate) ** 2) / n
    uncertainty = rate * (1 - rate)
    return BrierParts(brier, reliability, resolution, uncertainty, brier - reliability + resolution - uncertainty)


@dataclass(frozen=True)
class Recalibration:
    """logit P(y) = intercept + slope logit p: 0 and 1 are ideal, a slope below 1 is overconfident.

    `in_the_large` is the intercept with the slope held at 1: 0 where the mean probability is right. None, with the
    reason, where a class is absent or perfectly separated.
    """

    slope: float | None
    intercept: float | None
    in_the_large: float | None
    reason: str = ""


def recalibration(positive: Mask, score: FloatArray) -> Recalibration:
    """Calibration slope and intercept of one class by logistic regression on the logit (Cox 1958; Van Calster 2019)."""
    if positive.all() or not positive.any():
        return Recalibration(None, None, None, "one of the two classes is absent")
    p = np.clip(score, _SMALLEST, 1 - _SMALLEST)
    x = np.log(p) - np.log1p(-p)
    y = positive.astype(np.float64)
    large = _logistic(np.ones((len(x), 1)), y, x)
    whole = _logistic(np.c_[np.ones(len(x)), x], y, np.zeros(len(x)))
    if whole is None:
        return Recalibration(None, None, None if large is None else float(large[0]), "the classes are separated")
    return Recalibration(float(whole[1]), float(whole[0]), None if large is None else float(large[0]))


def _logistic(x: FloatArray, y: FloatArray, offset: FloatArray) -> FloatArray | None:
    """Maximum-likelihood coefficients of a logistic model by damped Newton steps; None where they run to infinity."""

    def loss(c: FloatArray) -> float:
        z = x @ c + offset
        return float(np.sum(np.logaddexp(0, z) - y * z))

    coefficients = np.zeros(x.shape[1])
    if x.shape[1] == 2 and float(np.std(x[:, 1])) < 1e-12:
        return None
    now = loss(coefficients)
    for _ in range(100):
        z = x @ coefficients + offset
        p = 0.5 * (1 + np.tanh(z / 2))
        slope = x.T @ (y - p)
        bend = (x * (p * (1 - p))[:, None]).T @ x
        try:
            step = np.linalg.solve(bend, slope)
        except np.linalg.LinAlgError:
            return None
        size = 1.0
        while (after := loss(coefficients + size * step)) > now + 1e-12 * abs(now) and size > 1e-8:
            size /= 2
        coefficients = coefficients + size * step
        if np.abs(coefficients).max() > 1e4 or not math.isfinite(after):
            return None
        if float(np.abs(size * step).max()) < 1e-10:
            return np.asarray(coefficients) if now > 1e-6 else None
        now = after
    return None


@dataclass(frozen=True)
class Floor:
    """What ECE a perfectly calibrated model with these very probabilities would show: mean and 95th percentile."""

    mean: float
    high: float
    simulations: int


def ece_floor(probabilities: FloatArray, *, simulations: int | None = None, seed: int = 0, bins: int = BINS) -> Floor:
    """Draw the truth from the model's own probabilities, again and again, and take the one-against-rest ECE.

    An ECE at or below `mean` is indistinguishable from perfect calibration at this n and this spread of confidences
    (Broecker and Smith 2007, consistency resampling). Fewer simulations for very large sets, where it varies little.
    """
    n, classes = probabilities.shape
    many = simulations or int(np.clip(2e7 / max(n * classes, 1), 20, 200))
    rng = np.random.default_rng(seed)
    place = bin_of(probabilities, bins) + bins * np.arange(classes)
    said = np.bincount(place.ravel(), probabilities.ravel(), bins * classes)
    ladder = np.cumsum(probabilities, axis=1)
    ladder /= ladder[:, -1:]
    rows = np.arange(n)
    found = np.empty(many)
    for i in range(many):
        truth = np.minimum((rng.random((n, 1)) >= ladder).sum(axis=1), classes - 1)
        seen = np.bincount(place[rows, truth], minlength=bins * classes)
        found[i] = np.abs(said - seen).sum() / (n * classes)
    return Floor(float(found.mean()), float(np.percentile(found, 95)), many)


def temperature(truth: IntArray, probabilities: FloatArray) -> float:
    """The T for which softmax(log p / T) has the least mean negative log-likelihood (Guo et al. 2017).

    Fit it on images of the role `select`, never on those of the verdict. Search over log T in [-3, 3] by golden
    section; the likelihood is convex in 1 / T, so there is one minimum.

    >>> p = np.array([[0.99, 0.01], [0.99, 0.01], [0.01, 0.99], [0.99, 0.01]])
    >>> temperature(np.array([0, 0, 1, 1]), p) > 1
    True
    """
    logits = np.log(np.maximum(probabilities, _SMALLEST))
    rows = np.arange(len(truth))

    def loss(power: float) -> float:
        z = logits * math.exp(-power)
        top = z.max(axis=1)
        return float(np.mean(top + np.log(np.exp(z - top[:, None]).sum(axis=1)) - z[rows, truth]))

    low, high = -3.0, 3.0
    golden = (math.sqrt(5) - 1) / 2
    for _ in range(70):
        left, right = high - golden * (high - low), low + golden * (high - low)
        if loss(left) <= loss(right):
            high = right
        else:
            low = left
    return math.exp((low + high) / 2)


def rescaled(predictions: Predictions, temperature: float) -> Predictions:
    """The same predictions with softmax(log p / T); the predicted classes do not change.

    Raises Refused for a temperature that is not positive.
    """
    if not temperature > 0:
        raise Refused(f"Expected a positive temperature; got {temperature}. Fit one on the select images.")
    z = np.log(np.maximum(predictions.probabilities, _SMALLEST)) / temperature
    p = np.exp(z - z.max(axis=1, keepdims=True))
    source = f"{predictions.source} (T = {temperature:.3g})"
    return replace(predictions, probabilities=p / p.sum(axis=1, keepdims=True), source=source)


def summary(predictions: Predictions, seed: int = 0) -> dict[str, Any]:
    """The views of calibration that stand beside the ECE, as plain data: whole, and slope and intercept by class."""
    truth, p = predictions.truth, predictions.probabilities
    each = [brier_parts(truth == k, p[:, k]) for k in range(p.shape[1])]
    fits = {name: recalibration(truth == k, p[:, k]) for k, name in enumerate(predictions.classes)}
    floor = ece_floor(p, seed=seed)
    return {
        "ece_top_label": ece_top_label(truth, p),
        "ece_equal_mass": float(np.mean([ece_equal_mass(truth == k, p[:, k]) for k in range(p.shape[1])])),
        "ece_floor": {"mean": floor.mean, "high": floor.high, "simulations": floor.simulations},
        "brier_parts": {
            name: float(sum(getattr(parts, name) for parts in each))
            for name in ("brier", "reliability", "resolution", "uncertainty", "within")
        },
        "recalibration": {
            name: {
                "slope": fit.slope,
                "intercept": fit.intercept,
                "in_the_large": fit.in_the_large,
                "reason": fit.reason,
            }
            for name, fit in fits.items()
        },
    }


def temperature_scaling(select: Predictions, test: Predictions) -> dict[str, Any]:
    """What temperature scaling would do, never done silently: T fitted on `select`, judged on `test`."""
    found = temperature(select.truth, select.probabilities)
    after = rescaled(test, found)

    def view(p: Predictions) -> dict[str, float]:
        hits = [p.truth == k for k in range(len(p.classes))]
        chosen = p.probabilities[np.arange(len(p)), p.truth]
        return {
            "ece": float(np.mean([ece_binary(hit, p.probabilities[:, k]) for k, hit in enumerate(hits)])),
            "brier": float(sum(np.mean((p.probabilities[:, k] - hit) ** 2) for k, hit in enumerate(hits))),
            "log_loss": float(-np.mean(np.log(np.maximum(chosen, _SMALLEST)))),
        }

    return {"temperature": found, "fitted_on": len(select), "before": view(test), "after": view(after)}
