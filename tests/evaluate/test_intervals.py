"""Intervals against SciPy's, p-values against what a tie must mean."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from quantward.evaluate.intervals import bca, p_value, p_value_eq3, percentile, snapped


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
