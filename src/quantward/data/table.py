"""A CSV that lists images: `path,label[,split][,group][,anything else]`, every fault named with its line.

Paths are relative to the CSV's own folder (or to `root`) and never leave it: a list that came by mail must not
read the rest of the disk. Cells that a spreadsheet would run as formulas are written with a leading apostrophe,
and that apostrophe is taken off again on reading.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from quantward.core.cells import from_cell, to_cell
from quantward.core.errors import Refused, suggestion
from quantward.core.progress import Track, silent
from quantward.core.store import write_text
from quantward.core.values import Dataset
from quantward.data._files import SPLITS, from_files, inside
from quantward.data._images import BLACK, Colour

MISSING = frozenset({"", "nan", "null", "na", "n/a", "<na>", "#n/a"})


def read_table(
    path: Path,
    *,
    name: str,
    root: Path | None = None,
    background: Colour = BLACK,
    classes: Sequence[str] | None = None,
    track: Track = silent,
) -> Dataset:
    """The images a CSV lists, in its order. An `extra.csv` beside it, keyed by path, joins further attributes.

    Raises Refused, with the line, for a bad header, a missing file or label, a doubled row, a path that leaves the
    folder.
    """
    home = Path(os.path.realpath(root if root is not None else path.parent))
    rows = read_rows(path, required=("path", "label"))
    if not rows:
        raise Refused(f"Expected rows below the header of {path}; there are none. List the images.")
    seen: dict[str, int] = {}
    for line, row in rows:
        place = f"{path}, line {line},"
        row["path"] = Path(row["path"]).as_posix() if row["path"] else ""
        file = inside(home, row["path"], place.rstrip(","))
        if row["label"].casefold() in MISSING:
            raise Refused(f"Expected a label in {place} got {row['label']!r}. Give the class or drop the row.")
        if "group" in row and row["group"].casefold() in MISSING:
            raise Refused(f"Expected a group in {place} got {row['group']!r}. Name the patient or drop the column.")
        if row["path"] in seen:
            raise Refused(
                f"Expected each image once in {path}; {row['path']!r} stands in line {seen[row['path']]} and in "
                f"line {line}. Keep one row."
            )
        seen[row["path"]] = line
        if not file.is_file():
            slashes = " Write forward slashes." if "\\" in row["path"] else " Mend the path."
            raise Refused(f"Expected a file for {place} {row['path']!r} is not in {home}.{slashes}")
    table = [row for _, row in rows]
    attributes = {
        key: tuple(row[key] for row in table) for key in table[0] if key not in ("path", "label", "split", "group")
    }
    extra = path.parent / "extra.csv"
    if root is None and path.name == "images.csv" and extra.exists():
        attributes |= _extra(extra, [row["path"] for row in table])
    return from_files(
        name,
        home,
        [row["path"] for row in table],
        [row["label"] for row in table],
        background=background,
        track=track,
        classes=classes,
        groups=[row["group"] for row in table] if "group" in table[0] else None,
        splits=_splits([row.get("split", "") for row in table]),
        attributes=attributes,
    )


def _splits(written: list[str]) -> list[str] | None:
    """Published splits under their usual names; None where no row has one."""
    splits = [SPLITS.get(text.casefold(), text) or "none" for text in written]
    return None if all(split.casefold() == "none" for split in splits) else splits


def _extra(path: Path, wanted: list[str]) -> dict[str, tuple[str, ...]]:
    """Further attributes by path; an image that is not listed has empty ones."""
    rows = {row["path"]: row for _, row in read_rows(path, required=("path",))}
    keys = [key for key in next(iter(rows.values()), {}) if key not in ("path", "label", "split", "group")]
    return {key: tuple(rows.get(name, {}).get(key, "") for name in wanted) for key in keys}


def read_rows(path: Path, required: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    """The rows of a CSV as (line number, cells by column name), cells stripped; blank lines are passed over.

    Raises Refused, with the line, for text that is not UTF-8, a bad header, or a row of another length.
    """
    reader = csv.reader(io.StringIO(_text(path), newline=""), strict=True)
    header: list[str] = []
    rows: list[tuple[int, dict[str, str]]] = []
    line = 1
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                pass
            elif not header:
                header = _header([cell.strip().lower() for cell in cells], path, line, required)
            elif len(cells) != len(header):
                raise Refused(
                    f"Expected {len(header)} cells in {path}, line {line}; got {len(cells)}. "
                    "Quote cells that contain a comma."
                )
            else:
                rows.append((line, {key: _cell(cell, key) for key, cell in zip(header, cells, strict=True)}))
            line = reader.line_num + 1
    except csv.Error as error:
        raise Refused(f"Expected CSV in {path}; line {line} is not ({error}). Write the file anew.") from None
    if not header:
        raise Refused(f"Expected a header with {','.join(required)} in {path}; it is empty. Write one.")
    return rows


def _cell(cell: str, column: str) -> str:
    """Blanks around a cell are stripped, but a file's name may well begin with one."""
    return from_cell(cell if column == "path" else cell.strip())


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise Refused(f"Expected a CSV file at {path}; got: {error.strerror}. Check the path.") from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise Refused(f"Expected UTF-8 text in {path}; line {line} is not. Save it as CSV UTF-8.") from None


def _header(columns: list[str], path: Path, line: int, required: Sequence[str]) -> list[str]:
    for column in required:
        if column not in columns:
            raise Refused(
                f"Expected a column {column!r} in {path}, line {line}; got {', '.join(columns)}. "
                f"{suggestion(column, columns)}"
            )
    doubled = {column for column in columns if columns.count(column) > 1}
    if doubled:
        raise Refused(
            f"Expected different column names in {path}, line {line}; got {doubled.pop()!r} twice. Rename one."
        )
    return columns


def write_table(path: Path | str, rows: Iterable[Mapping[str, str]], columns: Sequence[str]) -> None:
    """Write rows as CSV (UTF-8, one line feed a row), atomically, with formulas made harmless."""
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([to_cell(row[column]) for column in columns] for row in rows)
    write_text(path, stream.getvalue())
