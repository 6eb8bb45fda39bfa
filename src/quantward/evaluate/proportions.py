"""Proportions, single and paired: score intervals and exact tests, which stay honest where a bootstrap sees nothing.

A sample without a single error resamples to itself for ever, so its bootstrap interval has width zero. These do not.
Images of one patient are not independent: `effective` turns n images into the number of independent ones they equal.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from quantward.core.values import FloatArray, IntArray


def paired_mean(steps: FloatArray, groups: Sequence[str] | IntArray | None = None) -> tuple[float, float, float]:
    """The 95 % interval of the mean of paired differences (n,) and the p-value of "it is zero": (low, high, p).

    Student's t with the standard error between `groups` (one observation each where there are none) and
    df = min(m - 1, 2 m / (kurtosis - 1)), the number of normal observations whose variance would be known as badly
    (Satterthwaite 1946, with Var(s^2) ~ (kurtosis - 1) sigma^4 / m). Where a few images carry the whole difference, as
    the squared errors of a model that is nearly always sure, a bootstrap takes them for many.

    >>> low, high, p = paired_mean(np.array([0.1, -0.1, 0.1, -0.1]))
    >>> low < 0 < high, p
    (True, 1.0)
    """
    from scipy.special import stdtr

    mean = float(np.mean(steps))
    spread = np.asarray(steps - mean, np.float64)
    if groups is not None:
        spread = np.asarray(np.bincount(np.unique(np.asarray(groups), return_inverse=True)[1], spread), np.float64)
    m, squares = len(spread), float(np.sum(spread**2))
    if m < 2 or squares <= 1e-300:
        return mean, mean, 1.0 if abs(mean) <= 1e-12 else 0.0
    error = math.sqrt(squares * m / (m - 1)) / len(steps)
    kurtosis = m * float(np.sum(spread**4)) / squares**2
    df = max(1.0, min(m - 1.0, 2 * m / max(kurtosis - 1, 1e-9)))
    reach = t_quantile(0.95, df) * error
    return mean - reach, mean + reach, 2 * float(stdtr(df, -abs(mean) / error))


def quantile(level: float = 0.95) -> float:
    """The two-sided normal quantile, 1.96 for 0.95."""
    from statistics import NormalDist

    return NormalDist().inv_cdf((1 + level) / 2)


def t_quantile(level: float, df: float) -> float:
    """The two-sided quantile of Student's t; at least one degree of freedom, normal for infinitely many.

    >>> round(t_quantile(0.95, 19), 3), round(t_quantile(0.95, math.inf), 3)
    (2.093, 1.96)
    """
    from scipy.special import stdtrit

    return quantile(level) if math.isinf(df) else float(stdtrit(max(df, 1.0), (1 + level) / 2))


def wilson(hits: float, n: float, level: float = 0.95) -> tuple[float, float]:
    """Score interval of a proportion (Wilson 1927); `hits` and `n` may be effective, so not whole.

    >>> [round(end, 4) for end in wilson(20, 20)]
    [0.8389, 1.0]
    """
    if n <= 0:
        return 0.0, 1.0
    z = quantile(level)
    share = hits / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(max(0.0, share * (1 - share) / n + z * z / (4 * n * n)))
    return (0.0 if hits <= 0 else max(0.0, middle - half)), (1.0 if hits >= n else min(1.0, middle + half))


def agresti_coull(hits: float, n: float, level: float = 0.95) -> tuple[float, float]:
    """Wilson's interval widened to the normal one around its own middle (Agresti and Coull 1998).

    Proportions are discrete, and the coverage of any interval swings with n: from 30 on, Wilson's falls to 91 % at
    places and this one not below 93 % (docs/statistics.md). `hits` and `n` may be effective, so not whole.

    >>> [round(end, 4) for end in agresti_coull(20, 20)]
    [0.8102, 1.0]
    """
    if n <= 0:
        return 0.0, 1.0
    z = quantile(level)
    middle = (hits + z * z / 2) / (n + z * z)
    half = z * math.sqrt(middle * (1 - middle) / (n + z * z))
    return (0.0 if hits <= 0 else max(0.0, middle - half)), (1.0 if hits >= n else min(1.0, middle + half))


def clopper_pearson(hits: float, n: float, level: float = 0.95) -> tuple[float, float]:
    """Exact interval of a proportion (Clopper and Pearson 1934); with effective numbers, Korn and Graubard 1998.

    >>> [round(end, 4) for end in clopper_pearson(0, 100)]
    [0.0, 0.0362]
    """
    from scipy.special import betaincinv

    tail = (1 - level) / 2
    low = 0.0 if hits <= 0 else float(betaincinv(hits, n - hits + 1, tail))
    high = 1.0 if hits >= n else float(betaincinv(hits + 1, n - hits, 1 - tail))
    return low, high


def effective(values: FloatArray | IntArray, groups: Sequence[str] | IntArray | None, level: float = 0.95) -> float:
    """How many independent images carry as much information on the mean of `values` (n,) as these do.

    n / deff with deff the ratio of the variance of the mean under sampling whole groups to that under sampling
    images, at least 1, times (z / t)^2 with t of (groups - 1) degrees of freedom for the few groups (Korn and
    Graubard 1998). Where nothing varies no deff can be measured and every group counts once.

    >>> effective(np.array([1, 0, 1, 0]), None)
    4.0
    """
    n = len(values)
    if groups is None or n == 0:
        return float(n)
    _, place = np.unique(np.asarray(groups).astype(str), return_inverse=True)
    count = int(place.max()) + 1
    if count == n:
        return float(n)
    if count < 2:
        return 1.0
    x = np.asarray(values, np.float64)
    apart = x - x.mean()
    single = float(apart @ apart) / (n - 1) / n
    if single <= 0:
        return float(count)
    totals = np.bincount(place, apart, count)
    clustered = count / (count - 1) * float(totals @ totals) / n**2
    from scipy.special import stdtrit

    t = float(stdtrit(count - 1, (1 + level) / 2))
    return max(1.0, n / max(1.0, clustered / single) * (quantile(level) / t) ** 2)


def mcnemar(broken: int, mended: int) -> float:
    """Exact two-sided McNemar p-value: binomial with 1/2 over the discordant images; 1 where there are none.

    >>> mcnemar(0, 0), mcnemar(1, 7)
    (1.0, 0.0703125)
    """
    total = broken + mended
    if total == 0:
        return 1.0
    from scipy.special import bdtr

    return min(1.0, 2 * float(bdtr(min(broken, mended), total, 0.5)))


def tango_z(broken: float, mended: float, n: float, difference: float = 0.0) -> float:
    """Tango's score statistic of "mended - broken share = difference" for n pairs (Tango 1998, equation 5).

    (m - b - n d) / sqrt(n (2 q + d (1 - d))), q the maximum-likelihood share of `broken` given d. Standard normal.
    """
    d = difference
    lead = 2 * n
    linear = -mended - broken + (2 * n - mended + broken) * d
    constant = -broken * d * (1 - d)
    q = (math.sqrt(max(0.0, linear * linear - 4 * lead * constant)) - linear) / (2 * lead)
    top = mended - broken - n * d
    variance = n * (2 * q + d * (1 - d))
    if variance <= 1e-15 * max(1.0, n):
        return 0.0 if abs(top) < 1e-12 else math.copysign(math.inf, top)
    return top / math.sqrt(variance)


def tango(broken: float, mended: float, n: float, level: float = 0.95) -> tuple[float, float]:
    """Score interval of the paired difference of two proportions, mended/n - broken/n (Tango 1998).

    `broken` images only the baseline got right, `mended` only the candidate. Never of width zero: n pairs that all
    agree leave a difference of z^2 / (n + z^2) open.

    >>> [round(end, 4) for end in tango(0, 0, 142)]
    [-0.0263, 0.0263]
    """
    if n <= 0:
        return -1.0, 1.0
    z = quantile(level)
    middle = (mended - broken) / n

    def end(outer: float, target: float) -> float:
        inner = middle
        for _ in range(60):
            half = (inner + outer) / 2
            inside = abs(tango_z(broken, mended, n, half)) <= target
            inner, outer = (half, outer) if inside else (inner, half)
        return inner

    return end(-1.0, z), end(1.0, z)


def hanley(area: float, positives: float, negatives: float, level: float = 0.95) -> tuple[float, float]:
    """Score interval of one AUROC from its value and the numbers of images alone (Newcombe 2006, method 5).

    The ends a solve |area - a| = z sqrt(a (1 - a) (1 + s (1 - a) / (2 - a) + s a / (1 + a)) / (m n)) with
    s = (m + n) / 2 - 1: the variance of Hanley and McNeil 1982 at the end itself. Not of width zero at 1.

    >>> [round(end, 3) for end in hanley(1.0, 20, 100)]
    [0.941, 1.0]
    """
    if positives < 1 or negatives < 1:
        return 0.0, 1.0
    z = quantile(level)
    mean = (positives + negatives) / 2 - 1

    def reach(a: float) -> float:
        spread = 1 + mean * (1 - a) / (2 - a) + mean * a / (1 + a)
        return abs(area - a) - z * math.sqrt(max(0.0, a * (1 - a) * spread / (positives * negatives)))

    def end(outer: float) -> float:
        inner = area
        if reach(outer) <= 0:
            return outer
        for _ in range(60):
            half = (inner + outer) / 2
            inner, outer = (half, outer) if reach(half) <= 0 else (inner, half)
        return inner

    return end(0.0), end(1.0)


def mover(values: Sequence[float], intervals: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Interval of the mean of independent estimates from their own intervals (Zou and Donner 2008).

    low = m - sqrt(sum (v_i - l_i)^2) / k, high likewise: keeps each part's asymmetry.

    >>> mover([0.5], [(0.25, 0.875)])
    (0.25, 0.875)
    """
    v, ends = np.asarray(values), np.asarray(intervals)
    mean, k = float(v.mean()), len(v)
    below = math.sqrt(float(np.sum((v - ends[:, 0]) ** 2))) / k
    above = math.sqrt(float(np.sum((ends[:, 1] - v) ** 2))) / k
    return mean - below, mean + above


def p_of(interval: Callable[[float], tuple[float, float]], value: float = 0.0) -> float:
    """The two-sided p-value of `value` that belongs to a family of intervals by level: 1 - the level that just reaches.

    >>> round(p_of(lambda level: (1 - quantile(level), 1 + quantile(level))), 4)
    0.3173
    """
    low, high = 0.0, 1 - 1e-9
    for _ in range(30):
        level = (low + high) / 2
        ends = interval(level)
        if ends[0] <= value <= ends[1]:
            high = level
        else:
            low = level
    return 1.0 if high < 1e-6 else 1 - (low + high) / 2
