"""A study's folder read back: each row with what its steps left, whatever is still missing with its reason.

Tables and figures look at nothing else, so a study of years ago, or one that still runs, is shown by the same code.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from quantward.core.store import read_json
from quantward.study.values import Row, Store

WAITING = "not carried out yet"

COORDINATES = ("data", "backbone", "stage", "recipe", "lesson", "target", "runtime")
"""What tells one row from another, in the order in which tables name it."""

SUBJECTS = ("data", "backbone")
"""A figure of the paper about several of these is a mean over them; any other coordinate it leaves open is not."""


@dataclass(frozen=True)
class Line:
    """One row of the grid with what its steps left. `failure` says why it has no result; `timed` are the bench's rows
    of its file on its runtime (`untimed` why there are none); `smaller` is the size of FP32 in the same form over
    its own; `store` is where its score lies."""

    row: Row
    facts: Mapping[str, Any] = field(default_factory=dict)
    failure: str = ""
    timed: tuple[Mapping[str, Any], ...] = ()
    untimed: str = ""
    drift: Mapping[str, Any] = field(default_factory=dict)
    undrifted: str = ""
    external: Mapping[str, Any] = field(default_factory=dict)
    smaller: float | None = None
    store: Store | None = field(default=None, repr=False, compare=False)

    def at(self, coordinate: str) -> str:
        """What the row says at one of the `COORDINATES`."""
        return str(getattr(self.row, coordinate))

    def document(self, name: str) -> Mapping[str, Any]:
        """A JSON file that the row's score left (`evaluation.json`, `comparison.json`); empty where there is none."""
        store: Any = self.store
        return {} if store is None or self.failure else _document(store, self.row.score, name)


@dataclass(frozen=True)
class Paper:
    """One figure of the paper: which rows it is about, what it is, and where it stands. `mission` is the row of the
    mission that it belongs to."""

    mission: str
    where: Mapping[str, Any]
    metric: str
    value: float | None
    cite: str = ""

    def about(self, line: Line) -> bool:
        """Whether it speaks of this row; `*` in what it names stands for anything."""
        return all(fnmatchcase(line.at(key), str(value)) for key, value in self.where.items() if key in COORDINATES)


@dataclass(frozen=True)
class Layers:
    """What the layers of one network mind, as its `sensitivity` step left it."""

    data: str
    backbone: str
    stage: str
    facts: Mapping[str, Any]
    failure: str = ""


@dataclass(frozen=True, eq=False)
class Record:
    """A whole study as it stands: `study` is the file as read, `lines` its rows."""

    folder: Path
    name: str
    study: Mapping[str, Any]
    lines: tuple[Line, ...]
    papers: tuple[Paper, ...] = ()
    layers: tuple[Layers, ...] = ()
    machines: tuple[Mapping[str, Any], ...] = ()
    command: str = ""
    scale: str = ""

    @cached_property
    def finished(self) -> tuple[Line, ...]:
        """The rows that have a result."""
        return tuple(line for line in self.lines if not line.failure)

    @cached_property
    def _told(self) -> dict[str, list[tuple[Paper, frozenset[Row], frozenset[tuple[str, ...]]]]]:
        """Figures of the paper by measure, each with the rows and the subjects it is about."""
        found: dict[str, list[tuple[Paper, frozenset[Row], frozenset[tuple[str, ...]]]]] = {}
        for paper in self.papers:
            lines = [line for line in self.lines if paper.about(line)]
            about = frozenset(line.row for line in lines), frozenset(_subject(line) for line in lines)
            found.setdefault(paper.metric, []).append((paper, *about))
        return found

    def published(self, lines: Iterable[Line], metric: str) -> float | None:
        """The paper's figure of a measure for these rows taken together: one that speaks of all of them, and of no
        other data set or backbone, so that a mean over eight networks never stands beside one of them."""
        if metric not in self._told:
            return None
        rows = {line.row: _subject(line) for line in lines}
        for paper, about, subjects in self._told[metric]:
            if rows and about.issuperset(rows) and subjects == set(rows.values()):
                return paper.value
        return None


@lru_cache(maxsize=256)
def _document(store: Store, key: str, name: str) -> Mapping[str, Any]:
    """What a step left never changes, and a table asks for every class of it."""
    path = store.folder(key) / name
    found: Mapping[str, Any] = read_json(path) if path.is_file() else {}
    return found


def _subject(line: Line) -> tuple[str, ...]:
    return tuple(line.at(name) for name in SUBJECTS)
