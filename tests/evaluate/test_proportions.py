"""Score and exact intervals against SciPy and against a search for the constrained maximum of the likelihood."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from quantward.evaluate.proportions import (
    agresti_coull,
    clopper_pearson,
    effective,
    hanley,
    mcnemar,
    mover,
    p_of,
    paired_mean,
    quantile,
    tango,
    tango_z,
    wilson,
)


@given(st.integers(1, 300), st.floats(0, 1), st.sampled_from([0.8, 0.95, 0.99]))
def test_single_proportions_are_those_of_scipy(n: int, share: float, level: float) -> None:
    hits = round(share * n)
    test = stats.binomtest(hits, n)
    theirs = test.proportion_ci(level, "wilson")
    np.testing.assert_allclose(wilson(hits, n, level), (theirs.low, theirs.high), atol=1e-10)
    theirs = test.proportion_ci(level, "exact")
    np.testing.assert_allclose(clopper_pearson(hits, n, level), (theirs.low, theirs.high), atol=1e-9)


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_the_exact_binomial_test(broken: int, mended: int) -> None:
    expected = stats.binomtest(broken, broken + mended).pvalue if broken + mended else 1.0
    assert mcnemar(broken, mended) == pytest.approx(expected, abs=1e-12)


def test_mcnemar_with_nothing_discordant_is_one_not_zero() -> None:
    """An asymptotic McNemar test divides 0 by 0 here; one library returns p = 0."""
    assert mcnemar(0, 0) == 1.0
    assert tango_z(0, 0, 50) == 0.0


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 12), st.integers(0, 12), st.integers(0, 60), st.floats(-0.5, 0.5))
def test_tango_statistic_has_the_constrained_maximum_in_its_variance(
    broken: int, mended: int, same: int, d: float
) -> None:
    n = broken + mended + same + 1
    rest = n - broken - mended

    def loss(q: float) -> float:
        parts = ((broken, q), (mended, q + d), (rest, 1 - 2 * q - d))
        return -sum(count * math.log(max(p, 1e-300)) for count, p in parts if count)

    low, high = max(0.0, -d), (1 - d) / 2
    found = optimize.minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-12})
    q = min((low, high, float(found.x)), key=loss)
    variance = n * (2 * q + d - d * d)
    if variance < 1e-4:
        return
    assert tango_z(broken, mended, n, d) == pytest.approx(
        (mended - broken - n * d) / math.sqrt(variance), rel=1e-3, abs=1e-4
    )


@given(st.integers(0, 30), st.integers(0, 30), st.integers(1, 200))
def test_tango_limits_are_where_the_statistic_reaches_its_quantile(broken: int, mended: int, same: int) -> None:
    n = broken + mended + same
    low, high = tango(broken, mended, n)
    middle = (mended - broken) / n
    assert -1 <= low < middle < high <= 1
    assert tango_z(broken, mended, n, low) == pytest.approx(quantile(), abs=1e-6)
    assert tango_z(broken, mended, n, high) == pytest.approx(-quantile(), abs=1e-6)
    back = tango(mended, broken, n)
    np.testing.assert_allclose(back, (-high, -low), atol=1e-9)


def test_silence_leaves_room() -> None:
    z = quantile()
    for n in (20, 142, 5000):
        assert tango(0, 0, n)[1] == pytest.approx(z * z / (n + z * z), abs=1e-9)


def test_tango_covers_small_discordant_samples() -> None:
    rng = np.random.default_rng(0)
    held = 0
    draws = rng.multinomial(100, [0.04, 0.02, 0.94], 1500)
    for broken, mended, _ in draws:
        low, high = tango(broken, mended, 100)
        held += low <= -0.02 <= high
    assert 0.93 < held / 1500 < 0.98


def test_effective_numbers() -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 2, 200).astype(float)
    apart = [f"p{i}" for i in range(200)]
    assert effective(x, None) == effective(x, apart) == 200
    five = np.repeat(x, 5)
    shared = np.repeat(np.arange(200), 5)
    assert 190 < effective(five, shared) < 200
    shuffled = rng.permutation(five)
    assert 600 < effective(shuffled, shared) <= 1000
    assert effective(np.ones(50), np.repeat(np.arange(10), 5)) == 10
    assert effective(np.ones(50), np.zeros(50)) == 1.0


@given(st.integers(0, 20), st.integers(0, 20))
def test_p_of_inverts_the_interval(broken: int, mended: int) -> None:
    n = broken + mended + 30
    expected = math.erfc(abs(tango_z(broken, mended, n)) / math.sqrt(2))
    assert p_of(lambda level: tango(broken, mended, n, level)) == pytest.approx(expected, abs=1e-6)


def test_a_flawless_ranking_is_not_certain() -> None:
    """Were the true AUROC at the lower end, 20 against 100 images would hardly ever be ranked without a fault."""
    rng = np.random.default_rng(0)
    low, high = hanley(1.0, 20, 100)
    assert high == 1.0
    shift = stats.norm.ppf(low) * math.sqrt(2)
    flawless = (rng.normal(shift, 1, (3000, 20)).min(axis=1) > rng.normal(size=(3000, 100)).max(axis=1)).mean()
    assert flawless < 0.025
    assert hanley(0.5, 40, 40) == pytest.approx((1 - hanley(0.5, 40, 40)[1], 1 - hanley(0.5, 40, 40)[0]))
    assert hanley(0.9, 5, 5)[0] < hanley(0.9, 50, 50)[0] < 0.9 < hanley(0.9, 50, 50)[1]
    assert hanley(0.9, 0, 5) == (0.0, 1.0)


def test_mover_of_equal_parts_narrows_with_their_number() -> None:
    low, high = mover([0.5] * 4, [(0.3, 0.7)] * 4)
    assert (low, high) == pytest.approx((0.4, 0.6))


def test_paired_mean_is_the_t_test_of_scipy_where_tails_are_light() -> None:
    steps = np.random.default_rng(0).uniform(-1, 1, 30) + 0.2
    theirs = stats.ttest_1samp(steps, 0.0)
    low, high, p = paired_mean(steps)
    assert p == pytest.approx(theirs.pvalue, rel=1e-9), "a kurtosis below 3 leaves all m - 1 degrees of freedom"
    assert (low, high) == pytest.approx(tuple(theirs.confidence_interval(0.95)), rel=1e-9)


def test_paired_mean_of_few_large_steps_is_not_sure() -> None:
    steps = np.r_[np.zeros(196), np.ones(4)]
    assert stats.ttest_1samp(steps, 0.0).pvalue < 0.05 < paired_mean(steps)[2]
    assert paired_mean(np.zeros(10)) == (0.0, 0.0, 1.0)


def test_paired_mean_counts_patients_and_not_their_images() -> None:
    steps = np.random.default_rng(1).uniform(-1, 1.2, 20)
    once, twice = paired_mean(steps), paired_mean(np.repeat(steps, 3), np.repeat(np.arange(20), 3))
    assert twice == pytest.approx(once, rel=1e-9)


@pytest.mark.parametrize("n", [20, 50, 200])
def test_single_proportions_cover_almost_everywhere(n: int) -> None:
    ends = np.array([agresti_coull(hits, n) for hits in range(n + 1)])
    narrow = np.array([wilson(hits, n) for hits in range(n + 1)])
    assert (ends[:, 0] <= narrow[:, 0] + 1e-12).all() and (ends[:, 1] >= narrow[:, 1] - 1e-12).all()
    for share in np.linspace(0.5, 0.99, 50):
        mass = stats.binom.pmf(np.arange(n + 1), n, share)
        assert mass[(ends[:, 0] <= share) & (share <= ends[:, 1])].sum() > 0.92
