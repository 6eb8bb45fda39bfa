"""DeLong against the definition by pairs, and against a simulation of its variance."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantward.core.values import Predictions
from quantward.evaluate import metrics
from quantward.evaluate.delong import delong, delong_macro, placements

Maker = Callable[..., Predictions]


def by_pairs(positive: Any, one: Any, two: Any) -> tuple[float, float]:
    """Delta and variance by the definition: structural components over all pairs, their covariance matrices."""
    components = []
    for score in (one, two):
        up, down = score[positive], score[~positive]
        wins = (up[:, None] > down[None]) + 0.5 * (up[:, None] == down[None])
        components.append((wins.mean(axis=1), wins.mean(axis=0)))
    delta = components[1][0].mean() - components[0][0].mean()
    variance = sum(
        np.cov(components[0][side], components[1][side]) @ [-1, 1] @ [-1, 1] / len(components[0][side])
        for side in (0, 1)
    )
    return float(delta), float(variance)


@given(st.integers(0, 10_000), st.integers(2, 20), st.integers(2, 20), st.sampled_from([0, 3]))
def test_definition_by_pairs(seed: int, up: int, down: int, levels: int) -> None:
    rng = np.random.default_rng(seed)
    positive = rng.permutation(np.arange(up + down) < up)
    one, two = rng.random(up + down), rng.random(up + down)
    if levels:
        one, two = np.round(one * levels), np.round(two * levels)
    found = delong(positive, one, two)
    assert found is not None
    delta, variance = by_pairs(positive, one, two)
    assert found.delta == pytest.approx(delta, abs=1e-12)
    assert found.error**2 == pytest.approx(variance, abs=1e-12)
    share = placements(positive, one)
    assert share[positive].mean() == pytest.approx(metrics.auroc(positive, one))
    assert share[~positive].mean() == pytest.approx(metrics.auroc(positive, one))


def test_identical_scores_are_not_significant() -> None:
    """0 / 0 in the statistic: one library returns p = 0 for a model compared with itself."""
    score = np.random.default_rng(0).random(40)
    found = delong(score > 0.5, score, score)
    assert found is not None and (found.delta, found.p) == (0.0, 1.0)
    macro = delong_macro((score > 0.5).astype(int), np.c_[1 - score, score], np.c_[1 - score, score])
    assert macro is not None and macro.p == 1.0


def test_too_few_images_have_no_variance() -> None:
    score = np.array([0.1, 0.2, 0.9])
    assert delong(np.array([False, False, True]), score, score) is None
    assert delong_macro(np.array([0, 0, 1]), np.c_[1 - score, score], np.c_[1 - score, score]) is None


def test_macro_of_two_classes_is_the_one_curve() -> None:
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 2, 60)
    one, two = rng.random(60), rng.random(60)
    whole = delong_macro(truth, np.c_[1 - one, one], np.c_[1 - two, two])
    assert whole == delong(truth == 1, one, two) or (
        whole is not None
        and (single := delong(truth == 1, one, two)) is not None
        and whole.error == pytest.approx(single.error)
        and whole.delta == pytest.approx(single.delta)
    )


def test_macro_error_is_that_of_repeated_samples(predictions: Maker) -> None:
    errors, deltas = [], []
    for seed in range(250):
        one, two = predictions(90, seed=seed), predictions(90, seed=seed, noise=0.8)
        found = delong_macro(one.truth, one.probabilities, two.probabilities)
        assert found is not None
        errors.append(found.error)
        deltas.append(found.delta)
    assert np.mean(errors) == pytest.approx(np.std(deltas), rel=0.15)
