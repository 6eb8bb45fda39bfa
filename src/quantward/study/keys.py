"""The key of a step: a digest of everything that decides what it leaves, and of nothing else.

Where files lie, how many processes work and what a step is called decide nothing, so they are no part of it. The code
does: the sources of the rooms that a kind of step runs through are, and the versions of the libraries it calls.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import quantward
from quantward.core.store import digest_file, digest_text, plain
from quantward.study.values import Kind

HOUSE = Path(quantward.__file__).parent

Keys = Callable[[Mapping[str, Any], Mapping[str, str]], str]
"""What a step is asked and what it needs (part -> key) -> its key."""


@cache
def sources(room: str) -> str:
    """Digest of the Python sources of a room: a package folder or a module of quantward, `train` or
    `study.steps.train`; worked out once a process.

    Raises ImportError where there is no such room.
    """
    place = HOUSE.joinpath(*room.split("."))
    files = sorted(place.rglob("*.py")) if place.is_dir() else [place.with_suffix(".py")]
    if not files or not files[0].is_file():
        raise ImportError(f"quantward has no room {room!r}")
    return digest_text(*(f"{path.relative_to(HOUSE).as_posix()} {digest_file(path)}" for path in files))


@cache
def version(library: str) -> str:
    """The version of an installed distribution, `absent` where it is not installed.

    >>> version("no-such-library")
    'absent'
    """
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return "absent"


def canonical(value: Any) -> str:
    """The one JSON text of a value: whatever the order of its names, and however it is held.

    >>> canonical({"b": (1, 2), "a": None})
    '{"a":null,"b":[1,2]}'
    """
    return _ENCODER.encode(value)


def _plain(value: Any) -> Any:
    """What JSON does not know of by itself, as it would be written. Raises TypeError for what cannot be."""
    found = plain(value)
    if found is value:
        raise TypeError(f"{type(value).__name__} is no plain data")
    return found


_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False, default=_plain)


def made_by(rooms: Iterable[str], libraries: Iterable[str]) -> str:
    """Digest of the code that carries a kind of step out."""
    return digest_text(
        *(f"room {room} {sources(room)}" for room in sorted(set(rooms))),
        *(f"library {library} {version(library)}" for library in sorted(set(libraries))),
    )


def key(kind: str, asked: Mapping[str, Any], needs: Mapping[str, str], code: str) -> str:
    """The key of one step; `code` is what `made_by` says of its kind."""
    return digest_text(kind, canonical(asked), canonical(needs), code)


def keys_of(name: str, kind: Kind | type[Kind]) -> Keys:
    """What gives the steps of one kind their keys."""
    code = made_by(kind.rooms, kind.libraries)
    return lambda asked, needs: key(name, asked, needs, code)
