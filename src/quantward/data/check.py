"""Looks at every image and says what is wrong with a data set before anybody trains on it.

Public medical sets leak: copies across the published split, one photo under eleven patients, one picture with two
labels. None of it shows in the accuracy, except as a better one. Everything here is found from the decoded pixels,
so that re-saved files and missing patient lists do not hide it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from quantward.core.errors import Refused
from quantward.core.progress import Track, silent
from quantward.core.values import Dataset, IntArray
from quantward.data import _flaws
from quantward.data._files import threaded
from quantward.data._flaws import Flaw, Look, Pairs
from quantward.data._images import look
from quantward.data._similar import near_pairs, thumbnail


@dataclass(frozen=True, eq=False)
class Report:
    """What `check` saw. `picture[i]` is the first image with the same pixels as image i, -1 for an unreadable one;
    `near` holds pairs of first images that look alike; `counts` is split -> class -> images ("all" without splits)."""

    dataset: str
    fingerprint: str
    n: int
    readable: int
    distinct: int
    counts: Mapping[str, Mapping[str, int]]
    flaws: tuple[Flaw, ...]
    picture: IntArray = field(repr=False)
    near: Pairs = field(repr=False)

    @property
    def errors(self) -> tuple[Flaw, ...]:
        """The flaws that make a result on these images worthless."""
        return tuple(flaw for flaw in self.flaws if flaw.level == "error")

    @property
    def warnings(self) -> tuple[Flaw, ...]:
        """The flaws one should know of."""
        return tuple(flaw for flaw in self.flaws if flaw.level == "warning")

    @property
    def duplicates(self) -> int:
        """How many readable images are copies of an earlier one."""
        return self.readable - self.distinct


def check(dataset: Dataset, *, folds: int = 5, near: bool = True, track: Track = silent) -> Report:
    """Decode every image once and report faults; `near=False` skips the search for look-alikes.

    `folds` is how many folds one means to make: a class with fewer groups gets a warning. Never raises for a bad
    image; that is a flaw of its own.
    """
    count = len(dataset)
    looks = list(track(threaded(lambda i: _look(dataset, i), range(count)), "checking images", count))
    picture = _first_of_each(looks)
    firsts = np.flatnonzero(picture == np.arange(len(looks)))
    pairs: Pairs = ()
    if near and len(firsts):
        alike = near_pairs(np.stack([looks[i].small for i in firsts]))
        pairs = tuple((int(firsts[a]), int(firsts[b])) for a, b in alike)
    flaws = [
        *_flaws.file_flaws(dataset, looks),
        *_flaws.copy_flaws(dataset, picture),
        *_flaws.near_flaws(dataset, picture, pairs),
        *_flaws.group_flaws(dataset, picture, folds),
        *_flaws.class_flaws(dataset),
        *_flaws.size_flaws(dataset, looks),
    ]
    return Report(
        dataset=dataset.name,
        fingerprint=dataset.fingerprint,
        n=len(dataset),
        readable=int((picture >= 0).sum()),
        distinct=len(firsts),
        counts=_flaws.by_split(dataset),
        flaws=tuple(sorted(flaws, key=lambda flaw: flaw.level)),
        picture=picture,
        near=pairs,
    )


def _look(dataset: Dataset, i: int) -> Look:
    try:
        seen = look(dataset.reader, i)
    except Refused as error:
        return Look(refusal=str(error))
    pixels = seen.pixels
    whole = hashlib.sha256(repr(pixels.shape).encode())
    whole.update(np.ascontiguousarray(pixels).data)
    return Look(
        digest=whole.hexdigest(),
        shape=(pixels.shape[0], pixels.shape[1]),
        constant=bool((pixels == pixels[0, 0]).all()),
        small=thumbnail(pixels),
        notes=seen.notes,
    )


def _first_of_each(looks: list[Look]) -> IntArray:
    first: dict[str, int] = {}
    return np.array([first.setdefault(seen.digest, i) if seen.digest else -1 for i, seen in enumerate(looks)], np.int64)
