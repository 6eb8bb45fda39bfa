"""What each point of a grid of precision and training keeps: the bits by mask ratio of the endoscopy study, and its
ablations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from quantward.report._words import ABSENT
from quantward.study.axes import values_of
from quantward.study.record import Record
from quantward.study.sheets import Cell, Sheet, text
from quantward.study.tables._laid import listed, single, verdict

CAPTION = "Drift: the row's saliency maps against those of its network in FP32, mean over images."


@dataclass(frozen=True)
class Frontier:
    """Rows in the order of the study's values; a row without a value is an ablation."""

    metrics: tuple[str, ...] = ("accuracy", "sensitivity", "specificity")

    def sheets(self, record: Record) -> Sequence[Sheet]:
        drifts = dict.fromkeys(f"drift.{name}" for line in record.lines for name in line.drift)
        found = listed(record, "frontier", "Bits, masks and what is left", record.lines,
                       [*self.metrics, "delta.accuracy", *drifts, "bytes", "smaller", single(record, "p50")],
                       more=[("verdict", verdict)], caption=CAPTION)  # fmt: skip
        values = values_of(record, record.lines)
        names = list(dict.fromkeys(name for one in values for name in one))
        lead = [tuple(_value(one.get(name)) for name in names) for one in values]
        rows = tuple((*head, *row) for head, row in zip(lead, found.rows, strict=True))
        return [replace(found, columns=(*names, *found.columns), rows=rows, named=len(names) + found.named)]


def _value(value: object) -> Cell:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return Cell(f"{value:g}", value=float(value))
    return text(ABSENT if value is None else value)
