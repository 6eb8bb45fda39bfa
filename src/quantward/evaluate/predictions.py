"""Prediction files: the second waist, and the easiest way in, so every fault is named with file and line.

A file is CSV (or Parquet, where pyarrow is installed) with the header `id[,group],truth,<class 1>,...,<class K>`.
"""

from __future__ import annotations

import csv
import importlib
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from quantward.core.cells import from_cell, to_cell
from quantward.core.errors import Refused, UsageError, suggestion
from quantward.core.store import atomic, write_text
from quantward.core.values import FloatArray, Predictions

SUM_TOLERANCE = 1e-3
"""How far a row of probabilities may sum from 1."""


def load(path: Path | str) -> Predictions:
    """Read a prediction file; `source` of the result is the file's stem.

    Raises Refused, with file and line, for a missing column, a duplicated id, an unknown truth class, a value that
    is no probability (NaN, logits) or a row that does not sum to 1 within 1e-3.
    """
    path = Path(path)
    if not path.is_file():
        raise Refused(f"Expected a prediction file at {path}; there is none. Check the path.")
    header, rows, lines = _parquet(path) if path.suffix.lower() in (".parquet", ".pq") else csv_rows(path)
    grouped = len(header) > 2 and header[1] == "group" and header[2] == "truth"
    first = 3 if grouped else 2
    if not header or header[0] != "id" or header[first - 1 : first] != ["truth"]:
        raise Refused(
            f"Expected the header id[,group],truth,<class 1>,...,<class K> in line 1 of {path}; "
            f"got {','.join(header) or 'nothing'}. Name the columns so, in this order."
        )
    classes = tuple(from_cell(name) for name in header[first:])
    _check_classes(classes, path)
    index = {name: number for number, name in enumerate(classes)}
    ids: list[str] = []
    groups: list[str] = []
    truth = np.empty(len(rows), np.int64)
    probabilities = np.empty((len(rows), len(classes)))
    seen: dict[str, int] = {}
    for number, (row, line) in enumerate(zip(rows, lines, strict=True)):
        where = f"line {line} of {path}"
        if len(row) != len(header):
            raise Refused(f"Expected {len(header)} columns in {where}; got {len(row)}. Complete the row.")
        name, label = from_cell(row[0]), from_cell(row[first - 1])
        if not name:
            raise Refused(f"Expected an id in {where}; it is empty. Give every image its own id.")
        if name in seen:
            raise Refused(
                f"Expected every id once; {name!r} in {where} stands in line {seen[name]} already. Remove one of them."
            )
        seen[name] = line
        if label not in index:
            raise Refused(
                f"Expected a class name in column 'truth', {where}; got {label!r}. {suggestion(label, classes)}"
            )
        ids.append(name)
        truth[number] = index[label]
        if grouped:
            groups.append(from_cell(row[1]))
            if not groups[-1]:
                raise Refused(f"Expected a group in {where}; it is empty. Name each image's patient.")
        probabilities[number] = [
            _number(cell, column, where) for cell, column in zip(row[first:], classes, strict=True)
        ]
    if not ids:
        raise Refused(f"Expected at least one row below the header of {path}; there is none. Add the predictions.")
    _check_probabilities(probabilities, lines, path)
    return Predictions(tuple(ids), truth, probabilities, classes, path.stem, tuple(groups) if grouped else None)


def save(predictions: Predictions, path: Path | str) -> None:
    """Write a prediction file (atomically). `load` gives the same values back to the last bit.

    Names that a spreadsheet would run as a formula (`=`, `+`, `-`, `@` first) get a leading apostrophe in CSV.
    """
    path = Path(path)
    parquet = path.suffix.lower() in (".parquet", ".pq")
    keep = str if parquet else to_cell
    header = ["id", *(["group"] if predictions.groups is not None else []), "truth"]
    header += [keep(name) for name in predictions.classes]
    names: list[list[str]] = [[keep(name) for name in predictions.ids]]
    if predictions.groups is not None:
        names.append([keep(name) for name in predictions.groups])
    names.append([keep(predictions.classes[i]) for i in predictions.truth.tolist()])
    if parquet:
        arrow, tables = _arrow()
        columns = [*names, *np.asarray(predictions.probabilities, np.float64).T]
        with atomic(path) as temporary:
            tables.write_table(arrow.table(dict(zip(header, columns, strict=True))), temporary)
        return
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    values = np.asarray(predictions.probabilities, np.float64).tolist()
    writer.writerows((*cells, *row) for *cells, row in zip(*names, values, strict=True))
    write_text(path, text.getvalue())


