"""A folder of class folders, with or without train and test folders above them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from quantward.core.errors import Refused
from quantward.core.progress import Track, silent
from quantward.core.values import Dataset
from quantward.data._files import IMAGE_SUFFIXES, OTHER_SUFFIXES, SPLITS, from_files
from quantward.data._images import BLACK, Colour

ASIDE = frozenset({"mask", "masks", "segmentation", "segmentations"})
"""Folders that hold lesion outlines rather than pictures; they are passed over wherever they lie."""


def read_folder(
    folder: Path,
    *,
    name: str,
    background: Colour = BLACK,
    classes: Sequence[str] | None = None,
    track: Track = silent,
) -> Dataset:
    """`folder/[split/]class/.../image` as a Dataset; ids are paths relative to `folder`, sorted.

    Raises Refused for an empty class, an image outside the class folders, a foreign file or a link to the outside.
    """
    root = Path(os.path.realpath(folder))
    tops = _folders(root)
    named = [top for top in tops if top.lower() in SPLITS]
    if named and len(named) < len(tops):
        other = next(top for top in tops if top not in named)
        raise Refused(
            f"Expected only split folders beside {named[0]!r} in {folder}; got {other!r}. "
            "Move it away, or list the images in an images.csv."
        )
    parents = [(SPLITS[top.lower()], f"{top}/") for top in named] or [("", "")]
    _no_images_directly_in(root, [prefix for _, prefix in parents] + ([""] if named else []))

    found: list[tuple[str, str, str]] = []
    filled: dict[str, int] = {}
    for split, prefix in parents:
        for label in _folders(root / prefix):
            paths = list(_images(root, f"{prefix}{label}"))
            filled[label] = filled.get(label, 0) + len(paths)
            found += [(path, label, split) for path in paths]
    empty = sorted(label for label, count in filled.items() if not count)
    if empty:
        raise Refused(f"Expected images in every class folder of {folder}; {empty[0]!r} has none. Fill or remove it.")
    if not found:
        raise Refused(
            f"Expected a folder of class folders at {folder}; it has no images in sub-folders. "
            "Put each class's images in a folder of its own, or give a CSV with path,label."
        )
    found.sort()
    return from_files(
        name,
        root,
        [path for path, _, _ in found],
        [label for _, label, _ in found],
        background=background,
        track=track,
        classes=classes,
        splits=[split for _, _, split in found] if named else None,
    )


def _folders(root: Path) -> list[str]:
    with os.scandir(root) as entries:
        return sorted(e.name for e in entries if e.is_dir() and not _aside(e.name))


def _aside(name: str) -> bool:
    return name.startswith(".") or name.lower() in ASIDE


def _no_images_directly_in(root: Path, prefixes: Sequence[str]) -> None:
    for prefix in prefixes:
        with os.scandir(root / prefix) as entries:
            for entry in entries:
                if entry.is_file() and Path(entry.name).suffix.lower() in IMAGE_SUFFIXES:
                    raise Refused(
                        f"Expected every image of {root} in a class folder; got {prefix}{entry.name}. "
                        "Move it into its class, or list the images in an images.csv."
                    )


def _images(root: Path, start: str) -> Iterator[str]:
    """All images below `start`. A list of open ends instead of recursion: folders may be nested very deep."""
    ends = [start]
    while ends:
        here = ends.pop()
        with os.scandir(f"{root}/{here}") as entries:
            for entry in entries:
                path = f"{here}/{entry.name}"
                if entry.is_symlink():
                    _check_link(root, entry, path)
                if entry.is_dir():
                    if not _aside(entry.name):
                        ends.append(path)
                elif _is_image(root, path):
                    yield path


def _check_link(root: Path, entry: os.DirEntry[str], path: str) -> None:
    if not Path(os.path.realpath(entry.path)).is_relative_to(root):
        raise Refused(f"Expected only files inside {root}; {path} is a link to the outside. Copy the file itself.")
    if entry.is_dir():
        raise Refused(f"Expected plain folders in {root}; {path} is a link and would count twice. Remove it.")


def _is_image(root: Path, path: str) -> bool:
    """By its suffix. One that is neither an image's nor plainly something else's is refused, never skipped."""
    name = path.rpartition("/")[2]
    suffix = Path(name).suffix.lower()
    if name.startswith(".") or name.lower() == "thumbs.db" or suffix in OTHER_SUFFIXES:
        return False
    if suffix not in IMAGE_SUFFIXES:
        raise Refused(
            f"Expected images in {root}; the suffix of {path} is not known as an image's. Convert or remove it."
        )
    return True
