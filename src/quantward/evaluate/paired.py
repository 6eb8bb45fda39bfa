"""Two models on the same images: every difference with its interval and p-value, and the predictions that flipped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from quantward.core.errors import Refused, UsageError, suggestion
from quantward.core.progress import Track, silent
from quantward.core.values import Comparison, Efficiency, Evaluation, Flips, Predictions
from quantward.evaluate import calibration, decisions, metrics
from quantward.evaluate.alignment import aligned
from quantward.evaluate.bootstrap import Replicates, bootstrap, jackknife
from quantward.evaluate.differences import METHODS, Method, difference, differences
from quantward.evaluate.proportions import clopper_pearson, effective
from quantward.evaluate.single import check, evaluated
from quantward.evaluate.witnesses import witnesses


def compare(
    baseline: Predictions,
    candidate: Predictions,
    *,
    replicates: int = 10_000,
    seed: int = 0,
    method: Method = "percentile",
    stratified: bool = False,
    attributes: Mapping[str, Sequence[str]] | None = None,
    thresholds: Mapping[str, float] | None = None,
    select: tuple[Predictions, Predictions] | None = None,
    threads: int | None = None,
    track: Track = silent,
) -> Comparison:
    """candidate - baseline of every metric on the same images, by one paired bootstrap (patients drawn whole).

    `method` is the interval of the bootstrap: `percentile`, `bca`, or `eq3` (percentile with the p-value that counts
    ties once, for reproduction only). Except under `eq3`, differences of proportions (accuracy, sensitivity,
    specificity) have Tango's paired score interval over the effective number of images, means of sensitivities MOVER
    of those: a bootstrap of two models that never disagreed has width zero, and would prove anything. Under
    `percentile`, AUROC and AUPRC have the paired bootstrap's interval with a wider side of harm
    (`intervals.paired_area`), because areas near 1 need it. `stratified` draws within true classes. p_holm corrects
    over all metrics and classes together. `attributes` (name -> a value for each of the baseline's images) gives a
    subgroup table, `thresholds` (class -> score) operating points fixed elsewhere. `select` holds both models'
    predictions of other images: the baseline's operating thresholds are frozen there, and what temperature scaling
    fitted there would change is told (it is never applied). `notes` holds the cross-checks: `tests`, `calibration`,
    `decisions`, all plain data.

    Raises Refused where ids, classes, truth or groups differ; the order of ids and of classes may.
    """
    options = _Options(replicates, seed, method, stratified, attributes, thresholds, select, threads, track)
    baseline, candidate = _checked(baseline, candidate, method)
    views = {
        "baseline": calibration.summary(baseline, seed),
        "candidate": calibration.summary(candidate, seed),
    }
    return _compared(baseline, candidate, _drawn(baseline, candidate, options), options, views)


def assess(
    baseline: Predictions,
    candidate: Predictions,
    *,
    replicates: int = 10_000,
    seed: int = 0,
    method: Method = "percentile",
    stratified: bool = False,
    attributes: Mapping[str, Sequence[str]] | None = None,
    thresholds: Mapping[str, float] | None = None,
    select: tuple[Predictions, Predictions] | None = None,
    threads: int | None = None,
    track: Track = silent,
) -> tuple[Comparison, Evaluation, Evaluation]:
    """`compare`, and `evaluate` of both, from the same bootstrap: the same values at half the time."""
    options = _Options(replicates, seed, method, stratified, attributes, thresholds, select, threads, track)
    baseline, candidate = _checked(baseline, candidate, method)
    drawn = _drawn(baseline, candidate, options)
    one = evaluated(baseline, drawn[0], replicates, seed)
    two = evaluated(candidate, drawn[1], replicates, seed)
    views = {"baseline": one.notes["calibration"], "candidate": two.notes["calibration"]}
    return _compared(baseline, candidate, drawn, options, views), one, two


@dataclass(frozen=True)
class _Options:
    replicates: int
    seed: int
    method: Method
    stratified: bool
    attributes: Mapping[str, Sequence[str]] | None
    thresholds: Mapping[str, float] | None
    select: tuple[Predictions, Predictions] | None
    threads: int | None
    track: Track


def _checked(baseline: Predictions, candidate: Predictions, method: Method) -> tuple[Predictions, Predictions]:
    if method not in METHODS:
        raise UsageError(
            f"Expected a method out of {', '.join(METHODS)}; got {method!r}. {suggestion(method, METHODS)}"
        )
    check(baseline)
    check(candidate)
    return aligned(baseline, candidate)


def _drawn(baseline: Predictions, candidate: Predictions, options: _Options) -> tuple[Replicates, ...]:
    return bootstrap(
        baseline.truth,
        [baseline.probabilities, candidate.probabilities],
        replicates=options.replicates,
        seed=options.seed,
        groups=baseline.groups,
        strata=baseline.truth if options.stratified else None,
        threads=options.threads,
        track=options.track,
    )


def _compared(
    baseline: Predictions,
    candidate: Predictions,
    drawn: tuple[Replicates, ...],
    options: _Options,
    views: Mapping[str, Any],
) -> Comparison:
    truth, groups, method = baseline.truth, baseline.groups, options.method
    both = [baseline.probabilities, candidate.probabilities]
    rest = None
    if method == "bca":
        rest = jackknife(truth, both, groups=groups, seed=options.seed, threads=options.threads, track=options.track)
    thresholds = options.thresholds
    if options.select is not None:
        chosen = aligned(*options.select)
        if chosen[0].classes != baseline.classes:
            raise Refused(
                f"Expected the same classes in the select and the test predictions; got {chosen[0].classes} and "
                f"{baseline.classes}. Take both from the same models."
            )
        thresholds = thresholds or decisions.frozen_thresholds(chosen[0])
        scaled = [calibration.temperature_scaling(*pair) for pair in zip(chosen, (baseline, candidate), strict=True)]
        views = {**views, "temperature": dict(zip(("baseline", "candidate"), scaled, strict=True))}
    deltas, per_class = differences(baseline, candidate, drawn, method, rest)
    return Comparison(
        baseline.source,
        candidate.source,
        len(baseline),
        baseline.classes,
        deltas,
        per_class,
        flips(baseline, candidate),
        len(set(groups)) if groups is not None else None,
        options.replicates,
        options.seed,
        notes={
            "method": method,
            "stratified": options.stratified,
            "tests": witnesses(baseline, candidate, drawn),
            "calibration": views,
            "decisions": decisions.summary(baseline, candidate, options.attributes, thresholds),
            "undefined_replicates": {
                name: share
                for name in metrics.OVERALL
                if (share := float(np.isnan(difference(drawn, name, None)).mean())) > 0
            },
        },
    )


def flips(baseline: Predictions, candidate: Predictions) -> Flips:
    """How many images changed their predicted class: rate with the exact interval over the effective n.

    `matrix[i][j]` counts images that went from class i to class j. Both must be `aligned`.
    """
    before, after = (metrics.predicted(p.probabilities) for p in (baseline, candidate))
    changed, truth, classes = before != after, baseline.truth, len(baseline.classes)
    n = effective(changed.astype(float), baseline.groups)
    rate = float(changed.mean())
    low, high = clopper_pearson(rate * n, n)
    matrix = np.bincount(before * classes + after, minlength=classes * classes).reshape(classes, classes)
    return Flips(
        int(changed.sum()),
        rate,
        low,
        high,
        int(np.sum(changed & (before == truth))),
        int(np.sum(changed & (after == truth))),
        tuple(tuple(row) for row in matrix.tolist()),
    )


def measured(comparison: Comparison, baseline: Efficiency, candidate: Efficiency) -> Comparison:
    """The comparison with how many times smaller the candidate's file is and how many times faster it runs.

    `faster` compares the medians at the smallest batch size that both were timed at; None where there is none.
    """
    ours = {item.batch: item.p50 for item in baseline.latency}
    theirs = {item.batch: item.p50 for item in candidate.latency}
    shared = sorted(set(ours) & set(theirs))
    faster = ours[shared[0]] / theirs[shared[0]] if shared and theirs[shared[0]] > 0 else None
    smaller = baseline.bytes / candidate.bytes if candidate.bytes else None
    return replace(comparison, smaller=smaller, faster=faster)
