"""All rows by all figures: the table that any study has, and the one to compute on (its CSV holds every bound)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from quantward.evaluate.metrics import OVERALL
from quantward.study.record import Record
from quantward.study.sheets import Sheet
from quantward.study.tables._laid import listed, single, verdict


@dataclass(frozen=True)
class Rows:
    """Every row of the grid."""

    def sheets(self, record: Record) -> Sequence[Sheet]:
        measures = (
            *OVERALL, "delta.accuracy", "delta.auroc", "delta.ece", "flips", "bytes", "smaller", "agreement",
            "integer_share", "making", single(record, "p50"), single(record, "speedup"), "external.accuracy",
            "external.auroc",
        )  # fmt: skip
        return [listed(record, "rows", "Every row", record.lines, measures, more=[("verdict", verdict)],
                       caption="Pooled over folds, with 95 % intervals under the figures.",
                       read="a row that failed stays, with its reason. * The machine was too noisy.")]  # fmt: skip
