"""Where fetched sets lie: one home by default, and a note of those that were put elsewhere."""

from __future__ import annotations

import os
from pathlib import Path

from quantward.core.errors import QuantwardError
from quantward.core.store import read_json, write_json

RECORD = "fetched.json"
NOTES = "places.json"


def home() -> Path:
    """$QUANTWARD_DATA, else the folder for data that the user's system names."""
    asked = os.environ.get("QUANTWARD_DATA")
    if asked:
        return Path(asked)
    base = os.environ.get("XDG_DATA_HOME") or os.environ.get("LOCALAPPDATA")
    return (Path(base) if base else Path.home() / ".local" / "share") / "quantward" / "data"


def own_folder(name: str) -> Path:
    """The folder of a set in the home.

    >>> own_folder("pathmnist:size=64").name
    'pathmnist-size-64'
    """
    return home() / name.replace(":", "-").replace("=", "-").replace(",", "-")


def here(name: str) -> Path | None:
    """The folder of a fetched set; None where this machine has none (any more)."""
    noted = _notes().get(name)
    for folder in ([Path(noted)] if noted else []) + [own_folder(name)]:
        if record_of(folder) == name:
            return folder
    return None


def all_here() -> dict[str, Path]:
    """Every set on this machine that is known to it, by spelling."""
    noted = [Path(folder) for folder in _notes().values()]
    own = sorted(home().iterdir()) if home().is_dir() else []
    found = {record_of(folder): folder for folder in [*noted, *own]}
    return {name: folder for name, folder in found.items() if name is not None}


def record_of(folder: Path) -> str | None:
    """Which set a folder holds, by its record; None where it is no fetched one."""
    try:
        found = read_json(folder / RECORD)
    except (QuantwardError, OSError):
        return None
    return str(found["name"]) if isinstance(found, dict) and "name" in found else None


def note(name: str, folder: Path) -> None:
    """Remember a set that was put outside the home. A home that cannot be written to is no reason to fail."""
    if folder.resolve() == own_folder(name).resolve():
        return
    try:
        write_json(home() / NOTES, {**_notes(), name: str(folder.resolve())})
    except OSError:
        return


def _notes() -> dict[str, str]:
    try:
        found = read_json(home() / NOTES)
    except (QuantwardError, OSError):
        return {}
    return {str(key): str(value) for key, value in found.items()} if isinstance(found, dict) else {}
