"""Tables that come with data sets, read as generously as their authors wrote them: commas or tabs, ragged rows."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from quantward.core.errors import Refused


def read_listing(path: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    """The rows of a CSV or TSV by column name, in lower case; cells that a row lacks are "".

    Raises Refused where one of `columns` is absent.
    """
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    mark = "\t" if "\t" in text.partition("\n")[0] else ","
    try:
        cells = list(csv.reader(io.StringIO(text, newline=""), delimiter=mark))
    except csv.Error as error:
        raise Refused(f"Expected a table at {path}; it cannot be read ({error}). Get it anew.") from None
    header = [name.strip().lower() for name in cells[0]] if cells else []
    absent = [name for name in columns if name not in header]
    if absent:
        raise Refused(f"Expected a column {absent[0]!r} in {path}; got {', '.join(header)[:200]}. Get the table anew.")
    return [
        dict(zip(header, [*map(str.strip, row), *[""] * len(header)], strict=False)) for row in cells[1:] if any(row)
    ]
