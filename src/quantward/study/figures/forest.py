"""Paired differences to FP32 with their intervals, row by row (Figure 3 of the reliability study)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from quantward.core.values import Delta
from quantward.report import _words as words
from quantward.report._figures import forest_axis, forest_row, ruler
from quantward.report._svg import tag
from quantward.study.axes import grouped, precision, precisions
from quantward.study.record import Line, Record
from quantward.study.sheets import Drawing

MOST = 120
"""Rows of one drawing; a longer list is no figure."""


@dataclass(frozen=True)
class Forest:
    """One drawing a data set; a filled dot where the difference is significant at 5 %."""

    metric: str = "auprc"

    def draw(self, record: Record) -> Sequence[Drawing]:
        kind = words.metric(self.metric)
        found = []
        for (data,), lines in grouped(record.finished, "data").items():
            told = [(line, _delta(line, self.metric)) for line in lines if line.facts.get("deltas")]
            told = [(line, delta) for line, delta in told if delta.delta is not None]
            title = f"{kind.words}: difference to the baseline on {data}"
            name = f"forest-{self.metric}-{data}"
            if not told:
                found.append(Drawing(name, title, Markup(""), absent="Nothing is compared with a baseline here."))
                continue
            rest = f" The first {MOST} of {len(told)} rows." if len(told) > MOST else ""
            found.append(Drawing(name, title, _table(record, told[:MOST], kind), read=_READ + rest))
        return found


_READ = (
    "the dot is the difference on the same images, the bar its 95 % interval. Left of the line the smaller file is "
    "worse for measures of which more is better. The bar that crosses the line shows no difference; that is no proof "
    "of equality, for which see the gates."
)


def _delta(line: Line, metric: str) -> Delta:
    found = line.facts["deltas"].get(metric) or {}
    return Delta(None, None, found.get("delta"), found.get("low"), found.get("high"), found.get("p"))


def _table(record: Record, told: Sequence[tuple[Line, Delta]], kind: words.Metric) -> Markup:
    kept = precisions(record.lines)
    scale = ruler([delta for _, delta in told], [None])
    plot = tag("th", "candidate − baseline, with 95 % interval", class_="plot")
    head = tag("tr", tag("th", "network"), tag("th", "precision"), plot, tag("th", "difference", class_="n"),
               tag("th", "p", class_="n"))  # fmt: skip
    rows = []
    for line, delta in told:
        label = precision(line, kept)
        small = tag("small", words.change_bounds(delta, kind))
        rows.append(tag(
            "tr", tag("th", words.visible(line.row.backbone)), tag("td", label),
            tag("td", forest_row(delta, kind, scale, None, "", f"{line.row.backbone}, {label}"), class_="plot"),
            tag("td", kind.change(delta.delta), small, class_="n"), tag("td", words.probability(delta.p), class_="n"),
        ))  # fmt: skip
    axis = tag("tr", tag("td", "", colspan="2"),
               tag("td", forest_axis(scale, kind.better, kind.unit == "percent"), class_="plot"),
               tag("td", "", colspan="2"), class_="axis", aria_hidden="true")  # fmt: skip
    return tag("div", tag("table", tag("thead", head), tag("tbody", *rows, axis), class_="forests"), class_="scroll")
