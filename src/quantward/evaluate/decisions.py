"""What the numbers do to patients: operating thresholds, net benefit, and who pays for the change."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from quantward.core.errors import Refused
from quantward.core.values import FloatArray, Predictions
from quantward.evaluate import metrics
from quantward.evaluate.proportions import effective, tango

NET_BENEFIT_AT = (0.05, 0.1, 0.2, 0.3, 0.5)
"""Threshold probabilities at which the net benefit is shown: from "miss nothing" to "equally bad"."""


@dataclass(frozen=True)
class Point:
    """Sensitivity and specificity of calling a class at `score >= threshold`; None where a side has no image."""

    threshold: float
    sensitivity: float | None
    specificity: float | None


def at_threshold(positive: metrics.Mask, score: FloatArray, threshold: float) -> Point:
    """What calling every image with `score >= threshold` gives."""
    called = score >= threshold
    up, down = int(positive.sum()), int((~positive).sum())
    return Point(
        float(threshold),
        float(np.sum(called & positive)) / up if up else None,
        float(np.sum(~called & ~positive)) / down if down else None,
    )


def youden(positive: metrics.Mask, score: FloatArray) -> float | None:
    """The threshold with the largest sensitivity + specificity (Youden 1950), midway to the next lower score.

    Of several, the highest. None where a side has no image. Midway, so that a rounding of the scores does not cross it.

    >>> youden(np.array([False, False, True]), np.array([0.1, 0.3, 0.9]))
    0.6
    """
    if positive.all() or not positive.any():
        return None
    values = np.unique(score)[::-1]
    place = len(values) - 1 - np.searchsorted(values[::-1], score)
    hits = np.cumsum(np.bincount(place, positive, len(values))) / positive.sum()
    false = np.cumsum(np.bincount(place, ~positive, len(values))) / (~positive).sum()
    best = int(np.argmax(np.round(hits - false, 12)))
    below = values[best + 1] if best + 1 < len(values) else 0.0
    return float((values[best] + below) / 2)


def net_benefit(positive: metrics.Mask, score: FloatArray, at: float) -> float:
    """TP / n - FP / n * t / (1 - t): correct calls, less false ones at the exchange rate that t means (Vickers 2006).

    >>> net_benefit(np.array([True, False]), np.array([0.9, 0.8]), 0.5)
    0.0
    """
    called = score >= at
    n = len(score)
    return float(np.sum(called & positive)) / n - float(np.sum(called & ~positive)) / n * at / (1 - at)


@dataclass(frozen=True)
class Benefit:
    """Net benefit of one class at threshold probability `at`, of both models and of calling every image."""

    at: float
    baseline: float
    candidate: float
    call_all: float
    delta: float
    low: float
    high: float


def benefits(baseline: Predictions, candidate: Predictions, k: int) -> list[Benefit]:
    """Net benefit of class k at `NET_BENEFIT_AT`; both must be `aligned`.

    delta = r dSe + (1 - r) w dSp with r the class's share and w = t / (1 - t); its interval combines the paired score
    intervals of sensitivity and specificity, which come from different images (MOVER, Zou and Donner 2008).
    """
    positive = baseline.truth == k
    before, after = baseline.probabilities[:, k], candidate.probabilities[:, k]
    rate = float(positive.mean())
    rows = []
    for at in NET_BENEFIT_AT:
        one, two = net_benefit(positive, before, at), net_benefit(positive, after, at)
        below = above = 0.0
        for here, worth in ((positive, rate), (~positive, (1 - rate) * at / (1 - at))):
            if not here.any():
                continue
            calls = [(score >= at) == positive for score in (before, after)]
            change = float(calls[1][here].mean()) - float(calls[0][here].mean())
            low, high = _paired(calls[0], calls[1], here, baseline.groups)
            below += (worth * (change - low)) ** 2
            above += (worth * (high - change)) ** 2
        delta = two - one
        call_all = rate - (1 - rate) * at / (1 - at)
        rows.append(Benefit(at, one, two, call_all, delta, delta - math.sqrt(below), delta + math.sqrt(above)))
    return rows


@dataclass(frozen=True)
class Operating:
    """One class's operating point: frozen on the baseline, kept by the candidate, and tuned anew for the candidate.

    `sensitivity_low/high` and `specificity_low/high` hold the paired score interval of candidate - baseline, frozen.
    """

    baseline: Point
    frozen: Point
    retuned: Point
    sensitivity_low: float
    sensitivity_high: float
    specificity_low: float
    specificity_high: float


def frozen_thresholds(select: Predictions) -> dict[str, float]:
    """Every class's threshold, tuned (`youden`) on images that no verdict is taken on."""
    tuned = {name: youden(select.truth == k, select.probabilities[:, k]) for k, name in enumerate(select.classes)}
    return {name: value for name, value in tuned.items() if value is not None}


