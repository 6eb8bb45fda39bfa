"""What precision saves by family of networks: throughput, p50, conversion (Table 2 of the reliability study)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from quantward.study.axes import TITLES, family, varying
from quantward.study.measures import measure
from quantward.study.record import Line, Record
from quantward.study.sheets import Sheet, text
from quantward.study.tables._laid import NOTHING, batches, middle


@dataclass(frozen=True)
class Efficiency:
    """Medians over the networks of a family, least and largest under them; `batch` is the batch size (0: the study's
    largest)."""

    batch: int = 0

    def sheets(self, record: Record) -> Sequence[Sheet]:
        names = varying(record.lines, ("data", "stage", "recipe", "lesson", "target", "runtime"))
        batch = self.batch or max(batches(record))
        measures = [measure(one) for one in (f"throughput@{batch}", f"p50@{batch}", "making", "bytes", "smaller")]
        groups: dict[tuple[str, ...], list[Line]] = {}
        for line in record.lines:
            key = (*(line.at(name) for name in names), family(line.row.backbone))
            groups.setdefault(key, []).append(line)
        rows = [(*map(text, key), *(middle(record, one, lines) for one in measures)) for key, lines in groups.items()]
        columns = (*(TITLES[name] for name in names), "family", *(one.title for one in measures))
        return [Sheet("efficiency", "Costs by family of networks", columns, tuple(rows),
                      "Medians over networks, the least and the largest under them. † Some networks have no figure.",
                      absent="" if rows else NOTHING, named=len(names) + 1)]  # fmt: skip
