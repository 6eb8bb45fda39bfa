"""What a table of a study is made of: cells that know their figure, its interval and the paper's, whatever shows them.

The same sheet becomes HTML, CSV and LaTeX, so no figure is written down twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from markupsafe import Markup

from quantward.core.values import Estimate
from quantward.report._words import ABSENT
from quantward.study.measures import Measure
from quantward.study.record import Record


@dataclass(frozen=True)
class Cell:
    """One cell. `under` is the interval as it is read, `paper` the paper's figure, `state` a badge's colour (`lost`:
    the reason of a row without a result, which takes the room of all its figures); `value`, `low`, `high` and
    `published` are the bare numbers in the unit of the column's title. Without a figure it says `why`."""

    text: str
    under: str = ""
    paper: str = ""
    state: str = ""
    why: str = ""
    value: float | None = None
    low: float | None = None
    high: float | None = None
    published: float | None = None

    @property
    def numeric(self) -> bool:
        return self.value is not None or self.text == ABSENT or self.published is not None


@dataclass(frozen=True)
class Sheet:
    """One table: `name` is the stem of its files; `absent` says why it is empty where it is."""

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    caption: str = ""
    read: str = ""
    absent: str = ""
    named: int = 1
    """How many columns on the left name the row."""


@dataclass(frozen=True)
class Drawing:
    """One figure with its caption; `absent` says why there is none."""

    name: str
    title: str
    content: Markup
    caption: str = ""
    read: str = ""
    absent: str = ""


class Table(Protocol):
    """A file in `study/tables`: a frozen dataclass whose fields are its options."""

    def sheets(self, record: Record) -> Sequence[Sheet]: ...


class Figure(Protocol):
    """A file in `study/figures`: a frozen dataclass whose fields are its options."""

    def draw(self, record: Record) -> Sequence[Drawing]: ...


def text(words: object) -> Cell:
    """A cell that only names something.

    >>> text("int8-static").text
    'int8-static'
    """
    return Cell(str(words))


def cell(measure: Measure, found: Estimate, published: float | None = None) -> Cell:
    """A figure with its interval and, where there is one, the paper's."""
    theirs = None if published is None else measure.factor * published
    paper = "" if published is None else measure.quoted(published)
    if found.value is None:
        return Cell(ABSENT, paper=paper, why=found.reason or "not measured", published=theirs)
    value, low, high = (None if one is None else measure.factor * one for one in (found.value, found.low, found.high))
    return Cell(measure.text(found.value), measure.interval(found.low, found.high), paper, "", found.reason,
                value, low, high, theirs)  # fmt: skip


def lost(why: str, width: int) -> tuple[Cell, ...]:
    """The cells of a row that has no result: its reason, then nothing.

    >>> [one.text for one in lost("out of memory", 3)]
    ['failed: out of memory', '', '']
    """
    return (Cell(f"failed: {why}", state="lost", why=why), *(Cell("") for _ in range(width - 1)))
