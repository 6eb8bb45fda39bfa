"""The first sheet of an .xlsx, read with the standard library: one table is no reason for another dependency."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from xml.etree import ElementTree

from quantward.core.errors import Refused

SPACE = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
LARGEST = 64 << 20


def read_sheet(path: Path) -> list[dict[str, str]]:
    """The rows below the header, by column name in lower case; empty cells are "".

    Raises Refused for anything but a plain workbook.
    """
    try:
        with zipfile.ZipFile(path) as book:
            names = set(book.namelist())
            shared = _strings(_parse(book, "xl/sharedStrings.xml")) if "xl/sharedStrings.xml" in names else []
            cells = [_row(row, shared) for row in _parse(book, "xl/worksheets/sheet1.xml").iter(f"{SPACE}row")]
    except (zipfile.BadZipFile, ElementTree.ParseError, KeyError, IndexError, ValueError, OSError) as error:
        raise Refused(
            f"Expected an .xlsx workbook at {path}; it cannot be read ({error}). Save its sheet as CSV beside it."
        ) from None
    rows = [row for row in cells if any(row.values())]
    if not rows:
        return []
    header = {place: name.strip().lower() for place, name in rows[0].items() if name.strip()}
    return [{name: row.get(place, "") for place, name in header.items()} for row in rows[1:]]


def _parse(book: zipfile.ZipFile, name: str) -> ElementTree.Element:
    if book.getinfo(name).file_size > LARGEST:
        raise ValueError(f"{name} is too large")
    text = book.read(name)
    if b"<!DOCTYPE" in text:
        raise ValueError("it declares entities")
    return ElementTree.fromstring(text)


def _strings(root: ElementTree.Element) -> list[str]:
    return ["".join(piece.text or "" for piece in entry.iter(f"{SPACE}t")) for entry in root.iter(f"{SPACE}si")]


def _row(row: ElementTree.Element, shared: list[str]) -> dict[str, str]:
    """Column letters -> text."""
    found: dict[str, str] = {}
    for cell in row.iter(f"{SPACE}c"):
        column = re.sub(r"\d", "", cell.get("r", ""))
        value = cell.findtext(f"{SPACE}v") or ""
        if cell.get("t") == "s":
            value = shared[int(value)]
        elif cell.get("t") == "inlineStr":
            value = "".join(piece.text or "" for piece in cell.iter(f"{SPACE}t"))
        found[column] = value
    return found