def operating_points(
    baseline: Predictions, candidate: Predictions, thresholds: Mapping[str, float] | None = None
) -> dict[str, Operating]:
    """Every class's operating point; `thresholds` by class come from other images (select), or else from these.

    Thresholds that are tuned on the images they are judged on flatter both models alike. A class without images (or
    that has them all) is left out. Both must be `aligned`.
    """
    found = {}
    for k, name in enumerate(baseline.classes):
        positive = baseline.truth == k
        before, after = baseline.probabilities[:, k], candidate.probabilities[:, k]
        own, anew = youden(positive, before), youden(positive, after)
        if own is None or anew is None:
            continue
        threshold = (thresholds or {}).get(name, own)
        sides = [
            _paired(before >= threshold, after >= threshold, positive, baseline.groups),
            _paired(before < threshold, after < threshold, ~positive, baseline.groups),
        ]
        found[name] = Operating(
            at_threshold(positive, before, threshold),
            at_threshold(positive, after, threshold),
            at_threshold(positive, after, anew),
            *sides[0],
            *sides[1],
        )
    return found


def _paired(
    before: metrics.Mask, after: metrics.Mask, here: metrics.Mask, groups: Sequence[str] | None
) -> tuple[float, float]:
    step = after[here].astype(float) - before[here]
    n = effective(step, None if groups is None else np.asarray(groups)[here])
    scale = n / len(step)
    return tango(float(np.sum(step < 0)) * scale, float(np.sum(step > 0)) * scale, n)


@dataclass(frozen=True)
class Subgroup:
    """Accuracy of both models on the images of one attribute value, and the paired score interval of the change."""

    attribute: str
    value: str
    n: int
    baseline: float
    candidate: float
    delta: float
    low: float
    high: float


def subgroups(
    baseline: Predictions, candidate: Predictions, attributes: Mapping[str, Sequence[str]]
) -> tuple[Subgroup, ...]:
    """One row for every value of every attribute, the worst change of each attribute first. Both must be `aligned`.

    Raises Refused where an attribute does not have one value an image.
    """
    right = [metrics.predicted(p.probabilities) == p.truth for p in (baseline, candidate)]
    rows: list[Subgroup] = []
    for attribute, values in attributes.items():
        if len(values) != len(baseline):
            raise Refused(
                f"Expected {len(baseline)} values of attribute {attribute!r}, one an image; got {len(values)}. "
                "Take them in the order of the baseline's ids."
            )
        column = np.asarray(values, dtype=object).astype(str)
        found = []
        for value in np.unique(column):
            here = column == value
            before, after = (float(hit[here].mean()) for hit in right)
            low, high = _paired(right[0], right[1], here, baseline.groups)
            found.append(Subgroup(attribute, str(value), int(here.sum()), before, after, after - before, low, high))
        rows += sorted(found, key=lambda row: (row.delta, row.value))
    return tuple(rows)


def summary(
    baseline: Predictions,
    candidate: Predictions,
    attributes: Mapping[str, Sequence[str]] | None = None,
    thresholds: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """All of it as plain data: operating points and net benefit by class, subgroups where attributes are given."""
    benefit = {
        name: [asdict(row) for row in benefits(baseline, candidate, k)] for k, name in enumerate(baseline.classes)
    }
    found: dict[str, Any] = {
        "thresholds_from": "given" if thresholds else "the baseline on these images",
        "operating_points": {
            name: asdict(point) for name, point in operating_points(baseline, candidate, thresholds).items()
        },
        "net_benefit": benefit,
    }
    if attributes:
        rows = subgroups(baseline, candidate, attributes)
        found["subgroups"] = [asdict(row) for row in rows]
        worst = min(rows, key=lambda row: (row.delta, math.inf if math.isnan(row.low) else row.low))
        found["worst_group"] = asdict(worst)
    return found
