"""From bootstrap replicates to intervals and p-values."""

from __future__ import annotations

import math

import numpy as np

from quantward.core.values import FloatArray
from quantward.evaluate.proportions import quantile, t_quantile

SNAP = 1e-12
"""Differences this small are rounding, not differences: they count as ties."""


def percentile(values: FloatArray, level: float = 0.95) -> tuple[float, float] | None:
    """The percentile interval of bootstrap values (B,), undefined ones (NaN) left out; None where most are undefined.

    Efron 1979. Linear interpolation between order statistics.

    >>> percentile(np.arange(101.0), 0.5)
    (25.0, 75.0)
    """
    known = values[~np.isnan(values)]
    if 2 * len(known) < len(values) or not len(known):
        return None
    tail = 50 * (1 - level)
    low, high = np.percentile(known, [tail, 100 - tail])
    return float(low), float(high)


def recentred(values: FloatArray, value: float, level: float = 0.95) -> tuple[float, float] | None:
    """The percentile interval of bootstrap values (B,) shifted by their bias, mean - `value`, and held above 0.

    For errors of calibration: a mean of absolute gaps grows with noise, so that every resample shows more of it than
    the sample, and the plain percentile interval can lie wholly above its own estimate. None where most replicates
    are undefined.

    >>> recentred(np.array([0.3, 0.4, 0.5]), 0.2, 0.5)
    (0.15, 0.25)
    """
    ends = percentile(values, level)
    if ends is None:
        return None
    bias = float(np.nanmean(values)) - value
    return max(0.0, round(ends[0] - bias, 15)), max(0.0, round(ends[1] - bias, 15))


def logit_normal(
    values: FloatArray, value: float, resolution: float, level: float = 0.95, df: float = math.inf
) -> tuple[float, float] | None:
    """Interval of an area between 0 and 1: logit(value) +- t times the spread of the bootstrap's logits.

    Areas near 1 are skewed, and a percentile interval then covers 80 % instead of 95 % (docs/statistics.md); on the
    logit scale it covers again (Qin and Hotilovac 2008 for AUROC, Boyd et al. 2013 for AUPRC). t is Student's quantile
    with `df` degrees of freedom, one less than the images of the rarer side: with few, their spread is itself a guess.
    `resolution` keeps the logit finite: values closer to 0 or 1 than this, half the smallest step of the area, are
    moved there. None where most replicates are undefined.

    >>> low, high = logit_normal(np.array([0.8, 0.9, 0.95]), 0.9, 1e-3) or (0, 0)
    >>> round(low, 2), round(high, 2)
    (0.72, 0.97)
    """
    known = values[~np.isnan(values)]
    if 2 * len(known) < len(values) or not len(known):
        return None

    def logit(p: FloatArray) -> FloatArray:
        inside = np.clip(p, resolution, 1 - resolution)
        return np.asarray(np.log(inside) - np.log1p(-inside))

    middle = float(logit(np.array(value)))
    reach = t_quantile(level, df) * float(np.std(logit(known)))
    low, high = (0.5 * (1 + math.tanh(end / 2)) for end in (middle - reach, middle + reach))
    return min(low, value), max(high, value)


def paired_area(
    differences: FloatArray, delta: float, candidate_values: FloatArray, candidate: float, resolution: float
) -> tuple[float, float] | None:
    """The 95 % interval of candidate - baseline of an area, with the side of harm looked at more closely.

    delta - z s r to delta + z s, with s the spread of the paired bootstrap `differences` (B,) and r >= 1 the ratio by
    which the candidate's own spread, sqrt(a (1 - a)), is larger at the lower end of its `logit_normal` interval than
    at its value. Near 1 an interval without r is too short where it matters: it lets a candidate that is exactly on
    the margin pass 6 to 14 times in 100 instead of 2.5 (docs/statistics.md). None where most replicates are undefined.
    """
    alone = logit_normal(candidate_values, candidate, resolution)
    if alone is None:
        return None
    at, here = (min(max(a, resolution), 1 - resolution) for a in (alone[0], candidate))
    stretch = max(1.0, math.sqrt(at * (1 - at) / (here * (1 - here))))
    reach = quantile() * float(np.nanstd(differences))
    return delta - reach * stretch, delta + reach


def bca(values: FloatArray, value: float, left_out: FloatArray, level: float = 0.95) -> tuple[float, float] | None:
    """The bias-corrected and accelerated interval of bootstrap values (B,) around `value` (Efron 1987).

    `left_out` holds the jackknife values. z0 is the normal quantile of the share of bootstrap values below `value`
    (ties as halves, or a discrete statistic would look biased), a = sum(u^3) / (6 (sum u^2)^1.5) with u the jackknife
    mean less each value. None where most replicates are undefined; the percentile interval where nothing varies.
    """
    from scipy.special import ndtr, ndtri

    known = values[~np.isnan(values)]
    if 2 * len(known) < len(values) or not len(known):
        return None
    rest = left_out[~np.isnan(left_out)]
    u = rest.mean() - rest if len(rest) else np.zeros(1)
    scale = float(np.sum(u * u)) ** 1.5
    if scale <= 1e-300 or np.ptp(known) <= SNAP:
        return percentile(values, level)
    a = float(np.sum(u**3)) / (6 * scale)
    tie = np.abs(known - value) <= SNAP
    below = (np.sum((known < value) & ~tie) + tie.sum() / 2) / len(known)
    z0 = float(ndtri(np.clip(below, 0.5 / len(known), 1 - 0.5 / len(known))))
    ends = []
    for z in (ndtri((1 - level) / 2), ndtri((1 + level) / 2)):
        lifted = 1 - a * (z0 + z)
        share = float(ndtr(z0 + (z0 + z) / lifted)) if lifted > 0 else float(z0 + z > 0)
        ends.append(float(np.percentile(known, 100 * share)))
    return ends[0], ends[1]


def snapped(differences: FloatArray) -> FloatArray:
    """Differences with those of rounding size set to exactly 0, so that ties are seen as ties."""
    return np.where(np.abs(differences) <= SNAP, 0.0, differences)


def p_value(differences: FloatArray) -> float:
    """Two-sided bootstrap p-value of "no difference" that stays right under ties.

    p = min(1, 2 min(#{d >= 0} + 1, #{d <= 0} + 1) / (B + 1)): a tie speaks against both alternatives. NaN is left out.

    >>> p_value(np.zeros(999))
    1.0
    """
    d = differences[~np.isnan(differences)]
    return min(1.0, 2 * (min(int(np.sum(d >= 0)), int(np.sum(d <= 0))) + 1) / (len(d) + 1))


def p_value_eq3(differences: FloatArray) -> float:
    """The p-value as some papers print it: min(1, 2 min(mean(d >= 0), mean(d < 0))). For reproduction only.

    It counts ties on one side, so identical models get p = 0.

    >>> p_value_eq3(np.zeros(999))
    0.0
    """
    d = differences[~np.isnan(differences)]
    return min(1.0, 2 * min(float(np.mean(d >= 0)), float(np.mean(d < 0)))) if len(d) else math.nan
