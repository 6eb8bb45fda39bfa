"""Training stage by stage, then precision by precision, and each class (the brain MRI study's comparison)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from quantward.study.axes import grouped
from quantward.study.record import Record
from quantward.study.sheets import Sheet
from quantward.study.tables._laid import listed, single, verdict
from quantward.study.tables.per_class import by_class


@dataclass(frozen=True)
class Stages:
    """One sheet of rows, then one a data set and network with what its referee asked for: each class, with n."""

    metrics: tuple[str, ...] = ("sensitivity", "precision", "f1")

    def sheets(self, record: Record) -> Sequence[Sheet]:
        rows = listed(
            record, "stages", "Training and precision", record.lines,
            ["accuracy", "delta.accuracy", "balanced_accuracy", "auroc", "ece", "external.accuracy", "external.auroc",
             "bytes", "smaller", single(record, "p50"), single(record, "speedup")],
            more=[("verdict", verdict)],
            caption="Size: the deployed file. Difference: FP32 of a later training against the first one, any other "
            "precision against FP32 of the same training, on the same images, with paired 95 % intervals.",
        )  # fmt: skip
        classes = [
            by_class(
                record,
                f"classes-{data}-{backbone}",
                f"What each class keeps: {backbone} on {data}",
                lines,
                self.metrics,
            )
            for (data, backbone), lines in grouped(record.lines, "data", "backbone").items()
        ]
        return [rows, *classes]
