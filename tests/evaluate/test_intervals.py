"""Intervals against SciPy's, p-values against what a tie must mean."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from quantward.evaluate.bootstrap import bootstrap
from quantward.evaluate.intervals import (
    bca,
    logit_normal,
    p_value,
    p_value_eq3,
    paired_area,
    percentile,
    recentred,
    snapped,
)
from quantward.evaluate.metrics import auroc, overall


def test_bca_is_that_of_scipy() -> None:
    rng = np.random.default_rng(0)
    data = rng.exponential(size=40)
    theirs = stats.bootstrap((data,), np.mean, n_resamples=3000, method="BCa", rng=1)
    rest = (data.sum() - data) / 39
    ours = bca(theirs.bootstrap_distribution, float(data.mean()), rest)
    assert ours is not None
    np.testing.assert_allclose(ours, theirs.confidence_interval, rtol=2e-3)
    plain = percentile(theirs.bootstrap_distribution)
    assert plain is not None and ours[0] > plain[0] and ours[1] > plain[1]


def test_bca_falls_back_where_nothing_varies() -> None:
    assert bca(np.zeros(100), 0.0, np.zeros(10)) == (0.0, 0.0)
    assert bca(np.full(100, np.nan), 0.0, np.zeros(10)) is None


def test_percentile_leaves_out_undefined_replicates_but_not_most_of_them() -> None:
    values = np.arange(101.0)
    assert percentile(np.r_[values, [math.nan] * 50], 0.5) == (25.0, 75.0)
    assert percentile(np.r_[values, [math.nan] * 102]) is None
    assert percentile(np.array([])) is None


def test_logit_intervals_stay_inside_and_lean_away_from_the_end() -> None:
    rng = np.random.default_rng(0)
    values = 1 - rng.gamma(2, 0.01, 4000)
    found = logit_normal(values, 0.98, 1e-4)
    plain = percentile(values)
    assert found is not None and plain is not None
    assert 0 < found[0] < 0.98 < found[1] < 1 and 0.98 - found[0] > found[1] - 0.98
    assert logit_normal(np.full(50, 0.7), 0.7, 1e-4) == (0.7, 0.7)
    assert logit_normal(np.r_[np.full(9, math.nan), 0.5], 0.5, 1e-4) is None
    mirrored = logit_normal(1 - values, 0.02, 1e-4)
    assert mirrored is not None
    np.testing.assert_allclose(mirrored, (1 - found[1], 1 - found[0]), atol=1e-12)


def test_logit_intervals_cover_near_the_end() -> None:
    """Twenty positives ranked almost without a fault: the percentile interval misses the truth one time in five."""
    rng = np.random.default_rng(1)
    truth = np.arange(120) < 20
    shift, held = 2.6, np.zeros(2)
    area = stats.norm.cdf(shift / math.sqrt(2))
    for number in range(150):
        score = rng.normal(size=120) + shift * truth
        p = np.c_[-score, score]
        (values,) = bootstrap(
            truth.astype(int), [p], replicates=300, seed=number, strata=truth.astype(int), wanted=("auroc",)
        )
        series = values.per_class["auroc"][1]
        for i, ends in enumerate((percentile(series), logit_normal(series, auroc(truth, score), 0.5 / (20 * 100)))):
            held[i] += ends is not None and ends[0] <= area <= ends[1]
    assert held[1] / 150 > 0.9 and held[1] > held[0]


def test_paired_areas_look_closer_at_harm_near_the_end() -> None:
    rng = np.random.default_rng(0)
    one = 1 - rng.gamma(2, 0.004, 3000)
    two = one - rng.gamma(2, 0.004, 3000)
    reach = 1.96 * float(np.std(two - one))
    found = paired_area(two - one, -0.008, two, 0.984, 1e-4)
    assert found is not None
    assert found[0] < -0.008 - 1.2 * reach and found[1] == pytest.approx(-0.008 + reach, rel=1e-3)
    halfway = paired_area(two - one, -0.008, 0.5 + (two - two.mean()) / 10, 0.5, 1e-4)
    assert halfway == pytest.approx((-0.008 - reach, -0.008 + reach), rel=1e-3)
    assert paired_area(np.zeros(50), 0.0, one, 0.99, 1e-4) == (0.0, 0.0)
    assert paired_area(two - one, 0.0, np.full(3000, math.nan), 0.9, 1e-4) is None


def test_identical_models_are_not_significant() -> None:
    """Counting ties once gives p = 0 to two models that never differ."""
    assert p_value(np.zeros(10_000)) == 1.0
    assert p_value_eq3(np.zeros(10_000)) == 0.0


@given(st.lists(st.sampled_from([-2.0, -1.0, 0.0, 1.0, 2.0, math.nan]), min_size=1, max_size=60))
def test_p_values_follow_their_formulas(raw: list[float]) -> None:
    d = np.array(raw)
    known = [x for x in raw if not math.isnan(x)]
    up, down = sum(x >= 0 for x in known), sum(x <= 0 for x in known)
    assert p_value(d) == min(1.0, 2 * min(up + 1, down + 1) / (len(known) + 1))
    assert p_value(d) == pytest.approx(p_value(-d))
    if known:
        below = sum(x < 0 for x in known)
        assert p_value_eq3(d) == pytest.approx(min(1.0, 2 * min(up, below) / len(known)))


def test_rounding_is_a_tie() -> None:
    assert snapped(np.array([1e-13, -1e-13, 1e-9])).tolist() == [0.0, 0.0, 1e-9]


def test_an_ece_lies_within_its_own_interval() -> None:
    rng = np.random.default_rng(3)
    p = rng.dirichlet(np.ones(4) * 2, 150)
    truth = (rng.random((150, 1)) > np.cumsum(p, axis=1)[:, :-1]).sum(axis=1)
    (drawn,) = bootstrap(truth, [p], replicates=400, wanted=("ece",))
    value = overall("ece", truth, p)
    plain, fair = percentile(drawn.overall["ece"]), recentred(drawn.overall["ece"], value)
    assert plain is not None and fair is not None
    assert plain[0] > value, "resamples show more noise than the sample"
    assert fair[0] < value < fair[1]
    assert recentred(np.full(10, np.nan), 0.1) is None
