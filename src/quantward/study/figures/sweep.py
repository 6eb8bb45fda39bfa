"""A measure over what a study varies, with intervals (Figure 4 of the reliability study; A4, D2 of the mission)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from quantward.study.axes import varied
from quantward.study.figures._plot import Point, legend, lines, scroll
from quantward.study.figures.frontier import level
from quantward.study.measures import measure, of
from quantward.study.record import Record
from quantward.study.sheets import Drawing
from quantward.study.tables.sweep import series, swept

WIDEST = 8.0
"""Values that span more than this factor are drawn on a logarithmic axis."""


@dataclass(frozen=True)
class Sweep:
    """`over` names what is varied (empty: the first such name); one drawing a data set."""

    metric: str = "auprc"
    over: str = ""

    def draw(self, record: Record) -> Sequence[Drawing]:
        name = self.over or next(iter(swept(record)), "")
        kind = measure(self.metric)
        found = series(record, name) if name else {}
        if not found:
            why = f"No row of this study varies {self.over or 'anything'}."
            return [Drawing("sweep", f"{kind.title}, swept", Markup(""), absent=why)]
        values = list(varied(record)[name])
        places = _places(values)
        drawings = []
        for data in dict.fromkeys(where for where, _ in found):
            title = f"{kind.title} on {data} by {name}"
            rows, keys = [], []
            for i, (label, row) in enumerate((label, row) for (where, label), row in found.items() if where == data):
                points = []
                for value, line in row.items():
                    one = of(line, self.metric)
                    if one.value is not None:
                        low, high = (None if b is None else kind.factor * b for b in (one.low, one.high))
                        said = f"{label}, {name} {value}: {kind.text(one.value)} ({kind.interval(one.low, one.high)})"
                        points.append(Point(places[value], kind.factor * one.value, said, low, high, i))
                if points:
                    rows.append(points)
                    keys.append((label, i, i // 8))
            stem = f"sweep-{name}-{self.metric.replace('.', '-')}-{data}"
            if not rows:
                drawings.append(Drawing(stem, title, Markup(""), absent=f"No row has the figure {self.metric}."))
                continue
            marks = [(places[value], str(value)) for value in values]
            drawn = lines(
                title,
                rows,
                marks,
                name,
                kind.title,
                f"{len(rows)} lines",
                _log(values),
                level=level([line for line in record.finished if line.row.data == data], self.metric),
            )
            drawings.append(Drawing(stem, title, legend(keys) + scroll(drawn), read=_READ))
        return drawings


_READ = (
    "each mark is one deployed file, the band its 95 % interval. Marks whose intervals overlap widely are not "
    "shown to differ: a best value picked by eye among them is luck."
)


def _places(values: Sequence[Any]) -> dict[Any, float]:
    """Where values stand: numbers at themselves, words in their order."""
    if all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values):
        return {value: float(value) for value in values}
    return {value: float(i) for i, value in enumerate(values)}


def _log(values: Sequence[Any]) -> bool:
    numbers = list(_places(values).values())
    return min(numbers) > 0 and max(numbers) / min(numbers) > WIDEST and numbers != list(range(len(numbers)))
