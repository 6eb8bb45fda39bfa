"""Calibration: decompositions add up, fits agree with scikit-learn, the floor is what noise gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize
from sklearn.linear_model import LogisticRegression

from quantward.core.errors import Refused
from quantward.core.values import Predictions
from quantward.evaluate import metrics
from quantward.evaluate.calibration import (
    brier_parts,
    ece_equal_mass,
    ece_floor,
    ece_top_label,
    recalibration,
    rescaled,
    summary,
    temperature,
    temperature_scaling,
)

Maker = Callable[..., Predictions]


def binary(seed: int, n: int, slope: float = 1.0, shift: float = 0.0) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    logit = rng.normal(scale=1.5, size=n)
    positive = rng.random(n) < 1 / (1 + np.exp(-(slope * logit + shift)))
    return positive, 1 / (1 + np.exp(-logit))


def test_equal_mass_bins_hold_equally_many() -> None:
    positive, score = binary(0, 60)
    order = np.argsort(score)
    expected = sum(abs((score[part] - positive[part]).sum()) for part in np.split(order, 15)) / 60
    assert ece_equal_mass(positive, score) == pytest.approx(expected)
    shuffled = np.random.default_rng(1).permutation(60)
    assert ece_equal_mass(positive[shuffled], score[shuffled]) == pytest.approx(expected)
    flat = np.full(60, 0.3)
    assert ece_equal_mass(positive, flat) == pytest.approx(abs(0.3 - positive.mean()))


def test_top_label_looks_at_the_answer_only() -> None:
    truth = np.array([0, 1, 1])
    p = np.array([[0.8, 0.2], [0.8, 0.2], [0.1, 0.9]])
    assert ece_top_label(truth, p) == pytest.approx((abs(1.6 - 1) + abs(0.9 - 1)) / 3)


@given(st.integers(0, 10_000), st.integers(1, 80))
def test_brier_parts_add_up(seed: int, n: int) -> None:
    positive, score = binary(seed, n)
    parts = brier_parts(positive, score)
    whole = parts.reliability - parts.resolution + parts.uncertainty + parts.within
    assert whole == pytest.approx(parts.brier, abs=1e-12)
    coarse = np.round(score * 4) / 4
    assert brier_parts(positive, coarse).within == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(("slope", "shift"), [(1.0, 0.0), (0.5, 0.3), (2.0, -1.0)])
def test_slope_and_intercept_are_those_of_scikit_learn(slope: float, shift: float) -> None:
    positive, score = binary(3, 800, slope, shift)
    found = recalibration(positive, score)
    logit = np.log(score / (1 - score))[:, None]
    model = LogisticRegression(C=1e12, tol=1e-12, max_iter=1000).fit(logit, positive)
    assert found.slope == pytest.approx(model.coef_[0, 0], rel=1e-4)
    assert found.intercept == pytest.approx(model.intercept_[0], abs=1e-4)
    assert found.slope == pytest.approx(slope, abs=0.35) and found.intercept == pytest.approx(shift, abs=0.3)
    assert found.in_the_large is not None
    assert np.sum(1 / (1 + np.exp(-(logit[:, 0] + found.in_the_large)))) == pytest.approx(positive.sum(), abs=1e-6)


def test_slope_of_what_has_none_is_absent_with_a_reason() -> None:
    score = np.array([0.1, 0.2, 0.8, 0.9])
    assert "absent" in recalibration(np.ones(4, bool), score).reason
    apart = recalibration(score > 0.5, score)
    assert apart.slope is None and "separated" in apart.reason and apart.in_the_large is not None
    assert recalibration(np.array([True, False]), np.array([0.4, 0.4])).slope is None


def test_the_floor_is_the_ece_of_calibrated_models() -> None:
    """A perfectly calibrated model of four classes shows a 15-bin ECE of several points at small n."""
    rng = np.random.default_rng(0)
    seen, floors = [], []
    for _ in range(60):
        logits = rng.normal(scale=1.5, size=(142, 4))
        p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        truth = np.array([rng.choice(4, p=row) for row in p])
        seen.append(metrics.overall("ece", truth, p))
        floors.append(ece_floor(p, simulations=20).mean)
    assert np.mean(seen) == pytest.approx(np.mean(floors), rel=0.05)
    assert np.mean(seen) > 0.05


def test_the_floor_is_repeatable_and_falls_with_n() -> None:
    p = np.random.default_rng(0).dirichlet(np.ones(3), 2000)
    assert ece_floor(p[:200], seed=1) == ece_floor(p[:200], seed=1)
    assert ece_floor(p).mean < ece_floor(p[:200]).mean
    assert ece_floor(p[:200]).high > ece_floor(p[:200]).mean
    sure = np.eye(3)[[0, 1, 2]]
    assert ece_floor(sure).mean == 0.0


@pytest.mark.parametrize("true", [0.4, 1.0, 2.5])
def test_temperature_is_found(predictions: Maker, true: float) -> None:
    rng = np.random.default_rng(5)
    logits = rng.normal(scale=2, size=(4000, 3))
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    truth = (rng.random((4000, 1)) > np.cumsum(p, axis=1)[:, :-1]).sum(axis=1)
    said = np.exp(logits * true) / np.exp(logits * true).sum(axis=1, keepdims=True)
    found = temperature(truth, said)
    assert found == pytest.approx(true, rel=0.08)
    logs = np.log(said)

    def loss(t: float) -> float:
        z = logs / t
        return float(np.mean(np.logaddexp.reduce(z, axis=1) - z[np.arange(4000), truth]))

    best = optimize.minimize_scalar(loss, bounds=(0.05, 20), method="bounded", options={"xatol": 1e-9})
    assert found == pytest.approx(best.x, rel=1e-4)


def test_rescaling_keeps_the_answers(predictions: Maker) -> None:
    p = predictions(50)
    warm = rescaled(p, 3.0)
    assert np.array_equal(warm.probabilities.argmax(axis=1), p.probabilities.argmax(axis=1))
    np.testing.assert_allclose(warm.probabilities.sum(axis=1), 1)
    np.testing.assert_allclose(rescaled(warm, 1 / 3).probabilities, p.probabilities, atol=1e-12)
    assert "T = 3" in warm.source and "T" not in p.source
    with pytest.raises(Refused, match="positive temperature"):
        rescaled(p, 0.0)


def test_scaling_is_fitted_on_select_and_judged_on_test(predictions: Maker) -> None:
    select, test = (rescaled(predictions(800, seed=seed), 0.3) for seed in (1, 2))
    found = temperature_scaling(select, test)
    assert found["temperature"] > 1.5 and found["fitted_on"] == 800
    assert found["before"]["ece"] == pytest.approx(metrics.overall("ece", test.truth, test.probabilities))
    assert found["after"]["log_loss"] < found["before"]["log_loss"]
    assert found["after"]["ece"] < found["before"]["ece"]


def test_summary_is_plain_data(predictions: Maker) -> None:
    p = predictions(150)
    found = summary(p)
    assert set(found) == {"ece_top_label", "ece_equal_mass", "ece_floor", "brier_parts", "recalibration"}
    assert found["brier_parts"]["brier"] == pytest.approx(metrics.brier(p.truth, p.probabilities))
    assert set(found["recalibration"]) == set(p.classes)
