"""Which images a bootstrap replicate drew, as weights: drawn from a counter, so that any replicate can be made alone.

Replicate b's draws are a pure function of (seed, b): hash a counter that never repeats within a run (the finaliser of
SplitMix64, Steele et al. 2014) and scale each 32-bit half to an index (Lemire 2019; the bias is below n / 2^32).
So results depend neither on blocks nor on threads, and no generator state has to be kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)

_CACHED = 2**15
"""Draws that are made at once: as many as stay in the innermost caches."""

Words = npt.NDArray[np.uint64]


def mixed(words: Words) -> Words:
    """The SplitMix64 finaliser, in place: uint64 (n,) -> uint64 (n,).

    >>> hex(mixed(np.array([0x9E3779B97F4A7C15], np.uint64))[0])
    '0xe220a8397b1dcdaf'
    """
    words ^= words >> np.uint64(30)
    words *= _FIRST
    words ^= words >> np.uint64(27)
    words *= _SECOND
    words ^= words >> np.uint64(31)
    return words


def base_of(seed: int) -> np.uint64:
    """Where the counter of this seed starts."""
    start = np.array([seed % 2**64], np.uint64)
    start += _GOLDEN
    return np.uint64(mixed(start)[0])


@dataclass(frozen=True, eq=False)
class Units:
    """What is drawn: patients or images, within strata. Draw j takes one of the `size[j]` units from `start[j]` on.

    `unit` (n,) is the unit of each image, None where every image is its own unit in the given order.
    """

    count: int
    start: Words
    size: Words
    unit: npt.NDArray[np.int64] | None


def units(n: int, groups: Sequence[str] | None = None, strata: npt.NDArray[np.integer] | None = None) -> Units:
    """The units of n images: single images, or whole `groups` (patients); drawn within `strata` where given.

    A group whose images lie in several strata forms a stratum with the groups of the same make-up, so that a
    stratified draw keeps every stratum's number of groups.
    """
    unit: npt.NDArray[np.int64] = np.arange(n)
    if groups is not None:
        _, unit = np.unique(np.asarray(groups, dtype=object).astype(str), return_inverse=True)
    count = int(unit.max()) + 1 if n else 0
    if strata is None:
        start, size = np.zeros(count, np.uint64), np.full(count, count, np.uint64)
        return Units(count, start, size, None if groups is None else unit.astype(np.int64))
    members: list[set[int]] = [set() for _ in range(count)]
    for place, stratum in zip(unit.tolist(), np.asarray(strata).tolist(), strict=True):
        members[place].add(stratum)
    keys = [tuple(sorted(member)) for member in members]
    order = sorted(range(count), key=lambda place: (keys[place], place))
    position = np.empty(count, np.int64)
    position[order] = np.arange(count)
    start, size = np.zeros(count, np.uint64), np.zeros(count, np.uint64)
    first = 0
    while first < count:
        last = first
        while last < count and keys[order[last]] == keys[order[first]]:
            last += 1
        start[first:last], size[first:last] = first, last - first
        first = last
    return Units(count, start, size, position[unit])


def drawn(base: np.uint64, first: int, many: int, from_: Units) -> npt.NDArray[np.int64]:
    """The units of replicates first, ..., first + many - 1, shape (many, count), with repeats."""
    half = (from_.count + 1) // 2
    words = np.arange(first * half + 1, (first + many) * half + 1, dtype=np.uint64)
    words *= _GOLDEN
    words += base
    halves = mixed(words).astype("<u8", copy=False).view("<u4").reshape(many, 2 * half)
    picks = halves[:, : from_.count].astype(np.uint64)
    picks *= from_.size
    picks >>= np.uint64(32)
    picks += from_.start
    return picks.view(np.int64)


def weights(base: np.uint64, first: int, width: int, from_: Units) -> npt.NDArray[np.float32]:
    """How often replicates first, ..., first + width - 1 drew each image: (n, width), whole numbers in float32."""
    count = from_.count
    table = np.empty((width, count), np.float32)
    step = max(1, _CACHED // max(count, 1))
    for row in range(0, width, step):
        many = min(step, width - row)
        picks = drawn(base, first + row, many, from_)
        picks += count * np.arange(many)[:, None]
        table[row : row + many] = np.bincount(picks.ravel(), minlength=many * count).reshape(many, count)
    whole = np.ascontiguousarray(table.T)
    return whole if from_.unit is None else whole[from_.unit]


def left_out(first: int, width: int, folds: npt.NDArray[np.int64], from_: Units) -> npt.NDArray[np.float32]:
    """Jackknife weights: column j is 1 but for the units of fold first + j, which are 0. `folds` is (count,)."""
    keep: npt.NDArray[np.float32] = (folds[:, None] != np.arange(first, first + width)).astype(np.float32)
    return keep if from_.unit is None else keep[from_.unit]
