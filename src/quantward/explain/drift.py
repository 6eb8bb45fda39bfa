"""How far two maps of the same image are apart, and whether a map is right: numbers without a network.

All functions take maps (n, s, s) that are not negative, and give one value an image, (n,); NaN where a map is constant
and so points nowhere.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.stats import rankdata

from quantward.core.contracts import Batch, Session
from quantward.core.errors import UsageError
from quantward.core.values import FloatArray, ImageArray, IntArray

TOP = 0.2
"""Share of the pixels that counts as where a network looks."""


def rank_correlation(before: FloatArray, after: FloatArray) -> FloatArray:
    """Spearman's rank correlation of the pixels of two maps, ties at their mean rank.

    >>> rank_correlation(np.array([[[1.0, 2.0], [3.0, 4.0]]]), np.array([[[2.0, 3.0], [5.0, 9.0]]])).round(3).tolist()
    [1.0]
    """
    ranks = [rankdata(_flat(maps), axis=1) for maps in (before, after)]
    centred = [rank - rank.mean(axis=1, keepdims=True) for rank in ranks]
    norms = np.sqrt((centred[0] ** 2).sum(1) * (centred[1] ** 2).sum(1))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(norms > 0, (centred[0] * centred[1]).sum(1) / norms, np.nan))


def top_overlap(before: FloatArray, after: FloatArray, share: float = TOP) -> FloatArray:
    """Intersection over union of the `share` of pixels with the largest values in each map.

    >>> top_overlap(np.array([[[9.0, 8.0], [1.0, 0.0]]]), np.array([[[9.0, 1.0], [8.0, 0.0]]]), 0.5).round(3).tolist()
    [0.333]
    """
    if not 0 < share < 1:
        raise UsageError(f"Expected a share of pixels between 0 and 1; got {share:g}. Choose another one.")
    first, second = (_top(maps, share) for maps in (before, after))
    overlap = (first & second).sum(1) / (first | second).sum(1)
    return np.asarray(np.where(_points(before) & _points(after), overlap, np.nan))


def structural_similarity(before: FloatArray, after: FloatArray) -> FloatArray:
    """SSIM of two maps, each scaled to a largest value of 1: mean over pixels, Gaussian window of sigma 1.5 (11
    pixels), K1 = 0.01, K2 = 0.03, L = 1. Wang et al., IEEE Transactions on Image Processing 13, 2004, eq. 13."""
    found = np.full(len(before), np.nan)
    for i in np.flatnonzero(_points(before) & _points(after)):
        a, b = (np.asarray(maps[i] / maps[i].max(), np.float64) for maps in (before, after))
        mean_a, mean_b, square_a, square_b, product = (
            gaussian_filter(value, 1.5, truncate=3.5) for value in (a, b, a * a, b * b, a * b)
        )
        spread_a, spread_b, both = square_a - mean_a**2, square_b - mean_b**2, product - mean_a * mean_b
        upper = (2 * mean_a * mean_b + 0.01**2) * (2 * both + 0.03**2)
        lower = (mean_a**2 + mean_b**2 + 0.01**2) * (spread_a + spread_b + 0.03**2)
        found[i] = (upper / lower).mean()
    return found


def centre_shift(before: FloatArray, after: FloatArray) -> FloatArray:
    """Distance between the maps' centres of mass, as a share of the image's side.

    >>> centre_shift(np.array([[[1.0, 0.0], [0.0, 0.0]]]), np.array([[[0.0, 1.0], [0.0, 0.0]]])).tolist()
    [0.5]
    """
    (rows_a, columns_a), (rows_b, columns_b) = (_centre(maps) for maps in (before, after))
    return np.asarray(np.hypot(rows_a - rows_b, columns_a - columns_b) / before.shape[1])


def pointing(maps: FloatArray, masks: ImageArray) -> FloatArray:
    """The pointing game: 1 where the map's largest pixel lies in the mask, else 0; NaN for an empty mask.

    Masks (n, s, s) are 0 outside.
    Zhang et al., "Top-down neural attention by excitation backprop", IJCV 126, 2018, section 4.1 (without tolerance).
    """
    inside = _flat(masks) > 0
    hit = inside[np.arange(len(maps)), _flat(maps).argmax(1)]
    return np.asarray(np.where(inside.any(1) & _points(maps), hit.astype(np.float64), np.nan))


def mass_inside(maps: FloatArray, masks: ImageArray) -> FloatArray:
    """Share of a map's sum that lies in the mask; chance is the mask's share of the image."""
    flat, inside = _flat(maps), _flat(masks) > 0
    total = flat.sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = (flat * inside).sum(1) / total
    return np.asarray(np.where(inside.any(1) & (total > 0), share, np.nan))


def deletion(session: Session, images: Batch, classes: IntArray, maps: FloatArray, steps: int = 20) -> FloatArray:
    """Area under the class's probability while pixels are set to 0 from the most to the least important; low is good.

    Petsiuk, Das and Saenko, "RISE", BMVC 2018, section 3.2 (mean over `steps` + 1 shares of the pixels, trapezoids).
    """
    return _area(session, images, np.zeros_like(images), classes, maps, steps)


def insertion(session: Session, images: Batch, classes: IntArray, maps: FloatArray, steps: int = 20) -> FloatArray:
    """Area under the class's probability while pixels of the image replace those of a blurred one; high is good.

    The same paper; the blur is Gaussian with a sigma of a tenth of the side.
    """
    blurred = gaussian_filter(images, (0, 0, images.shape[2] / 10, images.shape[3] / 10))
    return _area(session, blurred, images, classes, maps, steps)


def _area(session: Session, begin: Batch, end: Batch, classes: IntArray, maps: FloatArray, steps: int) -> FloatArray:
    """Area under the probability of each image's class from `begin` to `end`, most important pixels first."""
    order = np.argsort(np.argsort(-_flat(maps), axis=1, kind="stable"), axis=1).reshape(maps.shape)
    said = np.empty((steps + 1, len(maps)))
    for k in range(steps + 1):
        turned = order < round(k * order[0].size / steps)
        logits = np.asarray(session(np.where(turned[:, None], end, begin).astype(np.float32)), np.float64)
        powers = np.exp(logits - logits.max(1, keepdims=True))
        said[k] = (powers / powers.sum(1, keepdims=True))[np.arange(len(maps)), np.asarray(classes)]
    return np.asarray(np.trapezoid(said, dx=1 / steps, axis=0))


def _flat(maps: FloatArray | ImageArray) -> FloatArray:
    return np.asarray(maps, np.float64).reshape(len(maps), -1)


def _points(maps: FloatArray) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    flat = _flat(maps)
    return np.asarray(flat.max(1) > flat.min(1))


def _top(maps: FloatArray, share: float) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    flat = _flat(maps)
    count = max(1, round(share * flat.shape[1]))
    chosen = np.zeros(flat.shape, np.bool_)
    np.put_along_axis(chosen, np.argsort(-flat, axis=1, kind="stable")[:, :count], True, axis=1)
    return chosen


def _centre(maps: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Row and column of each map's centre of mass, in pixels."""
    maps = np.asarray(maps, np.float64)
    total = maps.sum((1, 2))
    with np.errstate(invalid="ignore", divide="ignore"):
        rows = (maps.sum(2) @ np.arange(maps.shape[1])) / total
        columns = (maps.sum(1) @ np.arange(maps.shape[2])) / total
    return rows, columns
