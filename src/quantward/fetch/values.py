"""The nouns of fetching: a published data set, its files, its pictures, and the record of what was fetched.

What is known about a set stands in one frozen value, checksums only where its source (or a second party that checked
against it) publishes them: a number made up here would call a good copy bad, or worse.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from quantward.core.values import ImageArray
from quantward.fetch.trees import Tree


@dataclass(frozen=True)
class File:
    """One file of a set under its published name. `address` is empty where it lies behind a login; `also` are others
    to try where it is gone. `checksum` is "md5:..." or "sha256:..."; it and `bytes` are None where none is published.
    """

    name: str
    address: str = ""
    bytes: int | None = None
    checksum: str | None = None
    also: tuple[str, ...] = ()


@dataclass(frozen=True)
class Item:
    """One picture of a set and where it goes: `path` below the DATA folder, with forward slashes. `content` is a file
    that is taken over byte for byte, or pixels that are written as PNG. Empty `split` and `group`: there is none."""

    path: str
    label: str
    content: Path | ImageArray
    split: str = ""
    group: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)


class Source(Protocol):
    """A published data set: a frozen dataclass in `fetch/sets/`, whose fields (if any) are its options.

    `group` says what one group is ("lesion", "patient"), empty where the source names none. `counts` holds published
    numbers of images by class, split, or "split/class"; `images` is their total. Both are checked after conversion.
    """

    @property
    def title(self) -> str: ...
    @property
    def page(self) -> str: ...
    @property
    def licence(self) -> str: ...
    @property
    def citation(self) -> str: ...
    @property
    def files(self) -> tuple[File, ...]: ...
    @property
    def classes(self) -> tuple[str, ...]: ...
    @property
    def images(self) -> int: ...
    @property
    def counts(self) -> Mapping[str, int]: ...
    @property
    def group(self) -> str: ...
    @property
    def note(self) -> str: ...

    def items(self, tree: Tree) -> Iterator[Item]:
        """Every picture of an unpacked copy. Raises Refused for a copy that is laid out in no known way."""
        ...


@dataclass(frozen=True)
class Got:
    """One file as it came: `checked` says whether its published checksum matched, None where none is published."""

    name: str
    address: str
    bytes: int
    sha256: str
    checked: bool | None


@dataclass(frozen=True)
class Fetched:
    """What `fetched.json` in a DATA folder records. `differs` lists what is not as published (only with `as_is`);
    `left_out` is how many images were left out, because they look like those of `apart` (a fingerprint)."""

    name: str
    title: str
    page: str
    licence: str
    citation: str
    group: str
    note: str
    files: tuple[Got, ...]
    images: int
    counts: Mapping[str, int]
    differs: tuple[str, ...] = ()
    apart: str = ""
    left_out: int = 0
    schema: int = 1

    def sentences(self) -> tuple[str, ...]:
        """The record in words: what it is, on which terms, and what to mind."""
        groups = f"one group a {self.group}" if self.group else "no patients named"
        told = [f"{self.title}: {self.images:,} images, {groups}. Licence: {self.licence}.", self.note]
        if self.apart:
            told.append(f"Left out: {self.left_out:,} images that look like one of the other set.")
        if self.differs:
            told.append(f"Not as published: {'; '.join(self.differs)}.")
        return (*told, f"Cite: {self.citation}")
