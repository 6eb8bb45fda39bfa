"""Calibration by precision: ECE and Brier score, means over networks (Table 1 of the reliability study), then each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from quantward.study.axes import grouped, precision, precisions
from quantward.study.measures import measure
from quantward.study.record import Line, Record
from quantward.study.sheets import Sheet, text
from quantward.study.tables._laid import NOTHING, SPREAD, crossed, mean


@dataclass(frozen=True)
class Calibration:
    """One sheet of means, data sets and measures down, precisions across; then a sheet a data set and measure."""

    metrics: tuple[str, ...] = ("ece", "brier")

    def sheets(self, record: Record) -> Sequence[Sheet]:
        kept = precisions(record.lines)
        by: dict[tuple[str, str], list[Line]] = {}
        for line in record.lines:
            by.setdefault((line.row.data, precision(line, kept)), []).append(line)
        across = list(dict.fromkeys(one for _, one in by))
        rows = []
        for data in dict.fromkeys(data for data, _ in by):
            for metric in self.metrics:
                cells = [mean(record, measure(metric), by.get((data, one), [])) for one in across]
                rows.append((text(data), text(measure(metric).title), *cells))
        summary = Sheet("calibration", "Calibration, means over networks", ("data", "measure", *across), tuple(rows),
                        f"Lower is better. {SPREAD}", absent="" if rows else NOTHING, named=2)  # fmt: skip
        each = [
            crossed(record, f"calibration-{metric}-{data}", f"{measure(metric).title} on {data}", lines, metric,
                    "Lower is better.")
            for (data,), lines in grouped(record.lines, "data").items()
            for metric in self.metrics
            if len({line.row.backbone for line in lines}) > 1
        ]  # fmt: skip
        return [summary, *each]
