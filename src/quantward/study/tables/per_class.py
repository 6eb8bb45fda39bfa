"""Each class by precision (Table 3 of the reliability study): a mean can stand while a rare class falls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from quantward.study.axes import grouped, precision, precisions
from quantward.study.measures import measure
from quantward.study.record import Line, Record
from quantward.study.sheets import Cell, Sheet, lost, text
from quantward.study.tables._laid import NOTHING, figure


@dataclass(frozen=True)
class PerClass:
    """A sheet for each data set and network; `backbone` shows one network alone, `metrics` is split at `+`."""

    metrics: tuple[str, ...] = ("auprc", "auroc")
    backbone: str = ""

    def sheets(self, record: Record) -> Sequence[Sheet]:
        found = [
            by_class(
                record, f"per-class-{data}-{backbone}", f"Class by class: {backbone} on {data}", lines, self.metrics
            )
            for (data, backbone), lines in grouped(record.lines, "data", "backbone").items()
            if self.backbone in ("", backbone)
        ]
        why = f"No row has the backbone {self.backbone}." if self.backbone else NOTHING
        return found or [Sheet("per-class", "Class by class", (), (), absent=why)]


def by_class(record: Record, name: str, title: str, lines: Sequence[Line], metrics: Sequence[str]) -> Sheet:
    """Precisions down, classes and measures across."""
    kept = precisions(lines)
    classes = next((list(whole["classes"]) for line in lines if (whole := line.document("evaluation.json"))), [])
    asked = [measure(f"{metric}[{label}]") for label in classes for metric in metrics]
    rows: list[tuple[Cell, ...]] = []
    for line in lines:
        if line.failure:
            rows.append((text(precision(line, kept)), *lost(line.failure, max(1, len(asked)))))
        else:
            cells = [figure(record, kind, line) for kind in asked] or [Cell("")]
            rows.append((text(precision(line, kept)), *cells))
    titles = tuple(kind.title for kind in asked) or ("result",)
    return Sheet(name, title, ("precision", *titles), tuple(rows), _counts(lines), absent="" if rows else NOTHING)


def _counts(lines: Sequence[Line]) -> str:
    """How many test images each class has: under twenty, an interval settles nothing."""
    whole = next((found for line in lines if (found := line.document("evaluation.json"))), None)
    if whole is None:
        return ""
    return f"Test images: {', '.join(f'{label} {count:,}' for label, count in whole['counts'].items())}."
