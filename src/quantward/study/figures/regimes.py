"""A measure by precision: mean and spread over networks, a dot each (Figures 1 and 5 of the reliability study)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from quantward.study.axes import grouped, precision, precisions
from quantward.study.figures._plot import Dots, dots, legend, scroll
from quantward.study.measures import measure, of
from quantward.study.record import Line, Record
from quantward.study.sheets import Drawing


@dataclass(frozen=True)
class Regimes:
    """One drawing a data set."""

    metric: str = "auroc"

    def draw(self, record: Record) -> Sequence[Drawing]:
        kind = measure(self.metric)
        kept = precisions(record.lines)
        backbones = {name: i for i, name in enumerate(dict.fromkeys(line.row.backbone for line in record.lines))}
        found = []
        for (data,), lines in grouped(record.finished, "data").items():
            by: dict[str, list[Line]] = {}
            for line in lines:
                by.setdefault(precision(line, kept), []).append(line)
            rows = [_row(record, label, self.metric, some, backbones) for label, some in by.items()]
            rows = [row for row in rows if row.singles]
            title = f"{kind.title} on {data} by precision"
            name = f"regimes-{self.metric.replace('.', '-')}-{data}"
            if not rows:
                found.append(Drawing(name, title, legend([]), absent=f"No row has the figure {self.metric}."))
                continue
            content = legend([(b, i, i // 8) for b, i in backbones.items()], any(r.paper is not None for r in rows))
            told = "; ".join(f"{row.label}: {kind.text(row.mean)}" for row in rows)
            found.append(Drawing(name, title, content + scroll(dots(title, rows, kind.title, told)),
                                 read=_READ if len(backbones) > 1 else _ONE))  # fmt: skip
        return found


_READ = (
    "each pale dot is one network, the upright line their mean, the bar one standard deviation to either side: how "
    "networks differ. Dots that leave the others mark a network that this precision does not suit."
)
_ONE = "the upright line is the figure, the bar its 95 % interval."


def _row(record: Record, label: str, metric: str, lines: Sequence[Line], backbones: dict[str, int]) -> Dots:
    kind = measure(metric)
    told = [(line, of(line, metric)) for line in lines]
    scale = kind.factor
    singles = [(scale * found.value, f"{line.row.backbone}: {kind.text(found.value)}", backbones[line.row.backbone])
               for line, found in told if found.value is not None]  # fmt: skip
    if not singles:
        return Dots(label, ())
    values = [value for value, _, _ in singles]
    paper = record.published(lines, metric)
    theirs = None if paper is None else scale * paper
    if len(values) > 1:
        spread = stdev(values)
        return Dots(label, singles, fmean(values), fmean(values) - spread, fmean(values) + spread, theirs)
    one = next(found for _, found in told if found.value is not None)
    low, high = (None if bound is None else scale * bound for bound in (one.low, one.high))
    return Dots(label, singles, values[0], low, high, theirs)
