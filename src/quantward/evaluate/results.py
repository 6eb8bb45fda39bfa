"""Results of a bench on disk: written where a file was timed, read where results of several devices come together."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from quantward.core.errors import Refused
from quantward.core.store import decode, read_json, write_json
from quantward.core.values import Bench

SCHEMA = 1
"""Version of the layout; raise it when an old reader would misread a new file."""


def save_bench(found: Bench, path: Path) -> None:
    """Write the results as JSON, to be copied from a device and merged elsewhere."""
    write_json(path, found)


def load_bench(path: Path) -> Bench:
    """Read results back. Raises Refused for anything else, and for a schema that is newer than this program."""
    data = read_json(path)
    schema = data.get("schema") if isinstance(data, dict) else None
    if not isinstance(schema, int):
        raise Refused(f"Expected the results of quantward bench in {path}; got something else. Name another file.")
    if schema > SCHEMA:
        raise Refused(
            f"Expected results of schema {SCHEMA} or older in {path}; got {schema}. Merge with a newer quantward."
        )
    return decode(Bench, data, path)


def require_same_files(results: Mapping[str, Bench]) -> None:
    """Raises Refused where results (by the name of their source) are not about the same files: a name that means two
    files, or a device that timed none of the files of the first."""
    known: dict[str, tuple[str, str]] = {}
    first: set[str] = set()
    for source, found in results.items():
        hashes = {row.sha256 for row in found.rows}
        for row in found.rows:
            before, where = known.setdefault(row.name, (row.sha256, source))
            if before != row.sha256:
                raise Refused(
                    f"Expected {row.name} to be one file everywhere; it has the hash {before[:12]} in {where} and "
                    f"{row.sha256[:12]} in {source}. Copy the same bundle to each device and time it again."
                )
        if first and not first & hashes:
            raise Refused(
                f"Expected the same files on each device; {source} holds none of those of {next(iter(results))}. "
                "Copy the same bundle to each device and time it again."
            )
        first = first or hashes
