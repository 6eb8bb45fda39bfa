"""The files of an unpacked copy, wherever its publisher, or the person who unpacked it, nested them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from quantward.core.errors import Refused

PICTURES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})
PASSED_OVER = frozenset({"__macosx", "thumbs.db", "desktop.ini"})
MOST_FILES = 1_000_000


@dataclass(frozen=True)
class Tree:
    """Relative path -> file, sorted; made by `walk`."""

    files: dict[str, Path]

    def named(self, *names: str) -> Path | None:
        """The first file with one of these names (case does not matter); None where there is none."""
        for name in names:
            for relative, path in self.files.items():
                if PurePosixPath(relative).name.casefold() == name.casefold():
                    return path
        return None

    def pictures(self, *folders: str) -> Iterator[tuple[str, Path]]:
        """The pictures below a chain of folders at any depth, as (path behind the chain, file), sorted.

        Case does not matter. `pictures("Training", "glioma")` finds `x/Training/glioma/a.jpg` as `a.jpg`.
        """
        chain = tuple(folder.casefold() for folder in folders)
        for relative, path in self.files.items():
            *above, name = PurePosixPath(relative).parts
            if PurePosixPath(name).suffix.lower() not in PICTURES:
                continue
            folded = tuple(part.casefold() for part in above)
            for start in range(len(folded) - len(chain), -1, -1):
                if folded[start : start + len(chain)] == chain:
                    yield "/".join([*above[start + len(chain) :], name]), path
                    break


def walk(*places: Path) -> Tree:
    """All plain files at or below some places; links, hidden files and what systems leave behind are passed over.

    Raises Refused for two files under one relative path, and for too many files to be one data set.
    """
    found: dict[str, Path] = {}
    for place in places:
        for relative, path in _files(place):
            if relative in found:
                raise Refused(
                    f"Expected each file once in what was given; {relative} is in two places. Give only one of them."
                )
            found[relative] = path
            if len(found) > MOST_FILES:
                raise Refused(
                    f"Expected the folder of one data set; {place} holds over {MOST_FILES:,} files. "
                    "Give the folder it was unpacked into."
                )
    return Tree(dict(sorted(found.items())))


def _files(place: Path) -> Iterator[tuple[str, Path]]:
    if place.is_file():
        yield place.name, place
        return
    for folder, inner, names in os.walk(place, followlinks=False):
        inner[:] = sorted(_visible(inner))
        here = Path(folder)
        for name in _visible(names):
            path = here / name
            if path.is_file() and not path.is_symlink():
                yield path.relative_to(place).as_posix(), path


def _visible(names: Iterable[str]) -> list[str]:
    return [name for name in names if not name.startswith(".") and name.casefold() not in PASSED_OVER]
