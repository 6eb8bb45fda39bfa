"""Distances between maps against scipy, a slow witness, and cases that can be counted by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import stats

from quantward.core.contracts import Batch
from quantward.core.errors import UsageError
from quantward.explain import drift

MAPS = arrays.arrays(np.float64, (2, 6, 6), elements=st.integers(0, 5).map(float))


@given(MAPS, MAPS)
def test_rank_correlation_is_scipys(before: np.ndarray, after: np.ndarray) -> None:
    found = drift.rank_correlation(before, after)
    for value, a, b in zip(found, before, after, strict=True):
        if np.ptp(a) == 0 or np.ptp(b) == 0:
            assert np.isnan(value)
        else:
            assert value == pytest.approx(stats.spearmanr(a.ravel(), b.ravel()).statistic, abs=1e-12)


@given(MAPS)
def test_a_map_is_as_near_to_itself_as_can_be(maps: np.ndarray) -> None:
    pointed = np.ptp(maps, axis=(1, 2)) > 0
    for measure, best in ((drift.rank_correlation, 1), (drift.top_overlap, 1), (drift.structural_similarity, 1)):
        assert measure(maps, maps)[pointed] == pytest.approx(best)
        assert np.isnan(measure(maps, maps)[~pointed]).all()
    assert drift.centre_shift(maps, maps)[maps.sum((1, 2)) > 0] == pytest.approx(0)


def slow_ssim(a: np.ndarray, b: np.ndarray) -> float:
    """The paper's formula, window by window, edges mirrored."""
    reach = 5
    at = np.arange(-reach, reach + 1)
    line = np.exp(-(at**2) / (2 * 1.5**2))
    window = np.outer(line, line) / line.sum() ** 2
    wide = [np.pad(value / value.max(), reach, mode="symmetric") for value in (a, b)]
    found = []
    for y in range(a.shape[0]):
        for x in range(a.shape[1]):
            p, q = (value[y : y + 11, x : x + 11] for value in wide)
            mp, mq = (window * p).sum(), (window * q).sum()
            vp, vq = (window * (p - mp) ** 2).sum(), (window * (q - mq) ** 2).sum()
            cov = (window * (p - mp) * (q - mq)).sum()
            found.append((2 * mp * mq + 1e-4) * (2 * cov + 9e-4) / ((mp**2 + mq**2 + 1e-4) * (vp + vq + 9e-4)))
    return float(np.mean(found))


def test_structural_similarity_is_the_papers() -> None:
    draw = np.random.default_rng(0)
    before, after = draw.random((3, 16, 16)), draw.random((3, 16, 16))
    found = drift.structural_similarity(before, after)
    assert found == pytest.approx([slow_ssim(a, b) for a, b in zip(before, after, strict=True)], abs=1e-9)


def test_overlap_counts_pixels() -> None:
    before = np.arange(100.0).reshape(1, 10, 10)
    after = before.copy()
    after[0, 9, :5] = -1  # five of the twenty largest leave, five others take their place
    assert drift.top_overlap(before, after) == pytest.approx([15 / 25])
    with pytest.raises(UsageError, match="between 0 and 1"):
        drift.top_overlap(before, after, 1.0)


def test_pointing_and_mass() -> None:
    maps, masks = np.zeros((3, 4, 4)), np.zeros((3, 4, 4), np.uint8)
    maps[:, 1, 1], maps[:, 3, 3] = 3, 1
    masks[0, 1, 1], masks[1, 3, 3] = 1, 1  # the third image has no lesion
    assert drift.pointing(maps, masks)[:2].tolist() == [1, 0]
    assert drift.mass_inside(maps, masks)[:2].tolist() == [0.75, 0.25]
    assert np.isnan(drift.pointing(maps, masks)[2]) and np.isnan(drift.mass_inside(maps, masks)[2])


def one_pixel(batch: Batch) -> Batch:
    """Sure of class 1 while pixel (0, 0) is lit."""
    lit = batch[:, :, 0, 0].mean(1)
    return np.stack([np.zeros_like(lit), 40 * (lit - 0.5)], axis=1).astype(np.float32)


def test_curves_tell_a_good_map_from_a_bad_one() -> None:
    images, classes = np.ones((1, 3, 8, 8), np.float32), np.array([1])
    good, bad = np.zeros((1, 8, 8)), np.ones((1, 8, 8))
    good[0, 0, 0], bad[0, 0, 0] = 1, 0
    assert drift.deletion(one_pixel, images, classes, good, steps=8)[0] == pytest.approx(1 / 16, abs=1e-6)
    assert drift.deletion(one_pixel, images, classes, bad, steps=8)[0] == pytest.approx(15 / 16, abs=1e-6)
    dark = images.copy()
    dark[:, :, 1:] = 0
    better = drift.insertion(one_pixel, dark, classes, good, steps=8)[0]
    assert better > drift.insertion(one_pixel, dark, classes, bad, steps=8)[0]
