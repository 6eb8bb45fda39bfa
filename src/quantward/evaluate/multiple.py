"""Many questions to one test set: what the answers are still worth."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for having looked at all of them (Holm 1979); NaN stays NaN and does not count.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    p = np.asarray(p_values, np.float64)
    adjusted = np.full(len(p), np.nan)
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")]
    factors = len(order) - np.arange(len(order))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * factors)) if len(order) else []
    return [float(value) for value in adjusted]


def fixed_sequence(p_values: Sequence[float], alpha: float = 0.025) -> list[bool]:
    """Which hypotheses of a sequence fixed in advance are rejected: each at full alpha, up to the first that is not.

    This is how the precision ladder is walked (FP32, FP16, INT8, ...): no alpha is split, because a rung is only
    tested once every rung above it has passed (Maurer, Hothorn and Lehmacher 1995).

    >>> fixed_sequence([0.01, 0.02, 0.3, 0.001])
    [True, True, False, False]
    """
    decided, still = [], True
    for p in p_values:
        still = still and p <= alpha
        decided.append(still)
    return decided
