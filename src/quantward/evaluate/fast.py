"""The bootstrap's sums, compiled: the same values as `sums.totals_of`, 16 replicates side by side in one cache line.

Needs Numba (extra `fast`). The loops add in the same order as the NumPy path and use no fused or reordered
arithmetic, so both paths agree to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from quantward.core.errors import UsageError
from quantward.evaluate.draws import Units
from quantward.evaluate.sums import CHUNK, Sums, Totals

try:
    import numba
except Exception as error:  # a Numba that does not fit its NumPy fails in more ways than ImportError
    raise UsageError(
        f"Expected Numba for engine 'numba'; it cannot be loaded ({error}). pip install 'quantward[fast]'."
    ) from None

LANES = 16


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile without the interpreter lock; keep the machine code on disk where a folder for it can be written."""
    try:
        made: Callable[..., Any] = numba.njit(nogil=True, cache=True)(function)
    except RuntimeError:
        made = numba.njit(nogil=True)(function)
    return made


def totals(laid_out: Sequence[Sums], base: np.uint64, first: int, width: int, from_: Units) -> list[Totals]:
    """`Totals` of every model for replicates first, ..., first + width - 1."""
    found = [_empty(model, width) for model in laid_out]
    drawn = np.empty((from_.count, LANES), np.int32)
    n = laid_out[0].cells.shape[1]
    weights = drawn if from_.unit is None else np.empty((n, LANES), np.int32)
    for column in range(0, width, LANES):
        lanes = min(LANES, width - column)
        _draw(np.uint64(base), first + column, from_.start, from_.size, drawn)
        if from_.unit is not None:
            np.take(drawn, from_.unit, axis=0, out=weights)
        for model, into in zip(laid_out, found, strict=True):
            for matrix, out in (
                (model.cells, into.cells),
                (model.counts, into.counts),
                (model.gaps, into.gaps),
                (model.squares, into.squares),
            ):
                if matrix is not None and out is not None:
                    _multiply(matrix.indptr, matrix.indices, matrix.data, weights, out, column, lanes)
            if model.rankings is not None and into.wrong is not None and into.area is not None:
                for k, ranking in enumerate(model.rankings):
                    matrix = ranking.matrix
                    _areas(
                        matrix.indptr,
                        matrix.indices,
                        ranking.steps,
                        ranking.tied,
                        weights,
                        into.wrong[k, column : column + lanes],
                        into.area[k, column : column + lanes],
                    )
    return found


def _empty(model: Sums, width: int) -> Totals:
    def like(matrix: Any) -> Any:
        return None if matrix is None else np.empty((matrix.shape[0], width))

    areas = [None if model.rankings is None else np.empty((model.classes, width)) for _ in range(2)]
    return Totals(like(model.cells), like(model.counts), like(model.gaps), like(model.squares), areas[0], areas[1])


@_compiled
def _draw(base: Any, first: Any, start: Any, size: Any, into: Any) -> None:
    """Count draws: `into` (count, LANES); the words and halves are those of `draws.drawn`."""
    count = into.shape[0]
    half = (count + 1) // 2
    into[:] = 0
    for lane in range(LANES):
        counter = np.uint64(first + lane) * np.uint64(half)
        for i in range(half):
            counter += np.uint64(1)
            z = counter * np.uint64(0x9E3779B97F4A7C15) + base
            z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            z = z ^ (z >> np.uint64(31))
            j = 2 * i
            low = start[j] + (((z & np.uint64(0xFFFFFFFF)) * size[j]) >> np.uint64(32))
            into[np.int64(low), lane] += np.int32(1)
            if j + 1 < count:
                high = start[j + 1] + (((z >> np.uint64(32)) * size[j + 1]) >> np.uint64(32))
                into[np.int64(high), lane] += np.int32(1)


@_compiled
def _multiply(starts: Any, indices: Any, data: Any, weights: Any, out: Any, column: Any, lanes: Any) -> None:
    """out[:, column : column + lanes] = the sparse matrix times `weights` (n, LANES)."""
    whole = np.empty(LANES, np.float64)
    for row in range(out.shape[0]):
        whole[:] = 0.0
        for place in range(starts[row], starts[row + 1]):
            image, value = indices[place], np.float64(data[place])
            for lane in range(LANES):
                whole[lane] += value * weights[image, lane]
        for lane in range(lanes):
            out[row, column + lane] = whole[lane]


@_compiled
def _areas(starts: Any, indices: Any, steps: Any, tied: Any, weights: Any, wrong: Any, area: Any) -> None:
    """The numerators of 1 - AUROC and of average precision, as in `sums`, for up to LANES weightings."""
    false, hits, gain = np.zeros(LANES, np.int32), np.zeros(LANES, np.int32), np.zeros(LANES, np.int32)
    bad, part, whole = np.zeros(LANES), np.zeros(LANES), np.zeros(LANES)
    for step in range(steps):
        for place in range(starts[step], starts[step + 1]):
            image = indices[place]
            for lane in range(LANES):
                false[lane] += weights[image, lane]
        gain[:] = 0
        for place in range(starts[steps + step], starts[steps + step + 1]):
            image = indices[place]
            for lane in range(LANES):
                gain[lane] += weights[image, lane]
        for lane in range(LANES):
            hits[lane] += gain[lane]
            worth, above, found = np.float64(gain[lane]), np.float64(false[lane]), np.float64(hits[lane])
            bad[lane] += worth * above
            part[lane] += found / max(above + found, 1.0) * worth
        if step % CHUNK == CHUNK - 1 or step == steps - 1:
            for lane in range(LANES):
                whole[lane] += part[lane]
                part[lane] = 0.0
    for number in range(len(tied)):
        gain[:] = 0
        for place in range(starts[steps + tied[number]], starts[steps + tied[number] + 1]):
            for lane in range(LANES):
                gain[lane] += weights[indices[place], lane]
        false[:] = 0
        for place in range(starts[2 * steps + number], starts[2 * steps + number + 1]):
            for lane in range(LANES):
                false[lane] += weights[indices[place], lane]
        for lane in range(LANES):
            bad[lane] -= np.float64(gain[lane]) * np.float64(false[lane]) / 2
    for lane in range(len(wrong)):
        wrong[lane] = bad[lane]
        area[lane] = whole[lane]
