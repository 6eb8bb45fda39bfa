"""How many times as fast one file is as another, with an interval, from rounds in which both had their turn.

Times of two files in one round share the machine's mood, so rounds are resampled and not single calls: what is left in
the interval is what the machine's mood does to the ratio.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from quantward.core.values import Efficiency, Latency, Speedup

REPLICATES = 2000
EAGER = "torch-float"
"""The runtime whose FP32 is PyTorch eager, as papers report it."""


def ratio(reference: Sequence[float], own: Sequence[float], *, seed: int = 0) -> tuple[float, float, float]:
    """Median of the reference's rounds over the median of our rounds, and the 95 % percentile interval over 2,000
    bootstrap samples of rounds, the same rounds for both.

    >>> ratio([8.0, 8.2, 7.8, 8.0], [2.0, 2.05, 1.95, 2.0])
    (4.0, 4.0, 4.0)
    """
    pairs = np.array([reference, own], np.float64)
    drawn = np.random.default_rng(seed).integers(0, pairs.shape[1], (REPLICATES, pairs.shape[1]))
    over = np.median(pairs[:, drawn], axis=2)
    low, high = np.percentile(over[0] / over[1], [2.5, 97.5])
    middle = np.median(pairs, axis=1)
    return float(middle[0] / middle[1]), float(low), float(high)


def with_speedups(rows: Sequence[Efficiency], *, seed: int = 0) -> tuple[Efficiency, ...]:
    """Each row against FP32 of the same network on the same runtime, and against PyTorch eager FP32, as far as such
    rows are among these; where there is no FP32 at all, against the first row. Threads must be the same."""
    found = []
    for row in rows:
        against = [other for other in _references(row, rows) if other is not row]
        speedups = [one for other in against for one in _speedups(row, other, seed)]
        found.append(replace(row, speedups=tuple(speedups)))
    return tuple(found)


def same_runtime(row: Efficiency, rows: Sequence[Efficiency]) -> Efficiency | None:
    """FP32 of the same network on the same runtime, with the same options where there is such a row, else with none."""
    floats = [other for other in _alike(row, rows) if _is_float(other) and _library(other) == _library(row)]
    exact = [other for other in floats if other.runtime == row.runtime]
    pinned = [other for other in floats if other.runtime == _library(row)]
    return next(iter(pinned + exact + floats), None)


def _references(row: Efficiency, rows: Sequence[Efficiency]) -> list[Efficiency]:
    beside = same_runtime(row, rows)
    eager = next((other for other in _alike(row, rows) if _is_float(other) and _library(other) == EAGER), None)
    found = [other for other in (beside, eager) if other is not None]
    if not found and rows and not any(_is_float(other) for other in rows):
        return [rows[0]]
    return found[:1] if len(found) == 2 and found[0] is found[1] else found


def _alike(row: Efficiency, rows: Sequence[Efficiency]) -> list[Efficiency]:
    """Rows of the same network with the same threads that have times."""
    return [r for r in rows if r.latency and r.parent == row.parent and r.threads == row.threads
            and r.machine == row.machine]  # fmt: skip


def _is_float(row: Efficiency) -> bool:
    return row.recipe == "fp32"


def _library(row: Efficiency) -> str:
    return row.runtime.partition(":")[0]


def _speedups(row: Efficiency, reference: Efficiency, seed: int) -> list[Speedup]:
    name = f"{reference.name} on {reference.runtime}"
    theirs = {item.batch: item for item in reference.latency}
    return [
        Speedup(name, item.batch, *ratio(theirs[item.batch].rounds, item.rounds, seed=seed), len(item.rounds))
        for item in row.latency
        if item.batch in theirs and _paired(item, theirs[item.batch])
    ]


def _paired(one: Latency, two: Latency) -> bool:
    """Whether both were timed in the same rounds."""
    return len(one.rounds) == len(two.rounds) > 0 and min(*one.rounds, *two.rounds) > 0
