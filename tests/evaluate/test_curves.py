"""Curves: the area below them is the metric, thinning moves nothing that can be seen."""

from __future__ import annotations

import numpy as np
import pytest

from quantward.evaluate import metrics
from quantward.evaluate.curves import precision_recall, roc


def made(n: int, levels: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(n)
    positive = rng.random(n) < 0.3
    score = 1 / (1 + np.exp(-(positive * 1.5 + rng.normal(size=n))))
    return positive, score if levels is None else np.round(score * levels) / levels


@pytest.mark.parametrize("levels", [None, 5])
def test_area_below_the_roc_is_the_auroc(levels: int | None) -> None:
    positive, score = made(120, levels)
    x, y = np.array(roc(positive, score, most=10_000)).T
    assert np.trapezoid(y, x) == pytest.approx(metrics.auroc(positive, score))
    assert (x[0], y[0], x[-1], y[-1]) == (0, 0, 1, 1)


def test_steps_below_precision_recall_are_the_average_precision() -> None:
    positive, score = made(80)
    x, y = np.array(precision_recall(positive, score, most=10_000)).T
    order = np.argsort(-score)
    hits = np.cumsum(positive[order])
    recall, precision = hits / positive.sum(), hits / np.arange(1, 81)
    np.testing.assert_allclose(np.interp(recall[positive[order]], x, np.arange(len(x))) >= 0, True)
    assert set(np.round(y, 12)) <= set(np.round(precision, 12))
    assert np.sum(np.diff(np.r_[0, recall]) * precision) == pytest.approx(metrics.auprc(positive, score))


def test_thinning_keeps_ends_and_shape() -> None:
    positive, score = made(20_000)
    full, thin = np.array(roc(positive, score, most=10**6)), np.array(roc(positive, score, most=150))
    assert len(thin) <= 150 < len(full)
    assert thin[0].tolist() == [0, 0] and thin[-1].tolist() == [1, 1]
    assert np.trapezoid(thin[:, 1], thin[:, 0]) == pytest.approx(np.trapezoid(full[:, 1], full[:, 0]), abs=2e-3)


def test_what_has_no_curve_is_empty() -> None:
    score = np.array([0.1, 0.9])
    assert roc(np.array([True, True]), score) == () and precision_recall(np.array([False, False]), score) == ()
    assert roc(np.zeros(0, bool), np.zeros(0)) == ()
