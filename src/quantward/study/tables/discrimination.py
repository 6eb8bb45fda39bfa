"""Macro AUROC and AUPRC by network and precision (Figures 1 and 5 of the reliability study in numbers)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from quantward.study.axes import grouped
from quantward.study.measures import measure
from quantward.study.record import Record
from quantward.study.sheets import Sheet
from quantward.study.tables._laid import crossed


@dataclass(frozen=True)
class Discrimination:
    """A sheet for each data set and measure; `metrics` is split at `+`."""

    metrics: tuple[str, ...] = ("auroc", "auprc")

    def sheets(self, record: Record) -> Sequence[Sheet]:
        return [
            crossed(record, f"discrimination-{metric}-{data}", f"{measure(metric).title} on {data}", lines, metric)
            for (data,), lines in grouped(record.lines, "data").items()
            for metric in self.metrics
        ]
