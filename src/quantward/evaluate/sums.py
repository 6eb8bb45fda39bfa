"""The few weighted sums that every metric is made of, and the metrics made from them, for many weightings at once.

Confusion cells, calibration bins, squared errors and the weights between one positive and the next in the order of
scores are all linear in the image weights. So a model is sorted once and becomes sparse matrices; a block of
replicates is one product of those with the weights (n, width), and all metrics share it. Sums of weights are whole
numbers, exact in any order, so tied scores stay tied to the last bit.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from quantward.core.values import FloatArray, IntArray
from quantward.evaluate.metrics import BINS, OVERALL, PER_CLASS, bin_of, debiased_gap, predicted

CHUNK = 16
"""Steps of a ranking that are worked on at once, so that their rows stay in the innermost caches."""

Matrix = Any
Block = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Ranking:
    """One class's positives in order of score, best first; `steps` rows, one a distinct score that a positive has.

    `matrix` (2 steps + tied, n) sums, for each step, the negatives from the step before down to this score (the tied
    ones included), then the positives at this score, then, for the steps in `tied`, the negatives tied with them.
    """

    matrix: Matrix
    steps: int
    tied: npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Sums:
    """One model's predictions as sparse matrices (rows, n): `cells` of the confusion, `counts` and `gaps` of the
    calibration bins, `squares` of the Brier score, `rankings` by class. None where no wanted metric needs it."""

    classes: int
    cells: Matrix
    counts: Matrix | None
    gaps: Matrix | None
    squares: Matrix | None
    rankings: tuple[Ranking, ...] | None


def sums(truth: IntArray, probabilities: FloatArray, wanted: Collection[str] = OVERALL) -> Sums:
    """Sort one model's predictions once and lay out the sums that the `wanted` metrics need."""
    truth = np.asarray(truth)
    n, classes = probabilities.shape
    every = np.arange(n)
    cells = _sparse(truth * classes + predicted(probabilities), every, np.ones(n, np.float32), classes * classes, n)
    counts = gaps = squares = None
    hit = truth[:, None] == np.arange(classes)
    if {"ece", "ece_debiased"} & set(wanted):
        place = bin_of(probabilities) + BINS * np.arange(classes)
        columns = np.repeat(every, classes)
        gap = (probabilities - hit).astype(np.float64)
        gaps = _sparse(place.ravel(), columns, gap.ravel(), BINS * classes, n)
        if "ece_debiased" in wanted:
            signed = place + BINS * classes * hit
            counts = _sparse(signed.ravel(), columns, np.ones(n * classes, np.float32), 2 * BINS * classes, n)
    if "brier" in wanted:
        rows = np.repeat(np.arange(classes), n)
        squares = _sparse(rows, np.tile(every, classes), ((probabilities - hit) ** 2).T.ravel(), classes, n)
    rankings = None
    if {"auroc", "auprc"} & set(wanted):
        rankings = tuple(_ranking(hit[:, k], probabilities[:, k]) for k in range(classes))
    return Sums(classes, cells, counts, gaps, squares, rankings)


def _sparse(rows: IntArray, columns: IntArray, data: npt.NDArray[Any], height: int, n: int) -> Matrix:
    """A CSR matrix whose rows hold their columns in rising order, so that sums always run in the same order."""
    from scipy.sparse import csr_array

    order = np.argsort(rows, kind="stable")
    starts = np.zeros(height + 1, np.int32)
    np.cumsum(np.bincount(rows, minlength=height), out=starts[1:])
    return csr_array((data[order], columns[order].astype(np.int32), starts), shape=(height, n))


def _ranking(positive: npt.NDArray[np.bool_], score: FloatArray) -> Ranking:
    n = len(score)
    order = np.argsort(-score, kind="stable")
    ranked, hits = score[order], positive[order]
    group = np.zeros(n, np.int64)
    np.cumsum(ranked[1:] != ranked[:-1], out=group[1:])
    with_hits = np.unique(group[hits])
    steps = len(with_hits)
    step = np.searchsorted(with_hits, group)
    inside = step < steps
    tie = np.zeros(n, np.bool_)
    tie[inside] = with_hits[step[inside]] == group[inside]
    tie &= ~hits
    tied = np.unique(step[tie])
    negatives = inside & ~hits
    rows = np.concatenate(
        [step[negatives], steps + step[hits], 2 * steps + np.searchsorted(tied, step[tie])],
    )
    columns = np.concatenate([order[negatives], order[hits], order[tie]])
    data = np.ones(len(rows), np.float32)
    return Ranking(_sparse(rows, columns, data, 2 * steps + len(tied), n), steps, tied)


@dataclass(frozen=True, eq=False)
class Totals:
    """The sums of one model for a block of weightings: what a product of `Sums` with the weights (n, width) gives.

    `cells` (classes^2, width), `counts` (2 * classes * bins, width), `gaps` (classes * bins, width), `squares`
    (classes, width); `wrong` and `area` (classes, width) are the numerators of 1 - AUROC and of average precision.
    """

    cells: Block
    counts: Block | None
    gaps: Block | None
    squares: Block | None
    wrong: Block | None
    area: Block | None


