"""The rules of `check`, one function a theme: each looks at what was seen of the images and yields flaws."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from quantward.core.values import Dataset, ImageArray, IntArray
from quantward.data._similar import SIDE

Pairs = tuple[tuple[int, int], ...]

SPLIT_ORDER = ("train", "val", "tune", "calibrate", "select", "test", "external")
FEW_IMAGES = 20
"""Below this many positives a 95 % interval does not cover what it says."""
IMBALANCE = 10.0
SPREAD = 4.0
SIZE_TELLS = 0.10
PATIENT_NOTES = ("patient tags present", "burned-in text declared")


@dataclass(frozen=True)
class Flaw:
    """One thing that is wrong: its code, how often, a sentence, and the ids concerned, one tuple a case."""

    code: str
    level: Literal["error", "warning"]
    count: int
    text: str
    cases: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True, eq=False)
class Look:
    """What is kept of one image after it was decoded."""

    digest: str = ""
    shape: tuple[int, int] = (0, 0)
    constant: bool = False
    small: ImageArray = field(default_factory=lambda: np.zeros((SIDE, SIDE), np.uint8))
    notes: tuple[str, ...] = ()
    refusal: str = ""


def file_flaws(dataset: Dataset, looks: list[Look]) -> Iterator[Flaw]:
    torn = [(dataset.ids[i], seen.refusal) for i, seen in enumerate(looks) if seen.refusal]
    if torn:
        yield Flaw(
            "unreadable", "error", len(torn), f"{_images(len(torn))} cannot be read. First: {torn[0][1]}", tuple(torn)
        )
    flat = tuple((dataset.ids[i],) for i, seen in enumerate(looks) if seen.constant)
    if flat:
        yield Flaw("constant", "warning", len(flat), f"{_images(len(flat))} show one colour only.", flat)
    noted: dict[str, list[tuple[str]]] = defaultdict(list)
    for i, seen in enumerate(looks):
        for note in seen.notes:
            noted[note].append((dataset.ids[i],))
    for note, cases in sorted(noted.items()):
        code = "patient-data" if note in PATIENT_NOTES else "converted"
        yield Flaw(code, "warning", len(cases), f"{_images(len(cases))}: {note}.", tuple(cases))


def copy_flaws(dataset: Dataset, picture: IntArray) -> Iterator[Flaw]:
    """Copies in all, with two labels, across splits, across groups."""
    same = _members(picture)
    names = [tuple(dataset.ids[i] for i in members) for members in same]
    copies = sum(len(members) - 1 for members in same)
    if copies:
        readable = int((picture >= 0).sum())
        yield Flaw(
            "duplicate", "warning", copies,
            f"{copies} of {readable} images are pixel-identical copies of others: "
            f"{readable - copies} different pictures.", tuple(names),
        )  # fmt: skip
    two = [k for k, members in enumerate(same) if len(set(dataset.labels[members].tolist())) > 1]
    if two:
        yield Flaw(
            "label-conflict", "error", len(two),
            f"{len(two)} {'picture has' if len(two) == 1 else 'pictures have'} more than one label: "
            f"{' and '.join(names[two[0]][:2])}{', ...' if len(two) > 1 else ''}.",
            tuple(names[k] for k in two),
        )  # fmt: skip
    for earlier, later in _split_pairs(dataset):
        cases = _shared(dataset, same, earlier, later)
        if cases:
            total = sum(split == later for split in dataset.splits or ())
            yield Flaw(
                "split-duplicate", "error", len(cases),
                f"{len(cases)} of the {total} {later} images are pixel-identical to {_split_word(earlier)} images.",
                tuple(cases),
            )  # fmt: skip
    if dataset.groups is not None:
        groups = dataset.groups
        many = [k for k, members in enumerate(same) if len({groups[i] for i in members}) > 1]
        if many:
            yield Flaw(
                "group-duplicate", "warning", len(many),
                f"{len(many)} pictures are filed under more than one group: a split by group alone would leak. "
                "Link the groups first.", tuple(names[k] for k in many),
            )  # fmt: skip


def near_flaws(dataset: Dataset, picture: IntArray, pairs: Pairs) -> Iterator[Flaw]:
    if not pairs:
        return
    yield Flaw(
        "near-duplicate", "warning", len(pairs),
        f"{len(pairs)} pairs of different pictures look almost the same (re-encoded, shifted or neighbouring slices).",
        tuple((dataset.ids[a], dataset.ids[b]) for a, b in pairs),
    )  # fmt: skip
    two = tuple((dataset.ids[a], dataset.ids[b]) for a, b in pairs if dataset.labels[a] != dataset.labels[b])
    if two:
        yield Flaw("near-conflict", "warning", len(two), f"{len(two)} almost identical pairs have two labels.", two)
    copies: dict[int, list[int]] = defaultdict(list)
    for i, first in enumerate(picture.tolist()):
        copies[first].append(i)
    joined = [[*copies[a], *copies[b]] for a, b in pairs]
    same = _members(picture)
    for earlier, later in _split_pairs(dataset):
        exact = {case[0] for case in _shared(dataset, same, earlier, later)}
        cases = {case[0]: case for case in _shared(dataset, joined, earlier, later) if case[0] not in exact}
        if cases:
            yield Flaw(
                "split-near-duplicate", "warning", len(cases),
                f"{len(cases)} further {later} images look almost the same as {_split_word(earlier)} images.",
                tuple(cases.values()),
            )  # fmt: skip


def group_flaws(dataset: Dataset, picture: IntArray, folds: int) -> Iterator[Flaw]:
    groups = dataset.groups
    if groups is not None and dataset.splits is not None:
        where: dict[str, set[str]] = defaultdict(set)
        for group, split in zip(groups, dataset.splits, strict=True):
            where[group].add(split)
        both = tuple((group,) for group, splits in sorted(where.items()) if len(splits) > 1)
        if both:
            yield Flaw(
                "split-group", "error", len(both),
                f"{len(both)} {'group has' if len(both) == 1 else 'groups have'} images in more than one split: "
                f"{both[0][0]}{', ...' if len(both) > 1 else ''}.", both,
            )  # fmt: skip
    names = np.asarray(groups if groups is not None else [str(first) for first in picture.tolist()])
    for k, label in enumerate(dataset.classes):
        having = len(set(names[(dataset.labels == k) & (picture >= 0)].tolist()))
        if 0 < having < folds:
            yield Flaw(
                "few-groups", "warning", having,
                f"Class {label!r} has {having} {'groups' if groups is not None else 'different pictures'}: "
                f"too few for {folds} folds.", ((label,),),
            )  # fmt: skip


def class_flaws(dataset: Dataset) -> Iterator[Flaw]:
    counts = np.bincount(dataset.labels, minlength=len(dataset.classes))
    present = counts[counts > 0]
    if len(present) == 1:
        only = dataset.classes[int(np.argmax(counts))]
        yield Flaw("one-class", "warning", 1, f"All images are {only!r}: only its sensitivity can be measured.")
    elif present.max() > IMBALANCE * present.min():
        most, least = int(np.argmax(counts)), int(np.argmin(np.where(counts > 0, counts, counts.max())))
        yield Flaw(
            "class-imbalance", "warning", int(counts[least]),
            f"{dataset.classes[most]!r} has {counts[most]} images and {dataset.classes[least]!r} {counts[least]}: "
            "accuracy will hide what happens to the rare class.", ((dataset.classes[least],),),
        )  # fmt: skip
    rare = [(name,) for name, count in zip(dataset.classes, counts, strict=True) if 0 < count < FEW_IMAGES]
    if rare:
        yield Flaw(
            "few-images", "warning", len(rare),
            f"Fewer than {FEW_IMAGES} images of {', '.join(name for name, in rare)}: nothing can be proved about it.",
            tuple(rare),
        )  # fmt: skip
    for split, present_in in by_split(dataset).items():
        absent = [name for name, count in present_in.items() if not count]
        if absent:
            place = f"Split {split!r}" if dataset.splits is not None else "The set"
            yield Flaw(
                "class-absent", "warning", len(absent),
                f"{place} has no image of {', '.join(absent)}: macro averages over it are undefined.",
                tuple((split, name) for name in absent),
            )  # fmt: skip


def size_flaws(dataset: Dataset, looks: list[Look]) -> Iterator[Flaw]:
    seen = [i for i, item in enumerate(looks) if not item.refusal]
    if not seen:
        return
    sides = np.array([looks[i].shape for i in seen])
    small, large = int(sides.min()), int(sides.max())
    if large > SPREAD * small:
        yield Flaw(
            "size-spread", "warning", len(np.unique(sides, axis=0)),
            f"Sides range from {small} to {large} pixels: resizing makes some pictures much softer than others.",
        )  # fmt: skip
    labels = dataset.labels[seen]
    names = dataset.groups if dataset.groups is not None else dataset.ids
    _, cell = np.unique(sides, axis=0, return_inverse=True)
    _, own = np.unique([f"{c} {names[i]}" for c, i in zip(cell.tolist(), seen, strict=True)], return_inverse=True)
    # An image is guessed from other patients' images of its size: one patient's scans share size and class anyhow.
    others = _tally(cell, labels, len(dataset.classes)) - _tally(own, labels, len(dataset.classes))
    usual = int(np.argmax(np.bincount(labels)))
    guess = np.where(others.sum(1) >= FEW_IMAGES, others.argmax(1), usual)
    right, base = float((guess == labels).mean()), float((labels == usual).mean())
    if right - base >= SIZE_TELLS:
        yield Flaw(
            "size-tells-class", "warning", int((guess == labels).sum()),
            f"The image size alone gives the class of {right:.0%} of the images (the commonest class: {base:.0%}): "
            "a network may learn the scanner or the source instead of the disease.",
        )  # fmt: skip


def _tally(cell: IntArray, labels: IntArray, classes: int) -> IntArray:
    """For each image, how many images of each class share its cell: shape (n, classes)."""
    table = np.zeros((int(cell.max()) + 1, classes), np.int64)
    np.add.at(table, (cell, labels), 1)
    return np.asarray(table[cell])


def _members(picture: IntArray) -> list[list[int]]:
    """Images by picture, only pictures that occur more than once."""
    found: dict[int, list[int]] = defaultdict(list)
    for i, first in enumerate(picture.tolist()):
        if first >= 0:
            found[first].append(i)
    return [members for members in found.values() if len(members) > 1]


def _split_pairs(dataset: Dataset) -> Iterator[tuple[str, str]]:
    """Every two published splits, the one that is trained on first."""
    if dataset.splits is None:
        return
    known = {name: k for k, name in enumerate(SPLIT_ORDER)}
    names = sorted(set(dataset.splits), key=lambda name: (known.get(name, len(known)), name))
    for k, earlier in enumerate(names):
        for later in names[k + 1 :]:
            yield earlier, later


def _shared(dataset: Dataset, sets: Iterable[list[int]], earlier: str, later: str) -> list[tuple[str, str]]:
    """(image of `later`, an image of `earlier` in the same set), one for each image of `later` that has one."""
    splits = dataset.splits or ()
    found = []
    for members in sets:
        first = next((i for i in members if splits[i] == earlier), None)
        if first is not None:
            found += [(i, first) for i in members if splits[i] == later]
    return [(dataset.ids[i], dataset.ids[first]) for i, first in sorted(found)]


def by_split(dataset: Dataset) -> dict[str, dict[str, int]]:
    splits = dataset.splits or ("all",) * len(dataset)
    seen = Counter(zip(splits, dataset.labels.tolist(), strict=True))
    return {split: {name: seen[split, k] for k, name in enumerate(dataset.classes)} for split in sorted(set(splits))}


def _split_word(split: str) -> str:
    return "training" if split == "train" else split


def _images(count: int) -> str:
    return f"{count} image" if count == 1 else f"{count} images"
