"""One thing varied, everything else held: calibration-set sizes above all (A4, B5 and D2 of the mission)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from quantward.report._words import visible
from quantward.study.axes import precisions, values_of, varied, without
from quantward.study.measures import measure
from quantward.study.record import Line, Record
from quantward.study.sheets import Cell, Sheet, text
from quantward.study.tables._laid import figure


@dataclass(frozen=True)
class Sweep:
    """A sheet for each data set and measure; `over` names what is varied (empty: the first such name)."""

    over: str = ""
    metrics: tuple[str, ...] = ("accuracy", "delta.accuracy", "auroc", "ece")

    def sheets(self, record: Record) -> Sequence[Sheet]:
        name = self.over or next(iter(swept(record)), "")
        found = series(record, name) if name else {}
        if not found:
            why = f"No row of this study varies {self.over or 'anything'}."
            return [Sheet("sweep", "Sweep", (), (), absent=why)]
        sheets = []
        for data in dict.fromkeys(data for data, _ in found):
            lines = {label: row for (where, label), row in found.items() if where == data}
            sheets += [_sheet(record, name, data, metric, lines) for metric in self.metrics]
        return sheets


def swept(record: Record) -> list[str]:
    """The varied names that have more than one value in the rows."""
    values = values_of(record, record.lines)
    return [name for name in varied(record) if len({str(one[name]) for one in values if name in one}) > 1]


def series(record: Record, name: str) -> dict[tuple[str, str], dict[Any, Line]]:
    """(data set, what is held) -> value of `name` -> row, in the order of the values."""
    kept = precisions(record.lines)
    several = len({line.row.backbone for line in record.lines}) > 1
    found: dict[tuple[str, str], dict[Any, Line]] = {}
    for line, values in zip(record.lines, values_of(record, record.lines), strict=True):
        if name in values:
            parts = [line.row.backbone] if several else []
            for key in ("stage", "recipe", "lesson", "target", "runtime"):
                word = without(record, line.at(key), name)
                parts += [word] if word and (key == "recipe" or key in kept) else []
            found.setdefault((line.row.data, visible(" · ".join(parts))), {})[values[name]] = line
    order = {value: i for i, value in enumerate(varied(record).get(name, ()))}
    return {key: dict(sorted(row.items(), key=lambda item: order.get(item[0], 0))) for key, row in found.items()}


def _sheet(
    record: Record, name: str, data: str, metric: str, lines: Mapping[str, Mapping[Any, Line]]
) -> Sheet:  # fmt: skip
    kind = measure(metric)
    values = dict.fromkeys(value for row in lines.values() for value in row)
    rows = []
    for value in values:
        cells = [_cell(record, kind.name, row.get(value)) for row in lines.values()]
        rows.append((text(value), *cells))
    return Sheet(f"sweep-{name}-{metric.replace('.', '-')}-{data}", f"{kind.title} on {data} by {name}",
                 (name, *lines), tuple(rows))  # fmt: skip


def _cell(record: Record, metric: str, line: Line | None) -> Cell:
    if line is None:
        return Cell("", why="not in the grid")
    if line.failure:
        return Cell("failed", state="failed", why=line.failure)
    return figure(record, measure(metric), line)
