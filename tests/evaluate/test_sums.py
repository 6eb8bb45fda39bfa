"""The shared sums give, for any whole weights, what the plain definitions give."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantward.evaluate import metrics
from quantward.evaluate.sums import Block, metrics_of, sums, totals_of

EXAMPLES = int(os.environ.get("QUANTWARD_EXAMPLES", "100"))


def computed(
    truth: Any, p: Any, weights: Any, wanted: tuple[str, ...] = metrics.OVERALL
) -> tuple[dict[str, Block], dict[str, Block]]:
    model = sums(truth, p, wanted)
    return metrics_of(totals_of(model, weights), model.classes, wanted)


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.integers(2, 5), st.sampled_from([0, 1, 2, 5]))
def test_all_metrics_for_all_weights(seed: int, n: int, classes: int, levels: int) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, int(rng.integers(1, classes + 1)), n)
    raw = rng.dirichlet(np.ones(classes), n) if not levels else rng.multinomial(levels, np.ones(classes) / classes, n)
    p = raw / raw.sum(axis=1, keepdims=True)
    weights = rng.integers(0, 4, (n, 5)).astype(np.float32)
    weights[:, 0] = 1
    weights[0, :] = np.maximum(weights[0], 1)
    whole, each = computed(truth, p, weights)
    assert list(whole) == list(metrics.OVERALL) and list(each) == list(metrics.PER_CLASS)
    for column in range(5):
        w = weights[:, column].astype(float)
        for name in metrics.OVERALL:
            expected = metrics.overall(name, truth, p, w)
            tolerance = 1e-9 if name == "ece_debiased" else 1e-12
            np.testing.assert_allclose(whole[name][column], expected, rtol=0, atol=tolerance, err_msg=name)
        for name in metrics.PER_CLASS:
            expected = metrics.per_class(name, truth, p, w)
            tolerance = 1e-9 if name == "ece_debiased" else 1e-12
            np.testing.assert_allclose(each[name][:, column], expected, rtol=0, atol=tolerance, err_msg=name)


def test_long_rankings_cross_chunks_exactly() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, 700)
    score = np.round(rng.random(700), 2)
    p = np.c_[1 - score, score]
    weights = rng.integers(0, 3, (700, 3)).astype(np.float32)
    _, each = computed(truth, p, weights, ("auroc", "auprc"))
    for name in ("auroc", "auprc"):
        for column in range(3):
            expected = metrics.per_class(name, truth, p, weights[:, column].astype(float))
            np.testing.assert_allclose(each[name][:, column], expected, rtol=0, atol=1e-12)


def test_scores_in_the_same_order_give_the_same_areas_to_the_last_bit() -> None:
    rng = np.random.default_rng(1)
    truth, score = rng.integers(0, 2, 300), np.round(rng.random(300), 2)
    weights = rng.multinomial(300, np.ones(300) / 300, 50).T.astype(np.float32)
    areas = []
    for values in (score, score**3 / 7):
        found, _ = computed(truth, np.c_[-values, values], weights, ("auroc", "auprc"))
        areas.append(found)
    assert np.array_equal(areas[0]["auroc"], areas[1]["auroc"])
    assert np.array_equal(areas[0]["auprc"], areas[1]["auprc"])


@pytest.mark.parametrize("name", metrics.OVERALL)
def test_one_metric_alone_is_the_same(name: str) -> None:
    rng = np.random.default_rng(2)
    truth, p = rng.integers(0, 3, 80), rng.dirichlet(np.ones(3), 80)
    weights = rng.integers(0, 3, (80, 7)).astype(np.float32)
    alone, _ = computed(truth, p, weights, (name,))
    whole, _ = computed(truth, p, weights)
    assert list(alone) == [name]
    assert np.array_equal(alone[name], whole[name], equal_nan=True)