def totals_of(model: Sums, weights: npt.NDArray[np.float32], exact: Block | None = None) -> Totals:
    """Multiply one model's sums with weights (n, width): whole numbers, below 2^24 in all a column.

    `exact` may hold the same weights in float64, where several models share them.
    """
    wrong = area = None
    if exact is None and (model.gaps is not None or model.squares is not None):
        exact = weights.astype(np.float64)
    if model.rankings is not None:
        wrong, area = (np.empty((model.classes, weights.shape[1])) for _ in range(2))
        for k, ranking in enumerate(model.rankings):
            wrong[k], area[k] = _areas(ranking, weights)
    return Totals(
        (model.cells @ weights).astype(np.float64),
        None if model.counts is None else (model.counts @ weights).astype(np.float64),
        None if model.gaps is None else model.gaps @ exact,
        None if model.squares is None else model.squares @ exact,
        wrong,
        area,
    )


def metrics_of(
    totals: Totals, classes: int, wanted: Collection[str] = OVERALL
) -> tuple[dict[str, Block], dict[str, Block]]:
    """All `wanted` metrics of each weighting: overall (width,) and per class (classes, width); NaN where undefined."""
    found: dict[str, Block] = {}
    each: dict[str, Block] = {}
    cells = totals.cells.reshape(classes, classes, -1)
    positives, called = cells.sum(axis=1), cells.sum(axis=0)
    total = positives.sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        _from_cells(cells, positives, called, total, found, each)
        if totals.squares is not None:
            each["brier"] = totals.squares / total
            found["brier"] = each["brier"].sum(axis=0)
        if totals.gaps is not None:
            gaps = totals.gaps.reshape(classes, BINS, -1)
            each["ece"] = np.abs(gaps).sum(axis=1) / total
            if totals.counts is not None:
                split = totals.counts.reshape(2, classes, BINS, -1)
                each["ece_debiased"] = debiased_gap(gaps, split[1], split[0] + split[1]).sum(axis=1) / total
        if totals.wrong is not None and totals.area is not None:
            each["auroc"] = 1.0 - totals.wrong / (positives * (total - positives))
            each["auprc"] = totals.area / positives
    for name in each:
        if name not in found:
            found[name] = each[name].mean(axis=0)
    found = {name: found[name] for name in OVERALL if name in wanted}
    return found, {name: each[name] for name in PER_CLASS if name in wanted}


def _from_cells(
    cells: Block,
    positives: Block,
    called: Block,
    total: Block,
    found: dict[str, Block],
    each: dict[str, Block],
) -> None:
    """What the confusion cells (classes, classes, width) give: counts are exact, so equal counts give equal values."""
    hits = np.ascontiguousarray(cells.diagonal().T)
    right = hits.sum(axis=0)
    negatives = total - positives
    each["sensitivity"] = hits / positives
    each["specificity"] = (negatives - (called - hits)) / negatives
    each["f1"] = np.where(positives > 0, 2 * hits / (positives + called), np.nan)
    found["accuracy"] = right / total
    found["balanced_accuracy"] = each["sensitivity"].mean(axis=0)
    chance = (positives * called).sum(axis=0) / total
    found["kappa"] = np.where(total > chance, (right - chance) / (total - chance), np.nan)


def _areas(ranking: Ranking, weights: npt.NDArray[np.float32]) -> tuple[Block, Block]:
    """The numerators of 1 - AUROC and of average precision of one class for each column of `weights`.

    With T_j the weight of positives at step j, F_j that of negatives down to it and t_j that of those tied with it:
    1 - AUROC = sum of T_j (F_j - t_j / 2) / (P N), AP = sum of T_j C_j / (C_j + F_j) / P with C_j = T_1 + ... + T_j.
    """
    steps, width = ranking.steps, weights.shape[1]
    rows = ranking.matrix @ weights
    wrong, area = np.zeros(width), np.zeros(width)
    if len(ranking.tied):
        gain = rows[steps + ranking.tied].astype(np.float64)
        wrong -= np.sum(gain * rows[2 * steps :], axis=0) / 2
    false, hits = np.zeros((CHUNK + 1, width)), np.zeros((CHUNK + 1, width))
    for first in range(0, steps, CHUNK):
        many = min(CHUNK, steps - first)
        gain = hits[1 : many + 1] = rows[steps + first : steps + first + many]
        false[1 : many + 1] = rows[first : first + many]
        for j in range(many):
            # Whole-row additions are several times faster than cumsum(axis=0).
            false[j + 1] += false[j]
            hits[j + 1] += hits[j]
        above, found = false[1 : many + 1], hits[1 : many + 1]
        last = false[many].copy()
        wrong += np.sum(gain * above, axis=0)
        above += found
        np.maximum(above, 1.0, out=above)
        np.divide(found, above, out=above)
        above *= gain
        area += above.sum(axis=0)
        false[0], hits[0] = last, hits[many]
    return wrong, area
