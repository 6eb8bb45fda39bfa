"""`quantward data fetch`: a published set by name, from its source or from a copy at hand, to a DATA folder.

Everything happens in a folder beside the one that is asked for, which appears whole or not at all. What was downloaded
stays there until the set is made, so a killed or failed fetch goes on where it stopped.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from quantward.core.errors import Refused
from quantward.core.lock import only_run
from quantward.core.progress import Track, silent
from quantward.core.registry import Registry, spelling
from quantward.core.store import decode, read_json, write_json
from quantward.data import open_dataset
from quantward.fetch.apart import shared
from quantward.fetch.build import build, differences, take_out
from quantward.fetch.obtain import at_hand, forget, from_source, opened
from quantward.fetch.places import RECORD, all_here, here, note, own_folder, record_of
from quantward.fetch.trees import walk
from quantward.fetch.values import Fetched, Got, Source

SETS = Registry("data set", "quantward.fetch.sets")


@dataclass(frozen=True)
class Listed:
    """One line of `quantward data list`. `login` says that its source wants one; `here` is where it lies on this
    machine, by spelling (MedMNIST's sets can be here in several sizes)."""

    name: str
    title: str
    images: int
    classes: tuple[str, ...]
    licence: str
    group: str
    page: str
    login: bool
    here: Mapping[str, Path]


def listed() -> tuple[Listed, ...]:
    """Every known set, sorted by name."""
    found = all_here()
    rows = []
    for name in SETS.names():
        source: Source = SETS.make(name)
        login = any(not file.address for file in source.files)
        lies = {known: folder for known, folder in found.items() if known.partition(":")[0] == name}
        rows.append(Listed(name, source.title, source.images, source.classes, source.licence, source.group,
                           source.page, login, lies))  # fmt: skip
    return tuple(rows)


def where(name: str) -> Path:
    """The folder of a set that was fetched. Raises Refused where this machine has none, UsageError for no known set."""
    known = spelling(SETS.make(name))
    folder = here(known)
    if folder is None:
        raise Refused(f"Expected {known} on this machine; it was not fetched. Run quantward data fetch {known}.")
    return folder


@dataclass(frozen=True)
class _Order:
    """What is to be made, where, from what, and how strictly."""

    source: Source
    folder: Path
    given: tuple[Path, ...]
    apart: Path | None
    as_is: bool

    @property
    def known(self) -> str:
        """The set with its options, as it is spelled."""
        return spelling(self.source)

    @property
    def work(self) -> Path:
        """Where it is made: beside its place, so that it can be moved there in one step."""
        return self.folder.parent / f".{self.folder.name}.fetching"


def fetch(
    name: str | Source,
    out: Path | None = None,
    *,
    given: Sequence[Path] = (),
    apart: Path | None = None,
    as_is: bool = False,
    tell: Callable[[str], None] = lambda _: None,
    track: Track = silent,
) -> tuple[Path, Fetched, bool]:
    """A published set as a DATA folder: where it lies, its record, and whether it was made now (False: it was there).

    `given` are copies at hand, archives or folders, in place of the network. `apart` is other DATA: images that look
    like one of its are left out, which an external test set needs. `as_is` takes a copy whose checksums or
    numbers of images are not the published ones, and records how it differs. $QUANTWARD_MIRROR names an address under
    which an institution keeps the files as NAME/FILE, in place of their sources.

    Raises Refused, in one sentence with the next step, for whatever goes wrong on the way; UsageError for an unknown
    set.
    """
    source: Source = SETS.make(name) if isinstance(name, str) else name
    folder = (out if out is not None else own_folder(spelling(source))).absolute()
    order = _Order(source, folder, tuple(given), apart, as_is)
    there = _there(order)
    if there is not None:
        return folder, there, False
    _refuse_absent(order)
    try:
        with only_run(order.work):
            there = _there(order)  # somebody else may have made it since
            try:
                record = there or _make(order, tell, track)
            finally:
                _tidy(order.work, finished=record_of(folder) == order.known)
    except OSError as error:
        raise Refused(
            f"Expected to make {order.known} in {folder}; got: {error.strerror or error} ({error.filename}). "
            "Mend that, or choose another folder with --out."
        ) from None
    note(order.known, folder)
    return folder, record, there is None


def _there(order: _Order) -> Fetched | None:
    """The record of the set where it is made already. Raises Refused where its folder holds anything else."""
    folder, known = order.folder, order.known
    if record_of(folder) == known and (folder / "images.csv").exists():
        found = decode(Fetched, read_json(folder / RECORD), folder / RECORD)
        if order.apart is not None and found.apart != open_dataset(order.apart).fingerprint:
            raise Refused(
                f"Expected {known} apart from {order.apart}; the one in {folder} was made without regard to it. "
                "Choose another folder with --out."
            )
        return found
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise Refused(f"Expected a new or empty folder for {known}; {folder} holds something else. Choose another.")
    return None


def _refuse_absent(order: _Order) -> None:
    """Raises Refused for copies that are not there, and, with what to do by hand, for a set behind a login."""
    for place in order.given:
        if not place.exists():
            raise Refused(f"Expected a copy of {order.known} at {place}; there is nothing. Check the path.")
    locked = [file.name for file in order.source.files if not file.address]
    if locked and not order.given and not os.environ.get("QUANTWARD_MIRROR"):
        raise Refused(
            f"Expected to download {order.known}; its source wants a login. Sign in at {order.source.page}, download "
            f"{' and '.join(locked)}, then run quantward data fetch {order.known} --from {locked[0]}"
        )


def _make(order: _Order, tell: Callable[[str], None], track: Track) -> Fetched:
    source, work = order.source, order.work
    _tidy_remains(work)
    other = open_dataset(order.apart, track=track) if order.apart is not None else None
    if order.given:
        places, got = at_hand(source, order.given, track)
    else:
        places, got = from_source(source, order.known, work / "files", tell, track)
    unlike = _unlike(order, got)
    tree = walk(*opened(places, work, track))
    made = work / "made"
    made.mkdir()
    counts = build(source.items(tree), made, own=work, total=source.images, track=track)
    images = _images(order, counts)
    differs = (*unlike, *differences(counts, source.counts, source.images, images))
    if differs and not order.as_is:
        raise Refused(
            f"Expected {order.known} as published; got {'; '.join(differs)}. "
            f"Get the whole of it from {source.page}, or take it as it is with --as-is."
        )
    gone = take_out(made, shared(open_dataset(made, track=track), other, track)) if other else Counter[str]()
    counts.subtract(gone)
    left_out = sum(gone[label] for label in source.classes)
    record = Fetched(order.known, source.title, source.page, source.licence, source.citation, source.group, source.note,
                     got, images - left_out, dict(sorted(counts.items())), differs,
                     other.fingerprint if other else "", left_out)  # fmt: skip
    write_json(made / RECORD, record)
    if order.folder.exists():
        order.folder.rmdir()
    made.replace(order.folder)
    return record


def _unlike(order: _Order, got: Sequence[Got]) -> list[str]:
    """Which files have another checksum than the published one. Raises Refused for one where that is not wanted."""
    wrong = [one for one in got if one.checked is False]
    if wrong and not order.as_is:
        for one in wrong:
            forget(order.work / "files" / one.name)
        again = f"Get it anew from {order.source.page}" if order.given else "Run the same command again"
        raise Refused(
            f"Expected {order.known} as published; {wrong[0].name} has not the published checksum (its sha256 is "
            f"{wrong[0].sha256}). {again}, or take it as it is with --as-is."
        )
    return [f"another checksum of {one.name} than the published one" for one in wrong]


def _images(order: _Order, counts: Mapping[str, int]) -> int:
    """How many images were found. Raises Refused where there are none: it is a copy of something else."""
    images = sum(counts[label] for label in order.source.classes)
    if not images:
        found = order.given[0] if order.given else "what was downloaded"
        raise Refused(
            f"Expected the images of {order.known} in {found}; none is laid out as at {order.source.page}. "
            "Give the folder or archive as it comes from there."
        )
    return images


def _tidy(work: Path, *, finished: bool) -> None:
    """Leave nothing but downloads to go on with, and not even these when the set is made."""
    _tidy_remains(work)
    if finished or not any((work / "files").glob("*")):
        shutil.rmtree(work, ignore_errors=True)


def _tidy_remains(work: Path) -> None:
    for left in ("unpacked", "made"):
        shutil.rmtree(work / left, ignore_errors=True)
