"""The images of a step: opened as its study says, dealt into the very fold that the step names.

A step holds of its fold only the number, of how many, the seed and the shares: all that a fold is drawn from. So any
machine draws it again, and it is the fold that was trained on.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from quantward.core.progress import Track, silent
from quantward.core.values import Fold
from quantward.data import SHARES, make_folds, published_fold
from quantward.data import split as draw_one
from quantward.runs import Prepared, prepare


def how_split(split: str, of: int) -> str:
    """The split with which `runs.prepare` opens the images of a step: with several folds every image is tested once,
    so a published split plays no part.

    >>> how_split("auto", 5), how_split("auto", 1), how_split("ungrouped", 5)
    ('own', 'auto', 'ungrouped')
    """
    return "own" if of > 1 and split == "auto" else split


def opened(place: Path, split: str, of: int, *, track: Track = silent) -> Prepared:
    """The images at `place` as a step of a study with `of` folds uses them."""
    return prepare(place, how_split(split, of), track=track)


def fold_of(images: Prepared, asked: Mapping[str, Any]) -> Fold:
    """The fold that a step is asked about: `number`, `of`, `seed` and, where the study says so, `shares`."""
    shares = {**SHARES, **asked["shares"]} if asked.get("shares") else SHARES
    seed, dataset = int(asked["seed"]), images.dataset
    if asked["of"] > 1:
        return make_folds(dataset, folds=asked["of"], seed=seed, shares=shares)[int(asked["number"])]
    if images.published:
        return published_fold(dataset, seed=seed, shares=shares)
    return draw_one(dataset, seed=seed, shares=shares)
