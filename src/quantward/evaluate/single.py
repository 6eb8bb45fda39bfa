"""How good one set of predictions is: every metric with its interval, reliability bins and the confusion matrix."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from quantward.core.errors import Refused
from quantward.core.progress import Track, silent
from quantward.core.values import Estimate, Evaluation, FloatArray, IntArray, Predictions, ReliabilityBin
from quantward.evaluate import calibration, metrics
from quantward.evaluate.bootstrap import Replicates, bootstrap
from quantward.evaluate.intervals import logit_normal, percentile, recentred
from quantward.evaluate.proportions import agresti_coull, effective, hanley, mover, wilson

TOP_LABEL = "top-label"


def evaluate(predictions: Predictions, *, replicates: int = 10_000, seed: int = 0, track: Track = silent) -> Evaluation:
    """Every metric, whole and by class, each with a 95 % interval; patients are resampled whole where groups exist.

    Proportions (accuracy, sensitivity, specificity) have Agresti and Coull's interval over the effective number of
    images (their mean over classes: MOVER), because a bootstrap of a flawless sample has width zero; AUROC and AUPRC
    the bootstrap's interval on the logit scale, and where they are 1 score intervals (Newcombe, Wilson); the
    calibration errors its percentile interval less its bias; all others the percentile interval. A metric that does
    not exist is None with its reason.

    Raises Refused where a probability is not finite.
    """
    check(predictions)
    truth, probabilities, groups = predictions.truth, predictions.probabilities, predictions.groups
    (drawn,) = bootstrap(truth, [probabilities], replicates=replicates, seed=seed, groups=groups, track=track)
    return evaluated(predictions, drawn, replicates, seed)


def evaluated(predictions: Predictions, drawn: Replicates, replicates: int, seed: int) -> Evaluation:
    """`evaluate` from bootstrap values that are already there."""
    counts = np.bincount(predictions.truth, minlength=len(predictions.classes))
    overall, per_class = estimates(predictions, drawn)
    undefined = {name: share for name, values in drawn.overall.items() if (share := float(np.isnan(values).mean())) > 0}
    notes = {
        "replicates": replicates,
        "seed": seed,
        "groups": len(set(predictions.groups)) if predictions.groups is not None else None,
        "undefined_replicates": undefined,
        "calibration": calibration.summary(predictions, seed),
    }
    table = metrics.confusion(predictions.truth, predictions.probabilities).astype(int)
    return Evaluation(
        predictions.source,
        len(predictions),
        predictions.classes,
        dict(zip(predictions.classes, counts.tolist(), strict=True)),
        overall,
        per_class,
        reliability(predictions),
        tuple(tuple(row) for row in table.tolist()),
        notes,
    )


def estimates(
    predictions: Predictions, drawn: Replicates
) -> tuple[dict[str, Estimate], dict[str, dict[str, Estimate]]]:
    """Every metric with its interval, of the whole and by class, from the replicates of this model."""
    truth, probabilities = predictions.truth, predictions.probabilities
    counts = np.bincount(truth, minlength=len(predictions.classes))
    shares = Shares(predictions)
    n = len(predictions)
    per_class: dict[str, dict[str, Estimate]] = {}
    for name in metrics.PER_CLASS:
        values = metrics.per_class(name, truth, probabilities)
        per_class[name] = {}
        for k, label in enumerate(predictions.classes):
            reason = metrics.undefined(name, predictions, k)
            interval = shares.per_class(name, k) if not reason else None
            if interval is None and not reason:
                interval = _interval(name, drawn.per_class[name][k], float(values[k]), [shares.numbers(k)])
            per_class[name][label] = _estimate(float(values[k]), interval, n, int(counts[k]), reason)
    overall: dict[str, Estimate] = {}
    for name in metrics.OVERALL:
        reason = metrics.undefined(name, predictions)
        value = math.nan if reason else metrics.overall(name, truth, probabilities)
        interval = shares.overall(name) if not reason else None
        if interval is None and not reason:
            interval = _interval(name, drawn.overall[name], value, [shares.numbers(k) for k in range(len(counts))])
        overall[name] = _estimate(value, interval, n, None, reason)
    return overall, per_class


def check(predictions: Predictions) -> None:
    """Refuse predictions that no metric can be computed from."""
    broken = ~np.isfinite(predictions.probabilities).all(axis=1)
    if not len(predictions):
        raise Refused(f"Expected predictions of at least one image in {predictions.source!r}; got none. Predict first.")
    if broken.any():
        raise Refused(
            f"Expected finite probabilities from {predictions.source!r}; {int(broken.sum())} of {len(predictions)} "
            f"images have NaN or infinite ones, first {predictions.ids[int(broken.argmax())]!r}. "
            "Find the layer that overflows."
        )


@dataclass(frozen=True, eq=False)
class Shares:
    """Score intervals of the proportions among one prediction set's metrics."""

    predictions: Predictions

    def overall(self, name: str) -> tuple[float, float] | None:
        """The interval of accuracy, or of the mean sensitivity (balanced accuracy); None for other metrics."""
        p = self.predictions
        if name == "accuracy":
            return _share(metrics.predicted(p.probabilities) == p.truth, p.groups)
        if name in ("balanced_accuracy", "sensitivity"):
            ends = [self.per_class("sensitivity", k) for k in range(len(p.classes))]
            values = metrics.sensitivities(p.truth, p.probabilities)
            return mover(values.tolist(), [end for end in ends if end is not None])
        return None

    def per_class(self, name: str, k: int) -> tuple[float, float] | None:
        """The interval of one class's sensitivity or specificity; None for other metrics."""
        p = self.predictions
        if name not in ("sensitivity", "specificity"):
            return None
        called = metrics.predicted(p.probabilities) == k
        here = p.truth == k if name == "sensitivity" else p.truth != k
        right = called if name == "sensitivity" else ~called
        groups = None if p.groups is None else np.asarray(p.groups)[here]
        return _share(right[here], groups)

    def numbers(self, k: int) -> tuple[float, float]:
        """How many independent images of class k, and of the others, these images are worth at most."""
        p = self.predictions
        if p.groups is None:
            return float(np.sum(p.truth == k)), float(np.sum(p.truth != k))
        groups = np.asarray(p.groups)
        return float(len(set(groups[p.truth == k]))), float(len(set(groups[p.truth != k])))


