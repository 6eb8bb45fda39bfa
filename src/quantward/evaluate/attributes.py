"""Attributes of images (hospital, sex, scanner, ...) from a CSV, for subgroup tables of prediction files."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from quantward.core.cells import from_cell, to_cell
from quantward.core.errors import Refused
from quantward.core.store import write_text
from quantward.evaluate.predictions import csv_rows


def load_attributes(path: Path | str, ids: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Every column of a CSV `id,<attribute>,...` in the order of `ids`; other images' rows are left out.

    An empty cell is the value `unknown`. Raises Refused, with the line, for a file without an `id` column or without
    attributes, an id that stands twice, a row of another length, and an image that has no row.
    """
    path = Path(path)
    header, rows, lines = csv_rows(path)
    if header[:1] != ["id"] or len(header) < 2:
        raise Refused(f"Expected the header 'id,<attribute>,...' in line 1 of {path}; got {header}. Add it.")
    found: dict[str, list[str]] = {}
    for row, line in zip(rows, lines, strict=True):
        if len(row) != len(header):
            raise Refused(f"Expected {len(header)} cells in line {line} of {path}; got {len(row)}. Mend the row.")
        name = from_cell(row[0])
        if name in found:
            raise Refused(f"Expected every id once; {name!r} in line {line} of {path} stands twice. Remove one.")
        found[name] = [from_cell(cell.strip()) or "unknown" for cell in row[1:]]
    missing = [name for name in ids if name not in found]
    if missing:
        raise Refused(
            f"Expected attributes of all {len(ids):,} images in {path}; {len(missing):,} have none, first "
            f"{missing[0]!r}. Add their rows, with empty cells where a value is unknown."
        )
    return {from_cell(name): tuple(found[one][k] for one in ids) for k, name in enumerate(header[1:])}


def save_attributes(attributes: Mapping[str, Sequence[str]], ids: Sequence[str], path: Path | str) -> None:
    """Write the CSV that `load_attributes` reads."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["id", *map(to_cell, attributes)])
    writer.writerows(map(to_cell, row) for row in zip(ids, *attributes.values(), strict=True))
    write_text(Path(path), text.getvalue())
