"""A set's files, from their source or from copies at hand, hashed against what is published, and opened."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from quantward.core.errors import UsageError
from quantward.core.progress import Track, silent
from quantward.core.store import write_text
from quantward.fetch.download import Absent, download
from quantward.fetch.places import RECORD
from quantward.fetch.trees import walk
from quantward.fetch.unpack import Broken, is_archive, unpack
from quantward.fetch.values import File, Got, Source

BLOCK = 1 << 20


def from_source(
    source: Source, known: str, folder: Path, tell: Callable[[str], None], track: Track = silent
) -> tuple[list[Path], tuple[Got, ...]]:
    """Download every file of a set that is not in `folder` yet, and hash it: where they lie, and what they are."""
    places, got = [], []
    for file in source.files:
        path = folder / file.name
        origin = _origin(path)
        if not path.exists():
            write_text(origin, _bring(_addresses(file, known), path, file, source.page, tell, track))
        found = hashed(file, path, origin.read_text(encoding="utf-8") if origin.exists() else "", track)
        if found.checked is None:
            tell(f"{file.name}: no published checksum; its sha256 {found.sha256} is kept in {RECORD}")
        places.append(path)
        got.append(found)
    return places, tuple(got)


def forget(path: Path) -> None:
    """Remove a download that is not what it should be: it would stand in the way of the next fetch."""
    path.unlink(missing_ok=True)
    _origin(path).unlink(missing_ok=True)


def _origin(path: Path) -> Path:
    """Where it is kept from which address a download came."""
    return Path(f"{path}.from")


def _addresses(file: File, known: str) -> tuple[str, ...]:
    mirror = os.environ.get("QUANTWARD_MIRROR", "").rstrip("/")
    if mirror and not mirror.startswith(("https://", "http://")):
        raise UsageError(f"Expected an https address in QUANTWARD_MIRROR; got {mirror!r}. Mend it.")
    return (f"{mirror}/{known.partition(':')[0]}/{quote(file.name)}",) if mirror else (file.address, *file.also)


def _bring(
    addresses: tuple[str, ...], path: Path, file: File, page: str, tell: Callable[[str], None], track: Track
) -> str:
    """Download from the first address that has the file; which one it was."""
    elsewhere = f"get it from {page} and give it with --from."
    for number, address in enumerate(addresses, 1):
        tell(f"{file.name} from {address}")
        try:
            download(address, path, elsewhere=elsewhere, expected=file.bytes, track=track)
        except Absent:
            if number == len(addresses):
                raise
        else:
            break
    return address


def at_hand(source: Source, given: Sequence[Path], track: Track = silent) -> tuple[list[Path], tuple[Got, ...]]:
    """Copies as they are; of a folder, the set's own files are hashed and its archives will be unpacked."""
    by_name = {file.name.casefold(): file for file in source.files}
    places: list[Path] = []
    got: list[Got] = []
    for place in map(Path.absolute, given):
        if place.is_dir():
            own = [path for path in walk(place).files.values() if path.name.casefold() in by_name]
            places += [place, *filter(is_archive, own)]
        else:
            own = [place]
            places.append(place)
        for path in own:
            file = by_name.get(path.name.casefold()) or (source.files[0] if len(source.files) == 1 else None)
            got.append(hashed(file or File(path.name), path, "", track))
    return places, tuple(got)


def opened(places: Sequence[Path], work: Path, track: Track = silent) -> Iterator[Path]:
    """Each place, archives unpacked into a folder of their own below `work`; a broken download there is removed."""
    for number, place in enumerate(places):
        if place.is_file() and is_archive(place):
            folder = work / "unpacked" / str(number)
            try:
                unpack(place, folder, track)
            except Broken:
                if place.is_relative_to(work):
                    forget(place)
                raise
            yield folder
        else:
            yield place


def hashed(file: File, path: Path, address: str, track: Track = silent) -> Got:
    """What a file turned out to be, its published checksum compared."""
    wanted = (file.checksum or "").partition(":")
    hashes: dict[str, Any] = {"sha256": hashlib.sha256()}
    if wanted[0] == "md5":
        hashes["md5"] = hashlib.md5(usedforsecurity=False)
    elif wanted[0] not in ("", "sha256"):
        raise UsageError(f"Expected md5 or sha256 as the checksum of {file.name}; got {wanted[0]!r}. Mend the set.")
    size = path.stat().st_size
    with path.open("rb") as stream:
        blocks = iter(lambda: stream.read(BLOCK), b"")
        for block in track(blocks, f"hashing {file.name}, MiB", -(-size // BLOCK)):
            for one in hashes.values():
                one.update(block)
    found = {name: one.hexdigest() for name, one in hashes.items()}
    checked = found[wanted[0]] == wanted[2].lower() if wanted[0] else None
    return Got(file.name, address, size, found["sha256"], checked)