def _interval(
    name: str, values: FloatArray, value: float, numbers: Sequence[tuple[float, float]]
) -> tuple[float, float] | None:
    """The bootstrap's interval of one metric; `numbers` of positives and negatives of the classes it is a mean over."""
    if name in ("ece", "ece_debiased"):
        return recentred(values, value)
    if name not in ("auroc", "auprc"):
        return percentile(values)
    if value == 1.0:
        flawless = [hanley(1.0, *pair) if name == "auroc" else wilson(pair[0], pair[0]) for pair in numbers]
        return float(np.mean([low for low, _ in flawless])), 1.0
    rarest = min(min(pair) for pair in numbers)
    steps = max(positives * negatives for positives, negatives in numbers)
    return logit_normal(values, value, 0.5 / steps, df=rarest - 1)


def _share(right: metrics.Mask, groups: Sequence[str] | IntArray | None) -> tuple[float, float]:
    n = effective(right.astype(float), groups)
    return agresti_coull(float(right.mean()) * n, n)


def _estimate(
    value: float, interval: tuple[float, float] | None, n: int, positive: int | None, reason: str
) -> Estimate:
    if reason or math.isnan(value):
        return Estimate(None, None, None, n, positive, reason or "undefined")
    if interval is None:
        return Estimate(value, None, None, n, positive, "no interval: most bootstrap replicates lack a class")
    return Estimate(value, interval[0], interval[1], n, positive)


def reliability(predictions: Predictions, bins: int = metrics.BINS) -> dict[str, tuple[ReliabilityBin, ...]]:
    """Reliability bins by class (one against the rest) and for the top label (its confidence against being right)."""
    truth, probabilities = predictions.truth, predictions.probabilities
    found = {name: bins_of(truth == k, probabilities[:, k], bins) for k, name in enumerate(predictions.classes)}
    found[TOP_LABEL] = bins_of(metrics.predicted(probabilities) == truth, probabilities.max(axis=1), bins)
    return found


def bins_of(positive: metrics.Mask, score: FloatArray, bins: int = metrics.BINS) -> tuple[ReliabilityBin, ...]:
    """Equal-width bins of `score` (n,): mean score against share of `positive` (n,)."""
    place = metrics.bin_of(score, bins)
    count = np.bincount(place, minlength=bins)
    confidence = np.bincount(place, score, bins)
    hits = np.bincount(place, positive.astype(float), bins)
    return tuple(
        ReliabilityBin(
            b / bins,
            (b + 1) / bins,
            int(count[b]),
            float(confidence[b] / count[b]) if count[b] else None,
            float(hits[b] / count[b]) if count[b] else None,
        )
        for b in range(bins)
    )
