"""The frontier over two things that a study varies: one across, one a line each (bits by mask ratio)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from markupsafe import Markup

from quantward.study.axes import grouped, is_float, values_of, varied
from quantward.study.figures._plot import Point, legend, lines, scroll
from quantward.study.measures import measure, of
from quantward.study.record import Line, Record
from quantward.study.sheets import Drawing
from quantward.study.tables.sweep import swept


@dataclass(frozen=True)
class Frontier:
    """`across` and `by` name what is varied (empty: the first and the second such name)."""

    metric: str = "accuracy"
    across: str = ""
    by: str = ""

    def draw(self, record: Record) -> Sequence[Drawing]:
        kind = measure(self.metric)
        names = swept(record)
        across = self.across or next(iter(names), "")
        by = self.by or next((name for name in names if name != across), "")
        if across not in varied(record):
            why = f"No row of this study varies {across or 'anything'}."
            return [Drawing("frontier", "Frontier", Markup(""), absent=why)]
        found = []
        for (data, backbone), rows in grouped(record.finished, "data", "backbone").items():
            by_value: dict[str, list[Point]] = {}
            values = varied(record)[across]
            for line, told in zip(rows, values_of(record, rows), strict=True):
                one = of(line, self.metric)
                if across not in told or one.value is None:
                    continue
                label = f"{by} {told[by]}" if by in told else line.row.lesson or "plain"
                low, high = (None if b is None else kind.factor * b for b in (one.low, one.high))
                said = f"{across} {told[across]}, {label}: {kind.text(one.value)} ({kind.interval(one.low, one.high)})"
                series = list(by_value).index(label) if label in by_value else len(by_value)
                place = float(values.index(told[across]))
                by_value.setdefault(label, []).append(Point(place, kind.factor * one.value, said, low, high, series))
            if by_value:
                title = f"{kind.title} by {across}: {backbone} on {data}"
                apart = _apart(list(by_value.values()))
                marks: list[tuple[float, str]] = [(float(i), _mark(value)) for i, value in enumerate(values)]
                drawn = lines(
                    title,
                    apart,
                    marks,
                    across,
                    kind.title,
                    f"{len(by_value)} lines",
                    band=False,
                    level=level(rows, self.metric),
                )
                keys = legend([(label, i, i // 8) for i, label in enumerate(by_value)])
                found.append(Drawing(f"frontier-{self.metric.replace('.', '-')}-{data}-{backbone}", title,
                                     keys + scroll(drawn), read=_READ))  # fmt: skip
        return found or [Drawing("frontier", "Frontier", Markup(""), absent="No row has a result yet.")]


_READ = "each mark is one deployed file with its 95 % interval; marks of one value stand side by side."


def level(lines: Sequence[Line], metric: str) -> tuple[float, str] | None:
    """The figure of FP32, where these rows have one network in full precision."""
    found = [one.value for line in lines if is_float(line) and (one := of(line, metric)).value is not None]
    return (measure(metric).factor * found[0], "FP32") if len(found) == 1 and found[0] is not None else None


def _mark(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _apart(rows: Sequence[Sequence[Point]]) -> list[list[Point]]:
    """Lines moved a little sideways, so that their bars do not hide each other; bands would, and are left out."""
    step = 0.36 / max(1, len(rows))
    return [[replace(p, x=p.x + step * (i - (len(rows) - 1) / 2)) for p in sorted(row, key=lambda p: p.x)]
            for i, row in enumerate(rows)]  # fmt: skip
