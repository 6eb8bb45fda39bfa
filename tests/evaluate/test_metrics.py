"""Every metric against an independent witness: scikit-learn, or a definition of a few lines."""

from __future__ import annotations

import math
import os
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from quantward.core.values import Predictions
from quantward.evaluate import metrics

EXAMPLES = int(os.environ.get("QUANTWARD_EXAMPLES", "100"))
"""Random cases a property; set the variable to some thousands for a long look."""
TIGHT = {"rtol": 0, "atol": 1e-12}


@st.composite
def cases(draw: st.DrawFn) -> tuple[Any, Any, Any]:
    """truth, probabilities, weights: tied scores, absent classes, one-class truth, zero weights, repeated rows."""
    classes = draw(st.integers(2, 5))
    n = draw(st.integers(1, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    present = rng.permutation(classes)[: draw(st.integers(1, classes))]
    truth = rng.choice(present, n)
    levels = draw(st.sampled_from([1, 2, 4, 10, 0]))
    raw = rng.dirichlet(np.ones(classes), n) if not levels else rng.multinomial(levels, np.ones(classes) / classes, n)
    p = raw / raw.sum(axis=1, keepdims=True)
    if draw(st.booleans()):
        again = rng.integers(0, n, n)
        truth, p = truth[again], p[again]
    kind = draw(st.sampled_from(["none", "ones", "whole", "real"]))
    w = {
        "none": None,
        "ones": np.ones(n),
        "whole": rng.integers(0, 4, n).astype(float),
        "real": rng.uniform(0.1, 3, n),
    }[kind]
    return truth, p, w


def same(ours: float, theirs: float) -> None:
    np.testing.assert_allclose(ours, theirs, **TIGHT)


@settings(max_examples=EXAMPLES, deadline=None)
@given(cases())
def test_ranking_metrics_are_those_of_scikit_learn(case: tuple[Any, Any, Any]) -> None:
    truth, p, w = case
    weights = np.ones(len(truth)) if w is None else w
    for k in range(p.shape[1]):
        positive = truth == k
        up, down = weights[positive].sum(), weights[~positive].sum()
        ours = metrics.auroc(positive, p[:, k], w)
        if up > 0 and down > 0:
            keep = weights > 0
            same(ours, sk.roc_auc_score(positive[keep], p[keep, k], sample_weight=weights[keep]))
        else:
            assert math.isnan(ours)
        ours = metrics.auprc(positive, p[:, k], w)
        if up > 0:
            keep = weights > 0
            same(ours, sk.average_precision_score(positive[keep], p[keep, k], sample_weight=weights[keep]))
        else:
            assert math.isnan(ours)


@settings(max_examples=EXAMPLES, deadline=None)
@given(cases())
def test_threshold_metrics_are_those_of_scikit_learn(case: tuple[Any, Any, Any]) -> None:
    truth, p, w = case
    weights = np.ones(len(truth)) if w is None else w
    labels, called = list(range(p.shape[1])), p.argmax(axis=1)
    if weights.sum() <= 0:
        assert math.isnan(metrics.accuracy(truth, p, w))
        return
    table = sk.confusion_matrix(truth, called, labels=labels, sample_weight=weights)
    np.testing.assert_allclose(metrics.confusion(truth, p, w), table, **TIGHT)
    same(metrics.accuracy(truth, p, w), sk.accuracy_score(truth, called, sample_weight=weights))
    sensitivity, specificity = metrics.sensitivities(truth, p, w), metrics.specificities(truth, p, w)
    f1 = metrics.f1_scores(truth, p, w)
    for k in labels:
        positive = truth == k
        if weights[positive].sum() > 0:
            same(sensitivity[k], sk.recall_score(positive, called == k, sample_weight=weights))
            same(f1[k], sk.f1_score(positive, called == k, sample_weight=weights))
        else:
            assert math.isnan(sensitivity[k]) and math.isnan(f1[k])
        if weights[~positive].sum() > 0:
            same(specificity[k], sk.recall_score(~positive, called != k, sample_weight=weights))
        else:
            assert math.isnan(specificity[k])
    if set(truth[weights > 0].tolist()) == set(labels):
        expected = sk.balanced_accuracy_score(truth, called, sample_weight=weights)
        same(metrics.balanced_accuracy(truth, p, w), expected)
    else:
        assert math.isnan(metrics.balanced_accuracy(truth, p, w))
    keep = weights > 0
    if len({*truth[keep].tolist(), *called[keep].tolist()}) > 1:
        same(
            metrics.kappa(truth, p, w),
            sk.cohen_kappa_score(truth, called, labels=labels, sample_weight=weights),
        )
    else:
        assert math.isnan(metrics.kappa(truth, p, w))


@settings(max_examples=EXAMPLES, deadline=None)
@given(cases())
def test_probability_metrics_follow_their_definitions(case: tuple[Any, Any, Any]) -> None:
    truth, p, w = case
    weights = np.ones(len(truth)) if w is None else w
    total = weights.sum()
    if total <= 0:
        assert math.isnan(metrics.brier(truth, p, w))
        return
    each = metrics.brier_scores(truth, p, w)
    for k in range(p.shape[1]):
        same(each[k], sk.brier_score_loss(truth == k, p[:, k], sample_weight=weights, pos_label=True))
        plain = debiased = 0.0
        for b in range(15):
            inside = (p[:, k] > b / 15) & (p[:, k] <= (b + 1) / 15) | (b == 0) & (p[:, k] == 0)
            size = weights[inside].sum()
            if size <= 0:
                continue
            frequency = np.average(truth[inside] == k, weights=weights[inside])
            gap = np.average(p[inside, k], weights=weights[inside]) - frequency
            plain += size / total * abs(gap)
            s = math.sqrt(frequency * max(0, 1 - frequency) / size)
            lifted = abs(gap)
            if s > 0:
                lifted = s * math.sqrt(2 / math.pi) * math.exp(-gap * gap / (2 * s * s)) + gap * math.erf(
                    gap / (s * math.sqrt(2))
                )
            debiased += size / total * (2 * abs(gap) - lifted)
        same(metrics.ece_binary(truth == k, p[:, k], w), plain)
        np.testing.assert_allclose(metrics.ece_debiased_binary(truth == k, p[:, k], w), debiased, rtol=0, atol=1e-9)
    same(
        metrics.brier(truth, p, w),
        float(np.average(((np.eye(p.shape[1])[truth] - p) ** 2).sum(1), weights=weights)),
    )


def test_the_debiased_error_is_nearer_to_zero_for_a_calibrated_model() -> None:
    rng = np.random.default_rng(0)
    plain, debiased = [], []
    for _ in range(200):
        score = rng.beta(0.5, 0.5, 400)
        positive = rng.random(400) < score
        plain.append(metrics.ece_binary(positive, score))
        debiased.append(metrics.ece_debiased_binary(positive, score))
    assert 0 < np.mean(debiased) < 0.7 * np.mean(plain)


def test_bins_hold_their_upper_edge() -> None:
    edges = np.linspace(0, 1, 16)
    assert metrics.bin_of(edges).tolist() == [0, *range(15)]
    assert metrics.bin_of(np.nextafter(edges[1:-1], 1)).tolist() == list(range(1, 15))


def test_a_class_that_is_absent_is_undefined_not_two_thirds() -> None:
    """Other libraries give a flawless model a macro AUROC or AP of 0.667 where one of three classes is absent."""
    truth = np.array([0, 1, 0, 1])
    p = np.eye(3)[truth]
    for name in ("auroc", "auprc", "f1", "sensitivity", "balanced_accuracy"):
        assert math.isnan(metrics.overall(name, truth, p))
        assert metrics.undefined(name, Predictions(tuple("wxyz"), truth, p, ("a", "b", "c"))) == "no image of class 'c'"
    assert metrics.per_class("auroc", truth, p)[:2].tolist() == [1.0, 1.0]
    assert metrics.overall("accuracy", truth, p) == 1.0


@pytest.mark.parametrize("name", metrics.OVERALL)
def test_undefined_says_exactly_when_a_metric_is_nan(name: str) -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        n, classes = int(rng.integers(1, 5)), int(rng.integers(2, 4))
        truth = rng.integers(0, classes, n)
        p = rng.dirichlet(np.ones(classes), n)
        made = Predictions(tuple(map(str, range(n))), truth, p, tuple("abc"[:classes]))
        assert bool(metrics.undefined(name, made)) == math.isnan(metrics.overall(name, truth, p)), (
            name,
            truth,
        )
        if name in metrics.PER_CLASS:
            values = metrics.per_class(name, truth, p)
            for k in range(classes):
                assert bool(metrics.undefined(name, made, k)) == math.isnan(values[k])
