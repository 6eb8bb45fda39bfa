"""From a histogram to the range that gets the integers: what lies outside is clipped, what lies inside is rounded.

Four answers to one question. `max` clips nothing, `percentile` a fixed share, `mse` as much as minimises the squared
error, `entropy` as much as minimises the information lost. Each is a function (histogram, bits) -> (low, high).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from quantward.graph.walk import SQUASHING
from quantward.quantize._observers import BINS, Histogram

Calibrator = Literal["max", "percentile", "mse", "entropy"]

Through = Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]

PERCENTILE = 0.9999


def maximum(histogram: Histogram, bits: int) -> tuple[float, float]:
    """The exact extremes: nothing is clipped, one outlier takes the resolution of all."""
    return histogram.low, histogram.high


def percentile(histogram: Histogram, bits: int) -> tuple[float, float]:
    """The middle 99.99 % of the values: (1 - p) / 2 clipped on each side that has a tail; p = 0.9999."""
    share = np.cumsum(histogram.counts) / histogram.counts.sum()
    edges = np.linspace(-histogram.reach, histogram.reach, BINS + 1)
    tail = (1 - PERCENTILE) / 2
    low = edges[int(np.searchsorted(share, tail, side="right"))]
    high = edges[min(int(np.searchsorted(share, 1 - tail)) + 1, BINS)]
    return max(float(low), histogram.low), min(float(high), histogram.high)


def squared_error(histogram: Histogram, bits: int, through: Through | None = None) -> tuple[float, float]:
    """The range with the least expected squared error, sum_i p_i (f(x_i) - f(q(x_i)))^2 over the bins.

    f is the function that alone reads the tensor (`through`), or the identity: what a SiLU maps to nearly zero anyway
    need not be told apart, and its long negative tail would cost the rest their levels.

    Both ends are searched in turn (100 fractions of the extremes each, three rounds). The rounding error inside is
    taken as measured at the bin centres, not as step^2 / 12, so sparse and clipped distributions are judged right.
    """
    used = histogram.counts > 0
    x, p = histogram.centres[used], histogram.counts[used]
    steps = 2**bits - 1
    goal = x if through is None else through(x)

    def errors(lows: npt.NDArray[np.float64], highs: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        found = np.empty(len(lows))
        for k, (a, b) in enumerate(zip(lows, highs, strict=True)):
            step = max((b - a) / steps, 1e-12)
            zero = np.rint(-a / step)
            q = (np.clip(np.rint(x / step) + zero, 0, steps) - zero) * step
            found[k] = float(p @ (goal - (q if through is None else through(q))) ** 2)
        return found

    low, high = min(histogram.low, 0.0), max(histogram.high, 0.0)
    fractions = np.linspace(0.01, 1.0, 100)
    for _ in range(3 if low < 0 < high else 1):
        if high > 0:
            ends = fractions * max(histogram.high, 0.0)
            high = float(ends[int(np.argmin(errors(np.full_like(ends, low), ends)))])
        if low < 0:
            ends = fractions * min(histogram.low, 0.0)
            low = float(ends[int(np.argmin(errors(ends, np.full_like(ends, high))))])
    return low, high


def entropy(histogram: Histogram, bits: int) -> tuple[float, float]:
    """The threshold t on |x| that loses least information: min over t of KL(P || Q), with P the distribution clipped
    at t and Q the same distribution told in 2^(bits-1) levels (Migacz, "8-bit inference with TensorRT", GTC 2017).

    Deviation: the zeros of a ReLU fill the first bin and would swamp the search, so that bin takes its neighbour's
    count; ranges never exceed the exact extremes.
    """
    half = BINS // 2
    counts = histogram.counts[half:] + histogram.counts[:half][::-1]
    counts[0] = counts[1]
    levels = 2 ** (bits - 1)
    last = int(np.flatnonzero(counts)[-1]) + 1 if counts.any() else half
    stops = np.arange(levels, last + 1, max(1, (last - levels) // 256))
    threshold = int(stops[np.argmin(divergences(counts, stops, levels))]) if len(stops) else last
    reach = threshold * 2 * histogram.reach / BINS
    return max(-reach, histogram.low), min(reach, histogram.high)


def divergences(counts: npt.NDArray[np.float64], stops: npt.NDArray[np.int64], levels: int) -> npt.NDArray[np.float64]:
    """KL(P || Q) for every stop: P = the counts with all from `stop` on moved into bin stop - 1; Q = the counts before
    `stop`, spread evenly within each of `levels` cells over the bins that are filled. Both are normalised.

    Running sums give each cell's mass, so a stop costs `levels` steps and not `stop`. Where P has mass in a bin that
    is empty in Q, Q is taken as 1e-12 there.
    """
    total = counts.sum()
    mass = np.concatenate([[0.0], np.cumsum(counts)])
    width = np.concatenate([[0.0], np.cumsum(counts > 0)])
    own = np.concatenate([[0.0], np.cumsum(_xlogx(counts))])
    found = np.full(len(stops), np.inf)
    for k, stop in enumerate(stops):
        inside, tail = mass[stop], total - mass[stop]
        if inside <= 0:
            continue
        edges = -(-np.arange(levels + 1) * stop // levels)
        m, w = np.diff(mass[edges]), np.diff(width[edges])
        each = np.log(np.where(m > 0, m, 1.0) / np.maximum(w, 1.0) / inside)
        final = counts[stop - 1]
        entropy = own[stop] - float(_xlogx(final)) + float(_xlogx(final + tail))
        lost = each[-1] if final > 0 else np.log(1e-12)
        found[k] = (entropy - float(m @ each) - tail * lost) / total - np.log(total)
    return found


def _xlogx(x: npt.NDArray[np.float64] | float) -> npt.NDArray[np.float64]:
    return np.asarray(x * np.log(np.where(np.asarray(x) > 0, x, 1.0)))


def _gelu(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    from scipy.special import ndtr

    return np.asarray(x * ndtr(x))


def _sigmoid(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    from scipy.special import expit

    return np.asarray(expit(x))


THROUGH: dict[str, Through] = {
    "aten.silu.default": lambda x: x * _sigmoid(x),
    "aten.gelu.default": _gelu,
    "aten.sigmoid.default": _sigmoid,
    "aten.hardswish.default": lambda x: x * np.clip(x / 6 + 0.5, 0, 1),
    "aten.hardsigmoid.default": lambda x: np.clip(x / 6 + 0.5, 0, 1),
    "aten.relu.default": lambda x: np.maximum(x, 0),
}
"""Functions through which the error of a tensor is judged where nothing else reads it, by operator."""
assert set(THROUGH) == SQUASHING

CALIBRATORS: dict[str, Callable[[Histogram, int], tuple[float, float]]] = {
    "max": maximum,
    "percentile": percentile,
    "mse": squared_error,
    "entropy": entropy,
}
assert set(CALIBRATORS) == set(get_args(Calibrator))
