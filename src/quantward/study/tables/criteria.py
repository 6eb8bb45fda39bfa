"""Acceptance criteria row by row: small enough, and as close as a bound, not a point, says (the CIFAR study's)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from quantward.study.axes import is_float
from quantward.study.measures import of
from quantward.study.record import Line, Record
from quantward.study.sheets import Cell, Sheet
from quantward.study.tables._laid import listed


@dataclass(frozen=True)
class Criteria:
    """`ratio`: how many times smaller than FP32 in the same form; `points`: how much of `metric` may be lost."""

    ratio: float = 4.0
    points: float = 2.0
    metric: str = "accuracy"

    def sheets(self, record: Record) -> Sequence[Sheet]:
        return [listed(
            record, "criteria", "Criteria", record.lines,
            [self.metric, "bytes", "smaller", f"delta.{self.metric}", "agreement", "integer_share"],
            more=[(f"at least {self.ratio:g} times smaller", self.small),
                  (f"at most {self.points:g} points lost", self.close), ("both", self.both)],
            caption="Size like for like: against FP32 written in the same form. The loss is met where its whole "
            "interval lies inside the limit, not met where all of it lies beyond, undecided where it reaches over.",
        )]  # fmt: skip

    def small(self, line: Line) -> Cell:
        """A size has no error: met or not."""
        if is_float(line):
            return Cell("baseline", state="none")
        if line.smaller is None:
            return Cell("undecided", state="undecided", why="FP32 in the same form has no file")
        return _said("met" if line.smaller >= self.ratio else "not met")

    def close(self, line: Line) -> Cell:
        found = of(line, f"delta.{self.metric}")
        if found.reason == "is the baseline":
            return Cell("baseline", state="none")
        if found.value is None or found.low is None or found.high is None:
            return Cell("undecided", state="undecided", why=found.reason or "the difference has no interval")
        limit = -self.points / 100
        return _said("met" if found.low >= limit else "not met" if found.high < limit else "undecided")

    def both(self, line: Line) -> Cell:
        said = {self.small(line).text, self.close(line).text}
        if "baseline" in said:
            return Cell("baseline", state="none")
        return _said("not met" if "not met" in said else "undecided" if "undecided" in said else "met")


def _said(word: str) -> Cell:
    return Cell(word, state={"met": "pass", "not met": "fail"}.get(word, "undecided"))
