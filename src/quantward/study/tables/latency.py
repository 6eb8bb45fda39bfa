"""Latency of single images and what it gains: p50, p90, p99, speed-up, size (Table 4 of the reliability study)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from quantward.study.record import Record
from quantward.study.sheets import Sheet
from quantward.study.tables._laid import batches, listed

CAPTION = (
    "All files of a network were timed in turns on one machine. Times as fast: median of FP32 on the same runtime "
    "(where it does not exist there, on another) over its own, with the 95 % interval from resampled rounds."
)


@dataclass(frozen=True)
class Latency:
    """A row a file; `batches` are the batch sizes shown, split at `+` (none: the study's)."""

    batches: tuple[int, ...] = ()

    def sheets(self, record: Record) -> Sequence[Sheet]:
        timed = [line for line in record.lines if line.timed or line.failure]
        measures = [
            *(f"{what}@{batch}" for batch in self.batches or batches(record)
              for what in ("p50", "p90", "p99", "throughput", "speedup")),
            "bytes", "smaller", "making",
        ]  # fmt: skip
        why = "" if timed else "This study times nothing (it has no `bench`), or has not come to it yet."
        found = listed(record, "latency", "Latency, file by file", timed, measures,
                       caption=CAPTION,
                       read="* the machine was too noisy for this time to mean much.")  # fmt: skip
        return [found if timed else Sheet(found.name, found.title, found.columns, (), absent=why)]
