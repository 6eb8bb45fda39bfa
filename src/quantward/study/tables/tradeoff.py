"""What each precision keeps and saves: accuracy to AUC, size, latency (the anemia study's table)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from quantward.study.measures import asked
from quantward.study.record import Record
from quantward.study.sheets import Sheet
from quantward.study.tables._laid import listed, single, verdict

MANY = 500
"""Rows beyond which precision and the figures of one class, which need each row's whole evaluation, are left out."""

CAPTION = "Difference: against FP32 on the same images, with its paired 95 % interval."


@dataclass(frozen=True)
class Tradeoff:
    """A row a file; `positive` names the class that precision, recall and F1 are about (empty: the one whose
    precision or F1 the paper gives, else macro means)."""

    positive: str = ""

    def sheets(self, record: Record) -> Sequence[Sheet]:
        positive = self.positive or _named(record)
        tail = f"[{positive}]" if positive else ""
        few = len(record.lines) <= MANY
        first = ["accuracy", *([f"precision{tail}"] if few else []), *(f"{name}{tail if few else ''}"
                 for name in ("sensitivity", "f1")), "auroc", "delta.accuracy"]  # fmt: skip
        costs = ("bytes", "smaller", single(record, "p50"), single(record, "speedup"), "integer_share")
        return [listed(record, "tradeoff", "What each precision keeps and saves", record.lines, [*first, "ece", *costs],
                       more=[("verdict", verdict)], caption=CAPTION)]  # fmt: skip


def _named(record: Record) -> str:
    """The one class whose precision or F1 the paper gives."""
    told = {
        one.label for paper in record.papers if (one := asked(paper.metric)).name in ("precision", "f1") and one.label
    }
    return told.pop() if len(told) == 1 else ""
