"""The cross-checks that a Comparison carries in its notes: chance's share of the ECE, operating points, other tests.

Notes are plain data whose keys may grow; what is absent or of another shape is left out, never guessed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from quantward.report._words import ABSENT, METRICS, interval, number, visible


@dataclass(frozen=True)
class Table:
    """A plain table: column names, rows of values, and which rows stand out."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    marked: frozenset[int] = frozenset()


def inside(notes: Any, *keys: str) -> Any:
    """What lies at the end of a path of keys, None where it ends early.

    >>> inside({"a": {"b": 1}}, "a", "b"), inside({"a": 2}, "a", "b")
    (1, None)
    """
    for key in keys:
        notes = notes.get(key) if isinstance(notes, Mapping) else None
    return notes


def ece_floor(calibration: Any) -> str:
    """What a perfectly calibrated model would show: without it nobody can tell whether an ECE is large."""
    mean, high = inside(calibration, "ece_floor", "mean"), inside(calibration, "ece_floor", "high")
    if not isinstance(mean, float) or not isinstance(high, float):
        return ""
    return (
        f"With so few images even a perfectly calibrated model would show an ECE of {number(mean, 3)} "
        f"(in 95 of 100 cases at most {number(high, 3)})."
    )


def operating_points(notes: Mapping[str, Any]) -> Table | None:
    """Sensitivity and specificity at the baseline's own thresholds, which a clinic would keep when the file changes."""
    points = inside(notes, "decisions", "operating_points")
    if not isinstance(points, Mapping):
        return None
    rows = []
    for label, point in points.items():
        if inside(point, "baseline", "threshold") is None:
            continue
        cells = [visible(label), number(inside(point, "baseline", "threshold"), 3)]
        for name in ("sensitivity", "specificity"):
            kind = METRICS[name]
            moved = interval(*(kind.change(inside(point, f"{name}_{end}")) for end in ("low", "high")))
            before, after = (inside(point, side, name) for side in ("baseline", "frozen"))
            cells += [kind.value(before), kind.value(after), moved or ABSENT]
        rows.append(tuple(cells))
    head = ("class", "threshold")
    each = ("baseline", "candidate", "difference, 95 %")
    return Table((*head, *(f"{name}, {part}" for name in ("sensitivity", "specificity") for part in each)),
                 tuple(rows)) if rows else None  # fmt: skip


def checks(notes: Mapping[str, Any]) -> Mapping[str, Any]:
    """The other tests of the same differences, as they were recorded."""
    found = inside(notes, "tests")
    kept = found if isinstance(found, Mapping) else {}
    return {key: value for key, value in kept.items() if value is not None}
