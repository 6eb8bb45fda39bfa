"""candidate - baseline of every metric, with interval and p-value, from bootstrap values that are already drawn."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from quantward.core.values import Delta, FloatArray, Predictions
from quantward.evaluate import metrics
from quantward.evaluate.bootstrap import Replicates
from quantward.evaluate.intervals import bca, p_value, p_value_eq3, paired_area, percentile, snapped
from quantward.evaluate.multiple import holm
from quantward.evaluate.proportions import effective, mover, p_of, paired_mean, tango, tango_z

Method = Literal["percentile", "bca", "eq3"]
METHODS = ("percentile", "bca", "eq3")
Interval = tuple[float, float]
Counts = tuple[float, float, float]


def differences(
    baseline: Predictions,
    candidate: Predictions,
    drawn: tuple[Replicates, ...],
    method: Method = "percentile",
    rest: tuple[Replicates, ...] | None = None,
) -> tuple[dict[str, Delta], dict[str, dict[str, Delta]]]:
    """Deltas of the whole and by class from the replicates of both models; `rest` are jackknife values, for `bca`.

    Proportions have the intervals of `scores`, and the larger of the p-values of bootstrap and score test: with few
    discordant images the bootstrap alone rejects too often. Under `percentile`, AUROC and AUPRC have those of `areas`.

    Both predictions must be `aligned`.
    """
    truth = baseline.truth
    both = [baseline.probabilities, candidate.probabilities]
    score = dict(scores(baseline, candidate)) if method != "eq3" else {}
    if method == "percentile":
        score.update(areas(baseline, candidate, drawn))
    deltas: dict[str, Delta] = {}
    per_class: dict[str, dict[str, Delta]] = {}
    for name in metrics.OVERALL:
        values = [metrics.overall(name, truth, p) for p in both]
        reason = metrics.undefined(name, baseline) or metrics.undefined(name, candidate)
        series = difference(drawn, name, None)
        left_out = difference(rest, name, None) if rest else None
        deltas[name] = _delta(values, series, left_out, method, score.get((name, None)), None, reason)
    counts = np.bincount(truth, minlength=len(baseline.classes))
    for name in metrics.PER_CLASS:
        columns = [metrics.per_class(name, truth, p) for p in both]
        per_class[name] = {}
        for k, label in enumerate(baseline.classes):
            values = [float(column[k]) for column in columns]
            reason = metrics.undefined(name, baseline, k)
            series = difference(drawn, name, k)
            left_out = difference(rest, name, k) if rest else None
            per_class[name][label] = _delta(
                values, series, left_out, method, score.get((name, k)), int(counts[k]), reason
            )
    _adjust(deltas, per_class)
    return deltas, per_class


def difference(drawn: tuple[Replicates, ...], name: str, k: int | None) -> FloatArray:
    """Replicates of candidate - baseline of one metric (of class k, or of the whole), rounding taken out."""
    if k is None:
        return snapped(drawn[1].overall[name] - drawn[0].overall[name])
    return snapped(drawn[1].per_class[name][k] - drawn[0].per_class[name][k])


def _delta(
    values: list[float],
    series: FloatArray,
    left_out: FloatArray | None,
    method: Method,
    score: Score | None,
    positive: int | None,
    reason: str,
) -> Delta:
    before, after = (None if math.isnan(value) else value for value in values)
    if reason or before is None or after is None:
        return Delta(before, after, None, n_positive=positive, reason=reason or "undefined")
    delta = float(snapped(np.array(after - before)))
    if score is not None:
        interval: Interval | None = score.interval
    elif left_out is not None:
        interval = bca(series, delta, left_out)
    else:
        interval = percentile(series)
    if interval is None:
        return Delta(
            before,
            after,
            delta,
            n_positive=positive,
            reason="no interval: most bootstrap replicates lack a class",
        )
    known = series[~np.isnan(series)]
    p = p_value_eq3(series) if method == "eq3" else p_value(series)
    if score is not None:
        p = max(p, score.p)
    ties = float(np.mean(known == 0))
    return Delta(before, after, delta, *interval, p, None, ties, positive, "")


@dataclass(frozen=True)
class Score:
    """An interval of a difference; `p` is the least p-value of "no difference" that fits it."""

    interval: Interval
    p: float = 0.0


def scores(baseline: Predictions, candidate: Predictions) -> Mapping[tuple[str, int | None], Score]:
    """Interval and p of every difference of proportions and of Brier scores, by metric and class (None: the whole).

    Tango's for single proportions, over the effective number of images; MOVER of these for the mean sensitivity, whose
    classes are different images; Student's t for Brier scores, which are means over images (`paired_mean`). Both must
    be `aligned`.
    """
    truth, groups = baseline.truth, baseline.groups
    calls = [metrics.predicted(p.probabilities) for p in (baseline, candidate)]
    cluster = None if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    found: dict[tuple[str, int | None], Score] = {}

    def add(key: tuple[str, int | None], before: metrics.Mask, after: metrics.Mask, here: Any) -> Counts | None:
        step = after[here].astype(float) - before[here]
        if not len(step):
            return None
        n = effective(step, None if cluster is None else cluster[here])
        scale = n / len(step)
        counts = float(np.sum(step < 0)) * scale, float(np.sum(step > 0)) * scale, n
        found[key] = Score(tango(*counts), math.erfc(abs(tango_z(*counts)) / math.sqrt(2)))
        return counts

    add(("accuracy", None), calls[0] == truth, calls[1] == truth, slice(None))
    parts = []
    for k in range(len(baseline.classes)):
        parts.append(add(("sensitivity", k), calls[0] == k, calls[1] == k, truth == k))
        add(("specificity", k), calls[0] != k, calls[1] != k, truth != k)
    whole_step = np.zeros(len(truth))
    for k in range(len(baseline.classes)):
        errors = [(p.probabilities[:, k] - (truth == k)) ** 2 for p in (baseline, candidate)]
        step = errors[1] - errors[0]
        whole_step += step
        low, high, p = paired_mean(step, cluster)
        found["brier", k] = Score((low, high), p)
    low, high, p = paired_mean(whole_step, cluster)
    found["brier", None] = Score((low, high), p)
    known = [part for part in parts if part is not None]
    if len(known) == len(parts):

        def whole(level: float) -> Interval:
            changes = [(mended - broken) / n for broken, mended, n in known]
            return mover(changes, [tango(*counts, level) for counts in known])

        score = Score(whole(0.95), p_of(whole))
        found["sensitivity", None] = found["balanced_accuracy", None] = score
    return found


def areas(
    baseline: Predictions, candidate: Predictions, drawn: tuple[Replicates, ...]
) -> Mapping[tuple[str, int | None], Score]:
    """Interval of every difference of AUROC and AUPRC, keyed like `scores`; undefined ones are left out."""
    truth, classes = baseline.truth, len(baseline.classes)
    counts = np.bincount(truth, minlength=classes).astype(float)
    pairs = counts * (len(truth) - counts)
    found: dict[tuple[str, int | None], Score] = {}
    for name in ("auroc", "auprc"):
        values = [metrics.per_class(name, truth, p.probabilities) for p in (baseline, candidate)]
        rows: list[tuple[int | None, float]] = [(k, float(pairs[k])) for k in range(classes)]
        for k, pair_count in [*rows, (None, float(pairs.max()))]:
            one, two = (float(v.mean()) if k is None else float(v[k]) for v in values)
            if math.isnan(one) or math.isnan(two) or pair_count <= 0:
                continue
            own = drawn[1].overall[name] if k is None else drawn[1].per_class[name][k]
            delta = float(snapped(np.array(two - one)))
            fit = paired_area(difference(drawn, name, k), delta, own, two, 0.5 / pair_count)
            if fit is not None:
                found[name, k] = Score(fit)
    return found


def _adjust(deltas: dict[str, Delta], per_class: dict[str, dict[str, Delta]]) -> None:
    """Fill p_holm in place: one family of all metrics and classes (a name that repeats another's value counts too)."""
    tables: list[dict[str, Delta]] = [deltas, *per_class.values()]
    places = [(table, name) for table in tables for name in table if table[name].p is not None]
    adjusted = holm([table[name].p or 0.0 for table, name in places])
    for (table, name), p in zip(places, adjusted, strict=True):
        table[name] = replace(table[name], p_holm=p)
