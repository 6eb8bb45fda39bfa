"""Milliseconds of one image by network and precision (Figure 6 of the reliability study), as the bench's bars."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from markupsafe import Markup

from quantward.core.store import decode
from quantward.core.values import Efficiency
from quantward.report._speed import Row as Bar
from quantward.report._speed import bars
from quantward.report.speed import READ, gains
from quantward.study.axes import grouped, precision, precisions
from quantward.study.figures._plot import scroll
from quantward.study.record import Record
from quantward.study.sheets import Drawing

MOST = 60
"""Bars of one drawing."""


@dataclass(frozen=True)
class Latency:
    """One drawing a data set at one batch size."""

    batch: int = 1

    def draw(self, record: Record) -> Sequence[Drawing]:
        kept = tuple(name for name in precisions(record.lines) if name != "runtime")
        found = []
        for (data,), lines in grouped(record.lines, "data").items():
            timed = [(line, one) for line in lines for one in line.timed
                     if any(row["batch"] == self.batch for row in one["latency"])][:MOST]  # fmt: skip
            costs = decode(list[Efficiency], [one for _, one in timed], "the bench")
            shown: list[Bar] = []
            for (line, _), cost in zip(timed, costs, strict=True):
                row = replace(cost, name=precision(line, kept), recipe=line.row.recipe)
                shown += [(line.row.backbone, row, one, gains(row, self.batch)) for one in row.latency
                          if one.batch == self.batch]  # fmt: skip
            title = f"Latency at batch {self.batch} on {data}"
            name = f"latency-{self.batch}-{data}"
            if shown:
                found.append(Drawing(name, title, scroll(bars(shown)), read=_lower(READ)))
            else:
                why = f"Nothing was timed at batch size {self.batch}."
                found.append(Drawing(name, title, Markup(""), absent=why))
        return found


def _lower(text: str) -> str:
    return text.removeprefix("How to read it: ")
