"""One model's evaluation: values as defined, intervals around them, honest where little is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from quantward.core.errors import Refused
from quantward.core.values import Predictions
from quantward.evaluate import metrics
from quantward.evaluate.proportions import agresti_coull
from quantward.evaluate.single import TOP_LABEL, bins_of, evaluate

Maker = Callable[..., Predictions]


def test_every_metric_has_its_value_and_an_interval_around_it(predictions: Maker) -> None:
    p = predictions(300, 3)
    found = evaluate(p, replicates=300)
    assert list(found.overall) == list(metrics.OVERALL) and list(found.per_class) == list(metrics.PER_CLASS)
    for name, estimate in found.overall.items():
        assert estimate.value == metrics.overall(name, p.truth, p.probabilities)
        assert estimate.low is not None and estimate.high is not None and estimate.low < estimate.high
        if not name.startswith("ece"):
            assert estimate.low <= estimate.value <= estimate.high
    for name in metrics.PER_CLASS:
        values = metrics.per_class(name, p.truth, p.probabilities)
        assert [row.value for row in found.per_class[name].values()] == values.tolist()
    assert sum(found.counts.values()) == found.n == 300
    assert np.array_equal(found.confusion, metrics.confusion(p.truth, p.probabilities))
    assert [row.n_positive for row in found.per_class["auroc"].values()] == list(found.counts.values())


def test_the_same_seed_gives_the_same_and_another_another(predictions: Maker) -> None:
    p = predictions()
    one, two, other = (evaluate(p, replicates=200, seed=seed).overall["auroc"] for seed in (1, 1, 2))
    assert one == two and one != other


def test_a_flawless_model_is_not_certain(predictions: Maker) -> None:
    p = predictions(60, 2, strength=50.0)
    found = evaluate(p, replicates=100)
    assert found.overall["accuracy"].value == 1.0
    assert found.overall["accuracy"].low == pytest.approx(agresti_coull(60, 60)[0])
    assert found.overall["balanced_accuracy"].low == pytest.approx(found.overall["sensitivity"].low)
    positives = found.counts["a"]
    assert found.per_class["sensitivity"]["a"].low == pytest.approx(agresti_coull(positives, positives)[0])
    assert found.per_class["specificity"]["a"].low == pytest.approx(agresti_coull(60 - positives, 60 - positives)[0])


def test_a_flawless_ranking_has_an_interval(predictions: Maker) -> None:
    found = evaluate(predictions(60, 3, strength=50.0), replicates=100)
    lows = [row.low for row in found.per_class["auroc"].values()]
    assert all(low is not None and 0.7 < low < 1 for low in lows)
    whole = found.overall["auroc"]
    assert (whole.value, whole.high) == (1.0, 1.0) and whole.low == pytest.approx(np.mean(lows))


def test_an_absent_class_is_absent_with_a_reason(predictions: Maker) -> None:
    p = predictions(80, 3, weights=(0.5, 0.5, 0.0))
    found = evaluate(p, replicates=50)
    for name in ("auroc", "auprc", "f1", "sensitivity", "balanced_accuracy"):
        estimate = found.overall[name]
        assert (estimate.value, estimate.low, estimate.reason) == (None, None, "no image of class 'c'")
    assert found.per_class["auroc"]["c"].value is None
    assert found.per_class["auroc"]["a"].value is not None
    assert found.overall["accuracy"].value is not None and found.overall["ece"].value is not None


def test_lost_replicates_are_counted(predictions: Maker) -> None:
    p = predictions(60, 3, weights=(0.6, 0.37, 0.03), seed=3)
    assert 0 < np.sum(p.truth == 2) < 4
    found = evaluate(p, replicates=200)
    assert 0 < found.notes["undefined_replicates"]["auroc"] < 0.5
    assert found.per_class["auroc"]["c"].low is not None


def test_patients_widen_intervals(predictions: Maker) -> None:
    p = predictions(100, 2)
    rows = np.repeat(np.arange(100), 4)
    four = Predictions(tuple(f"i{i}" for i in range(400)), p.truth[rows], p.probabilities[rows], p.classes, "x")
    grouped = replace(four, groups=tuple(f"p{i}" for i in rows))
    for name in ("accuracy", "auroc"):
        alone, whole = (evaluate(x, replicates=300).overall[name] for x in (four, grouped))
        width = [(e.high or 0) - (e.low or 0) for e in (alone, whole)]
        assert 1.6 < width[1] / width[0] < 2.5
    assert evaluate(grouped, replicates=50).notes["groups"] == 100


def test_reliability_bins_add_up(predictions: Maker) -> None:
    p = predictions(200, 3)
    found = evaluate(p, replicates=20).reliability
    assert list(found) == [*p.classes, TOP_LABEL]
    for k, name in enumerate(p.classes):
        gap = sum(
            abs(b.confidence - b.frequency) * b.count
            for b in found[name]
            if b.confidence is not None and b.frequency is not None
        )
        assert gap / 200 == pytest.approx(metrics.ece_binary(p.truth == k, p.probabilities[:, k]), abs=1e-12)
        assert sum(b.count for b in found[name]) == 200
    empty = [b for b in bins_of(np.array([True]), np.array([0.99])) if not b.count]
    assert len(empty) == 14 and all(b.confidence is None for b in empty)


def test_what_is_no_number_is_refused(predictions: Maker) -> None:
    p = predictions(10, 2)
    broken = p.probabilities.copy()
    broken[3, 1] = np.nan
    with pytest.raises(Refused, match="1 of 10 images have NaN or infinite ones, first 'i3'"):
        evaluate(replace(p, probabilities=broken))
    with pytest.raises(Refused, match="at least one image"):
        evaluate(Predictions((), np.zeros(0, int), np.zeros((0, 2)), ("a", "b"), "x"))
