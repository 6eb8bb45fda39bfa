"""A folder that is somewhere else (a bucket, a server, a mounted drive), by its fsspec URL, with sentences for errors.

Stores of objects have no rename and no half-written objects, drives have both. What is written here is whole on either:
bytes go to a name of their own first and are then moved to where readers look.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from quantward.core.errors import Refused, UsageError

FOLDERS = ("file", "local")
"""Protocols that are folders of this machine."""


@dataclass(frozen=True)
class Remote:
    """What lies below a URL; paths are relative to it, with `/` between their parts. Every method raises Refused where
    the place cannot be reached."""

    address: str
    files: Any = field(repr=False)
    root: str = field(repr=False)

    def read(self, path: str) -> bytes | None:
        """A file's bytes; None where there is none."""
        with self._reached():
            try:
                found: bytes = self.files.cat_file(self._full(path))
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                return None
            return found

    def read_all(self, paths: Iterable[str]) -> Mapping[str, bytes]:
        """Many files at once, where the place can do so; absent ones are left out."""
        full = {self._full(path): path for path in paths}
        if not full:
            return {}
        with self._reached():
            found = self.files.cat(list(full), on_error="omit")
        return {full[name]: content for name, content in found.items() if name in full}

    def write(self, path: str, content: bytes) -> None:
        """Write a file so that nobody ever reads half of it."""
        part = f"{path}.{uuid.uuid4().hex[:12]}.part"
        with self._reached():
            try:
                self.files.pipe_file(self._full(part), content)
                self.files.mv(self._full(part), self._full(path))
            except BaseException:
                with suppress(Exception):
                    self.files.rm_file(self._full(part))
                raise

    def send(self, here: Path, path: str) -> None:
        """Copy a file of this machine there."""
        with self._reached():
            self.files.put_file(str(here), self._full(path))

    def fetch(self, path: str, here: Path) -> bool:
        """Copy a file to this machine; False where there is none."""
        here.parent.mkdir(parents=True, exist_ok=True)
        with self._reached():
            try:
                self.files.get_file(self._full(path), str(here))
            except FileNotFoundError:
                return False
        return True

    def move(self, old: str, new: str) -> None:
        """Move a file; nothing happens where it is gone already."""
        with self._reached(), suppress(FileNotFoundError):
            self.files.mv(self._full(old), self._full(new))

    def remove(self, path: str) -> None:
        """Remove a file, where it is there."""
        with self._reached(), suppress(FileNotFoundError):
            self.files.rm_file(self._full(path))

    def names(self, folder: str = "") -> set[str]:
        """Paths of all files below a folder, from one listing."""
        with self._reached():
            try:
                found = self.files.find(self._full(folder))
            except FileNotFoundError:
                return set()
        start = len(self.root.rstrip("/")) + 1
        return {name[start:] for name in found}

    def _full(self, path: str) -> str:
        return f"{self.root.rstrip('/')}/{path}".rstrip("/")

    @contextmanager
    def _reached(self) -> Iterator[None]:
        """Whatever a protocol's library raises becomes one sentence; each has errors of its own."""
        try:
            yield
        except Exception as error:
            said = str(error).strip().partition("\n")[0]
            raise Refused(
                f"Expected to reach the store at {self.address}; got {type(error).__name__}"
                f"{f' ({said[:200]})' if said else ''}. Check the address, the network and who may write there."
            ) from error


def remote(address: str) -> Remote:
    """The folder at an fsspec URL (`s3://bucket/study`, `gs://...`, `file:///mnt/drive`).

    Raises UsageError where fsspec, or what it needs for this protocol, is not installed, or the URL is none.
    """
    try:
        import fsspec
    except ImportError:
        raise UsageError(
            f"Expected fsspec for the store {address}; it is not installed. Install quantward[ray]."
        ) from None
    protocol = address.partition("://")[0]
    options: dict[str, Any] = {"auto_mkdir": True} if protocol in FOLDERS else {}
    try:
        # What others write must be seen at once, so no listing may be remembered.
        files, root = fsspec.core.url_to_fs(address, use_listings_cache=False, **options)
    except ImportError as error:
        raise UsageError(f"Expected what fsspec needs for {address}; it says: {error}. Install that.") from None
    except ValueError as error:
        raise UsageError(
            f"Expected an fsspec URL such as s3://BUCKET/FOLDER; got {address!r} ({error}). Mend it."
        ) from None
    return Remote(re.sub("//[^/@]*@", "//", address), files, root)  # a password in it is nobody's business
