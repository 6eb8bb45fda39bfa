"""Stated probability against observed frequency by precision (Figure 7 of the reliability study)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from quantward.core.values import ReliabilityBin
from quantward.report._figures import reliability
from quantward.report._svg import tag
from quantward.report._words import visible
from quantward.study.axes import grouped, precision, precisions
from quantward.study.figures._plot import legend, style
from quantward.study.record import Record
from quantward.study.sheets import Drawing

MOST = 6
"""Precisions in one diagram; more lines would hide each other."""


@dataclass(frozen=True)
class Reliability:
    """A drawing for each data set and network, a panel a class; `backbone` shows one network alone."""

    backbone: str = ""

    def draw(self, record: Record) -> Sequence[Drawing]:
        kept = precisions(record.lines)
        found = []
        for (data, backbone), lines in grouped(record.finished, "data", "backbone").items():
            if self.backbone not in ("", backbone):
                continue
            told = [(precision(line, kept), bins) for line in lines if (bins := line.document("evaluation.json"))]
            if not told:
                continue
            rest = f" The first {MOST} of {len(told)} precisions." if len(told) > MOST else ""
            told = told[:MOST]
            panels = [
                tag("figure", tag("figcaption", visible(label)),
                    reliability(label, [(name, style(i), _bins(whole, label)) for i, (name, whole) in enumerate(told)]))
                for label in told[0][1]["classes"]
            ]  # fmt: skip
            keys = legend([(name, i, 0) for i, (name, _) in enumerate(told)])
            found.append(Drawing(f"reliability-{data}-{backbone}", f"Reliability: {backbone} on {data}",
                                 keys + tag("div", *panels, class_="panels"), read=_READ + rest))  # fmt: skip
        why = f"No row with the backbone {self.backbone} has a result." if self.backbone else "No row has a result yet."
        return found or [Drawing("reliability", "Reliability", Markup(""), absent=why)]


_READ = (
    "on the diagonal, a stated 80 % comes true in 80 of 100 images. Below it the model is too sure of the class, above "
    "it too timid. Small dots are few images and may lie anywhere by chance."
)


def _bins(whole: Mapping[str, Any], label: str) -> list[ReliabilityBin]:
    return [ReliabilityBin(**one) for one in whole["reliability"].get(label, ())]
