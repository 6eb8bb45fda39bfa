"""Pictures of a published set to a DATA folder: files in place, `images.csv` with split, group and attributes."""

from __future__ import annotations

import errno
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from quantward.core.errors import Refused
from quantward.core.progress import Track, silent
from quantward.data.table import read_rows, write_table
from quantward.fetch.values import Item

PLAIN = re.compile(r"[^/\\\0]+(/[^/\\\0]+)*")


def build(items: Iterable[Item], folder: Path, *, own: Path, total: int, track: Track = silent) -> Counter[str]:
    """Put every picture into `folder` and write its `images.csv`; what was put there by class, split and "split/class".

    Files below `own` are moved (they are ours), others copied. Raises Refused for no picture at all, two pictures in
    one place, and a full disk.
    """
    rows: list[dict[str, str]] = []
    counts: Counter[str] = Counter()
    seen: set[str] = set()
    try:
        for item in track(items, "arranging images", total):
            key = item.path.casefold()
            if key in seen or not PLAIN.fullmatch(item.path) or ".." in item.path.split("/"):
                raise Refused(
                    f"Expected a place of its own for each image; {item.path!r} is taken or no path. "
                    "Give one copy of the set, as its source has it."
                )
            seen.add(key)
            place = folder / item.path
            place.parent.mkdir(parents=True, exist_ok=True)
            _put(item, place, own)
            rows.append({"path": item.path, "label": item.label, "split": item.split, "group": item.group,
                         **item.attributes})  # fmt: skip
            counts.update(_keys(item.label, item.split))
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise Refused(
                f"Expected room for the images in {folder.parent.parent}; the disk is full. Free some, or choose "
                "another folder with --out; what was downloaded is kept."
            ) from None
        raise
    if rows:
        columns = _columns(rows)
        for row in rows:
            row["group"] = row["group"] or f"image {row['path']}"  # one without a patient is a group of its own
        write_table(folder / "images.csv", [{key: row.get(key, "") for key in columns} for row in rows], columns)
    return counts


def take_out(folder: Path, rows: Sequence[int]) -> Counter[str]:
    """Remove the images in some rows of a built folder's `images.csv`; what went, counted as `build` does.

    Raises Refused where nothing would stay.
    """
    listed = [row for _, row in read_rows(folder / "images.csv", required=("path", "label"))]
    gone = set(rows)
    kept = [row for i, row in enumerate(listed) if i not in gone]
    if not kept:
        raise Refused("Expected images that the other set does not have; all of them are in it. Fetch another set.")
    for i in gone:
        (folder / listed[i]["path"]).unlink()
    write_table(folder / "images.csv", kept, list(listed[0]))
    return Counter(key for i in gone for key in _keys(listed[i]["label"], listed[i].get("split", "")))


def _keys(label: str, split: str) -> Iterator[str]:
    """What an image counts for."""
    yield label
    if split:
        yield split
        yield f"{split}/{label}"


def differences(counts: Mapping[str, int], published: Mapping[str, int], images: int, found: int) -> tuple[str, ...]:
    """How a copy departs from the numbers that its source publishes, one phrase each.

    >>> differences({"a": 2, "b": 1}, {"a": 2, "b": 3}, 5, 3)
    ('3 images in all in place of 5', '1 of b in place of 3')
    """
    told = [] if found == images else [f"{found:,} images in all in place of {images:,}"]
    told += [f"{counts.get(key, 0):,} of {key} in place of {n:,}" for key, n in published.items()
             if counts.get(key, 0) != n]  # fmt: skip
    return tuple(told)


def _columns(rows: list[dict[str, str]]) -> list[str]:
    """`split` and `group` only where a row has one; then every attribute, in the order in which it first occurs."""
    asked = [key for key in ("split", "group") if any(row[key] for row in rows)]
    own = ("path", "label", "split", "group")
    return ["path", "label", *asked, *dict.fromkeys(key for row in rows for key in row if key not in own)]


def _put(item: Item, place: Path, own: Path) -> None:
    if isinstance(item.content, np.ndarray):
        Image.fromarray(item.content).save(place, "PNG")
    elif item.content.is_relative_to(own):
        item.content.replace(place)
    else:
        shutil.copyfile(item.content, place)
