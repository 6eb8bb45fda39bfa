"""What every reader of files needs: staying inside a folder, lazy reading, and a fingerprint of the whole."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import TypeVar

import numpy as np

from quantward.core.errors import Refused
from quantward.core.progress import Track
from quantward.core.store import digest_file, digest_text
from quantward.core.values import Dataset, ImageArray
from quantward.data._images import BLACK, DECODER, Colour, Picture, picture, read_bytes

Given = TypeVar("Given")
Made = TypeVar("Made")

WORKERS = 2
"""Decoding and hashing release the interpreter's lock, so two threads use two cores; more would crowd a clinic's PC."""
UNDER_WAY = 32

IMAGE_SUFFIXES = frozenset({
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".tif", ".tiff", ".gif", ".webp", ".pgm", ".ppm",
    ".pnm", ".dcm", ".dicom"
})  # fmt: skip
OTHER_SUFFIXES = frozenset({
    ".txt", ".md", ".rst", ".csv", ".tsv", ".json", ".xml", ".yaml", ".yml", ".html", ".htm", ".pdf",
    ".db", ".ini", ".log", ".xlsx", ".xls", ".docx", ".py", ".ipynb"
})  # fmt: skip

SPLITS = {
    **dict.fromkeys(("train", "training", "trainset", "train_set"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev", "tune", "val_set"), "val"),
    **dict.fromkeys(("test", "testing", "testset", "test_set"), "test"),
    **dict.fromkeys(("external",), "external"),
}
"""The usual names of published splits, lower case, and the one each is known by here."""


@dataclass(frozen=True)
class FileReader:
    """Reads image i when asked. `paths` are relative to `root`, with forward slashes."""

    root: Path
    paths: tuple[str, ...]
    background: Colour = BLACK

    def __call__(self, i: int) -> ImageArray:
        return self.picture(i).pixels

    def picture(self, i: int) -> Picture:
        """Image i with what had to be decided while decoding it."""
        path = self.path(i)
        return picture(read_bytes(path), path, self.background)

    def path(self, i: int) -> Path:
        """Where image i lies."""
        return self.root / self.paths[i]


def inside(root: Path, relative: str, where: str) -> Path:
    """The file `relative` below `root` (already resolved), refused if it is or points outside; `where` leads the error.

    Raises Refused for absolute paths, drive letters, `..`, and links that lead out.
    """
    parts = relative.replace("\\", "/").split("/")
    bad = (
        "an empty path" if not relative.strip()
        else "a zero byte in the path" if "\0" in relative
        else f"the absolute path {relative!r}"
        if relative.startswith(("/", "\\")) or PureWindowsPath(relative).drive
        else f"{relative!r}, which climbs out of it" if ".." in parts
        else ""
    )  # fmt: skip
    if bad:
        raise Refused(f"Expected in {where} a path inside {root}; got {bad}. Copy the images below that folder.")
    path = root / relative
    real = Path(os.path.realpath(path))
    if not real.is_relative_to(root):
        raise Refused(
            f"Expected in {where} a path inside {root}; {relative!r} is a link to the outside. Copy the file itself."
        )
    return path


def threaded(work: Callable[[Given], Made], items: Iterable[Given]) -> Iterator[Made]:
    """`map` on two threads, in order. Only a few items are under way, so memory is bounded and Ctrl-C is prompt.

    >>> list(threaded(abs, [-1, 2, -3]))
    [1, 2, 3]
    """
    waiting: deque[Future[Made]] = deque()
    with ThreadPoolExecutor(WORKERS) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > UNDER_WAY:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def digests(paths: Sequence[Path], track: Track) -> list[str]:
    """SHA-256 of each file, in order.

    Raises Refused for a file that cannot be read.
    """
    try:
        return list(track(threaded(digest_file, paths), "hashing images", len(paths)))
    except OSError as error:
        raise Refused(
            f"Expected a readable file at {error.filename}; got: {error.strerror}. Check its permissions."
        ) from None


def fingerprint(
    contents: Sequence[str],
    ids: Sequence[str],
    labels: Sequence[str],
    groups: Sequence[str] | None,
    background: Colour = BLACK,
) -> str:
    """One hash over every image's content, name, label and group, in order, and the way of decoding."""
    rows = zip(contents, ids, labels, groups or [""] * len(ids), strict=True)
    return digest_text(f"decoder {DECODER} background {background}", *("\x1f".join(row) for row in rows))


def from_files(
    name: str,
    root: Path,
    paths: Sequence[str],
    labels: Sequence[str],
    *,
    background: Colour,
    track: Track,
    classes: Sequence[str] | None = None,
    groups: Sequence[str] | None = None,
    splits: Sequence[str] | None = None,
    attributes: dict[str, tuple[str, ...]] | None = None,
) -> Dataset:
    """A Dataset whose images are files below `root`; ids are their relative paths."""
    contents = digests([root / path for path in paths], track)
    names = class_names(labels, classes, name)
    position = {label: i for i, label in enumerate(names)}
    return Dataset(
        name=name,
        classes=names,
        ids=tuple(paths),
        labels=np.array([position[label] for label in labels], np.int64),
        fingerprint=fingerprint(contents, paths, labels, groups, background),
        reader=FileReader(root, tuple(paths), background),
        groups=tuple(groups) if groups is not None else None,
        splits=tuple(splits) if splits is not None else None,
        attributes=attributes or {},
    )


def class_names(labels: Sequence[str], classes: Sequence[str] | None, name: str) -> tuple[str, ...]:
    """The classes in the order asked for, sorted by name otherwise; spellings that differ in case are refused.

    >>> class_names(["b", "a", "b"], None, "toy")
    ('a', 'b')
    """
    found = sorted(set(labels))
    folded: dict[str, str] = {}
    for label in found:
        other = folded.setdefault(" ".join(label.split()).casefold(), label)
        if other != label:
            raise Refused(
                f"Expected one spelling a class in {name}; got {other!r} and {label!r}. Rename one of the two."
            )
    if classes is None:
        return tuple(found)
    unknown = [label for label in found if label not in classes]
    if unknown:
        raise Refused(
            f"Expected only the classes {', '.join(classes)} in {name}; got {', '.join(unknown)}. "
            "Rename them or leave these images out."
        )
    return tuple(classes)
