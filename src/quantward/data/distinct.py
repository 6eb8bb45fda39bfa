"""From a checked data set to a leak-free one: groups that share pictures are linked, each picture is kept once."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from quantward.core.errors import Refused, UsageError
from quantward.core.values import ROLES, Dataset, Fold, IntArray
from quantward.data._flaws import SPLIT_ORDER
from quantward.data.check import Report
from quantward.data.dataset import subset
from quantward.data.folds import Groups
from quantward.data.table import read_rows, write_table

COLUMNS = ("path", "label", "split", "group")


@dataclass(frozen=True, eq=False)
class Distinct:
    """Which images stay when each picture is kept once, and how many went for which reason."""

    indices: IntArray
    copies: int
    conflicts: int
    unreadable: int

    @property
    def sentence(self) -> str:
        """What was left out, in words."""
        return (
            f"{len(self.indices)} different pictures kept; left out: {self.copies} copies, "
            f"{self.conflicts} images whose picture has two labels, {self.unreadable} unreadable."
        )


def link_groups(dataset: Dataset, report: Report, *, near: bool = False) -> tuple[str, ...]:
    """One group an image: the dataset's own groups, joined wherever they share a picture.

    With `near`, look-alikes are joined too. Groups are joined transitively and named after the first (by name) of
    those that were joined; without groups every image starts as one, named after its id.
    """
    _same(dataset, report)
    own = dataset.groups if dataset.groups is not None else dataset.ids
    parent = {name: name for name in own}

    def top(name: str) -> str:
        while parent[name] != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    def join(a: int, b: int) -> None:
        first, second = sorted((top(own[a]), top(own[b])))
        parent[second] = first

    for i, first in enumerate(report.picture.tolist()):
        if first >= 0:
            join(first, i)
    for a, b in report.near if near else ():
        join(a, b)
    return tuple(top(name) for name in own)


def distinct(dataset: Dataset, report: Report) -> Distinct:
    """One image for each different picture; pictures with two labels and unreadable files are left out altogether.

    Of several copies the one in the test split is kept, so that a published test set stays whole and the copies
    leave the training set; otherwise the first.
    """
    _same(dataset, report)
    members: dict[int, list[int]] = defaultdict(list)
    for i, first in enumerate(report.picture.tolist()):
        members[first].append(i)
    unreadable = len(members.pop(-1, []))
    kept: list[int] = []
    conflicts = 0
    for copies in members.values():
        if len(set(dataset.labels[copies].tolist())) > 1:
            conflicts += len(copies)
        else:
            kept.append(min(copies, key=lambda i: (-_rank(dataset, i), i)))
    copies_left_out = len(dataset) - unreadable - conflicts - len(kept)
    return Distinct(np.array(sorted(kept), np.int64), copies_left_out, conflicts, unreadable)


def _rank(dataset: Dataset, i: int) -> int:
    split = dataset.splits[i] if dataset.splits is not None else ""
    return SPLIT_ORDER.index(split) if split in SPLIT_ORDER else -1


def leak_free(dataset: Dataset, report: Report, *, near: bool = True) -> tuple[Dataset, Distinct]:
    """The dataset with each picture once and with linked groups, ready to be split, and what was left out.

    Published splits are kept as they are; make a fold of your own where `check` found them leaking.
    """
    groups = link_groups(dataset, report, near=near)
    kept = distinct(dataset, report)
    clean = subset(dataset, kept.indices, groups=[groups[i] for i in kept.indices.tolist()])
    return clean, kept


def write_split(dataset: Dataset, fold: Fold, path: Path | str, *, groups: Groups | None = None) -> Path:
    """Write which image plays which role as CSV (`path,label,split,group`), atomically; without a role, no row.

    `path` is the image's id. Lying in the data's own folder the file opens by itself; elsewhere give its folder as
    `open_dataset(csv, root=DATA)`, or lay it over an opened dataset of any format: `with_split(dataset, csv)`.
    """
    names = groups if groups is not None else dataset.groups if dataset.groups is not None else dataset.ids
    role = {i: name for name in ROLES for i in fold.role(name).tolist()}
    rows = [
        {"path": dataset.ids[i], "label": dataset.classes[dataset.labels[i]], "split": role[i], "group": names[i]}
        for i in sorted(role)
    ]
    write_table(path, rows, COLUMNS)
    return Path(path)


def with_split(dataset: Dataset, path: Path | str) -> Dataset:
    """The images that a split CSV lists, in its order, with its splits and groups; attributes stay.

    Raises Refused, with the line, for an image or a label that the dataset does not have.
    """
    path = Path(path)
    position = {name: i for i, name in enumerate(dataset.ids)}
    rows = read_rows(path, required=COLUMNS)
    if not rows:
        raise Refused(f"Expected rows below the header of {path}; there are none. Write the split anew.")
    indices: dict[int, int] = {}
    for line, row in rows:
        i = position.get(row["path"])
        if i is None:
            raise Refused(
                f"Expected in {path}, line {line}, an image of {dataset.name}; got {row['path']!r}. Split anew."
            )
        label = dataset.classes[dataset.labels[i]]
        if row["label"] != label:
            raise Refused(
                f"Expected in {path}, line {line}, the label {label!r} for {row['path']!r}; got {row['label']!r}. "
                "Split anew."
            )
        if i in indices:
            raise Refused(f"Expected each image once in {path}; line {line} repeats line {indices[i]}. Keep one row.")
        indices[i] = line
    groups, splits = ([row[key] for _, row in rows] for key in ("group", "split"))
    return subset(dataset, list(indices), groups=groups, splits=splits)


def _same(dataset: Dataset, report: Report) -> None:
    if report.fingerprint != dataset.fingerprint:
        raise UsageError(f"Expected the report on {dataset.name}; got one on other images. Check the dataset anew.")
