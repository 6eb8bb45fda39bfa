"""Every figure of the paper beside ours: the row of the mission, what it is about, theirs, ours with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from quantward.core.values import Estimate
from quantward.report._words import ABSENT, visible
from quantward.study.measures import measure
from quantward.study.record import Line, Paper, Record
from quantward.study.sheets import Cell, Sheet, cell, text
from quantward.study.tables._laid import figure, mean


@dataclass(frozen=True)
class Mission:
    """A row for each figure that the study file takes from the paper."""

    def sheets(self, record: Record) -> Sequence[Sheet]:
        rows = [_row(record, paper) for paper in record.papers]
        columns = ("row", "figure", "of", "the paper's", "ours", "where it stands")
        why = "The study file names no figure of a paper (`published`)."
        return [Sheet("mission", "The paper's figures beside ours", columns, tuple(rows),
                      "Images, training and file formats differ as the section on what was left out says; a figure "
                      "beside another is no test of either.",
                      absent="" if rows else why, named=3)]  # fmt: skip


def _row(record: Record, paper: Paper) -> tuple[Cell, ...]:
    kind = measure(paper.metric)
    lines = [line for line in record.lines if paper.about(line)]
    theirs = text(ABSENT) if paper.value is None else Cell(kind.quoted(paper.value), value=kind.factor * paper.value)
    about = ", ".join(str(value) for value in paper.where.values()) or "all rows"
    return (text(paper.mission or ABSENT), text(kind.title), text(visible(about)), theirs,
            _ours(record, paper, lines), text(visible(paper.cite)))  # fmt: skip


def _ours(record: Record, paper: Paper, lines: Sequence[Line]) -> Cell:
    kind = measure(paper.metric)
    if not lines:
        why = "no row of this study, at this scale, is like that"
        return replace(cell(kind, Estimate(None, reason=why)), under="not in the grid")
    found = figure(record, kind, lines[0]) if len(lines) == 1 else mean(record, kind, lines)
    return Cell(found.text, found.under, "", found.state, found.why if len(lines) > 1 or found.value is None else "",
                found.value, found.low, found.high)  # fmt: skip