def csv_rows(path: Path) -> tuple[list[str], list[list[str]], list[int]]:
    """Header, rows and their line numbers; a byte-order mark, CRLF and empty lines are taken as they come."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream, strict=True)
            header = [name.strip() for name in next(reader, [])]
            rows, lines = [], []
            for row in reader:
                if row:
                    rows.append(row)
                    lines.append(reader.line_num)
    except UnicodeDecodeError as error:
        raise Refused(f"Expected UTF-8 text in {path}; byte {error.start} is not. Save it as UTF-8.") from None
    except csv.Error as error:
        raise Refused(f"Expected CSV in line {reader.line_num} of {path}; {error}. Mend the quotes.") from None
    return header, rows, lines


def _parquet(path: Path) -> tuple[list[str], list[list[Any]], list[int]]:
    """The same from Parquet; the line of a row is its number plus one, as if the header were line 1."""
    arrow, tables = _arrow()
    try:
        table = tables.read_table(path)
    except (arrow.ArrowException, OSError) as error:
        first = str(error).partition("\n")[0]
        raise Refused(f"Expected Parquet in {path}; it cannot be read ({first}). Write the file anew.") from None
    columns = [column.to_pylist() for column in table.columns]
    names = sum(name in ("id", "group", "truth") for name in table.column_names[:3])
    for position in range(min(names, len(columns))):
        columns[position] = ["" if cell is None else str(cell) for cell in columns[position]]
    rows = [list(row) for row in zip(*columns, strict=True)]
    return list(table.column_names), rows, list(range(2, len(rows) + 2))


def _arrow() -> tuple[Any, Any]:
    try:
        pyarrow = importlib.import_module("pyarrow")
        tables = importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise UsageError(
            "Expected pyarrow for a Parquet file; it is not installed. pip install pyarrow, or use CSV."
        ) from None
    return pyarrow, tables


def _number(cell: Any, column: str, where: str) -> float:
    try:
        value = float(cell)
    except (TypeError, ValueError):
        raise Refused(f"Expected a number in column {column!r}, {where}; got {cell!r}. Mend the cell.") from None
    if not math.isfinite(value):
        raise Refused(
            f"Expected a finite probability in column {column!r}, {where}; got {value}. "
            "Find out why the model gives no number here."
        )
    return value


def _check_classes(classes: Sequence[str], path: Path) -> None:
    if len(classes) < 2:
        raise Refused(f"Expected at least two class columns in line 1 of {path}; got {len(classes)}. Add the others.")
    if any(not name for name in classes):
        raise Refused(f"Expected a name for every class in line 1 of {path}; one is empty. Name it.")
    if len(set(classes)) < len(classes):
        twice = next(name for name in classes if list(classes).count(name) > 1)
        raise Refused(f"Expected every class once in line 1 of {path}; {twice!r} stands there twice. Remove one.")


def _check_probabilities(values: FloatArray, lines: Sequence[int], path: Path) -> None:
    """Refuse rows that are no probabilities, and say so where they look like logits."""
    outside = ((values < 0) | (values > 1)).any(axis=1)
    off = np.abs(values.sum(axis=1) - 1) > SUM_TOLERANCE
    if outside.any():
        row = int(outside.argmax())
        low, high = float(values[row].min()), float(values[row].max())
        many = float((outside | off).mean()) > 0.5
        raise Refused(
            f"Expected probabilities between 0 and 1 in line {lines[row]} of {path}; got {low:.4g} to {high:.4g}"
            + (", which look like logits. Apply a softmax to each row first." if many else ". Mend the row.")
        )
    if off.any():
        row = int(off.argmax())
        raise Refused(
            f"Expected the probabilities in line {lines[row]} of {path} to sum to 1 within {SUM_TOLERANCE}; "
            f"they sum to {values[row].sum():.6g}. Write the softmax of all classes."
        )


def pooled(folds: Sequence[Predictions], source: str) -> Predictions:
    """What several folds said, one after the other, as one set; groups only where every fold has them."""
    groups = [fold.groups for fold in folds]
    return Predictions(
        ids=tuple(name for fold in folds for name in fold.ids),
        truth=np.concatenate([fold.truth for fold in folds]),
        probabilities=np.concatenate([fold.probabilities for fold in folds]),
        classes=folds[0].classes,
        source=source,
        groups=None if None in groups else tuple(name for group in groups for name in group or ()),
    )
