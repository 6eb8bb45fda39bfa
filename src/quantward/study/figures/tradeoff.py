"""How good against how fast, a mark a file (Figure 2 of the reliability study)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from quantward.study.axes import grouped, precision, precisions
from quantward.study.figures._plot import Point, cloud, legend, scroll
from quantward.study.measures import measure, of
from quantward.study.record import Record
from quantward.study.sheets import Drawing


@dataclass(frozen=True)
class Tradeoff:
    """`metric` upwards, `cost` (p50@1, bytes, ...) across; one drawing a data set."""

    metric: str = "auprc"
    cost: str = "p50@1"

    def draw(self, record: Record) -> Sequence[Drawing]:
        up, along = measure(self.metric), measure(self.cost)
        kept = precisions(record.lines)
        backbones = {name: i for i, name in enumerate(dict.fromkeys(line.row.backbone for line in record.lines))}
        shapes = {name: i for i, name in enumerate(dict.fromkeys(precision(line, kept) for line in record.lines))}
        found = []
        for (data,), lines in grouped(record.lines, "data").items():
            points = []
            for line in lines:
                value, cost = of(line, self.metric), of(line, self.cost)
                if value.value is None or cost.value is None or cost.value <= 0:
                    continue
                name, how = line.row.backbone, precision(line, kept)
                low, high = (None if bound is None else up.factor * bound for bound in (value.low, value.high))
                said = f"{name}, {how}: {up.title} {up.text(value.value)}, {along.title} {along.text(cost.value)}"
                points.append(Point(along.factor * cost.value, up.factor * value.value, said, low, high,
                                    backbones[name] if len(backbones) > 1 else shapes[how], shapes[how]))  # fmt: skip
            title = f"{up.title} against {along.title} on {data}"
            name = f"tradeoff-{self.metric}-{self.cost.replace('@', '-')}-{data}".replace(".", "-")
            if not points:
                why = f"No row has both {self.metric} and {self.cost}: the study times nothing, or has not come to it."
                found.append(Drawing(name, title, Markup(""), absent=why))
                continue
            keys = [*((b, i, 0) for b, i in backbones.items() if len(backbones) > 1),
                    *((p, 6 if len(backbones) > 1 else i, i) for p, i in shapes.items())]  # fmt: skip
            drawn = scroll(cloud(title, points, along.title, up.title, f"{len(points)} files"))
            found.append(Drawing(name, title, legend(keys) + drawn, read=_READ))
        return found


_READ = (
    "up and to the left is better. Colours are networks and shapes precisions; four shapes serve all precisions in "
    "turn. Upright bars are 95 % intervals; the words behind a mark appear when it is pointed at."
)
