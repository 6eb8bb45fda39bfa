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


def temperature(notes: Mapping[str, Any]) -> str:
    """What temperature scaling would change, where images to fit it on were at hand; it is never applied."""
    said = []
    for side in ("baseline", "candidate"):
        found = inside(notes, "calibration", "temperature", side)
        values = [inside(found, "temperature"), inside(found, "before", "ece"), inside(found, "after", "ece")]
        if not all(isinstance(value, float) for value in values):
            return ""
        said.append(
            f"{side} T = {number(values[0], 2)}, ECE {number(values[1], 3)} without and {number(values[2], 3)} with it"
        )
    n = inside(notes, "calibration", "temperature", "baseline", "fitted_on")
    return f"Temperature scaling, fitted on {n:,} other images and not applied: {'; '.join(said)}."


def subgroups(notes: Mapping[str, Any]) -> Table | None:
    """Accuracy of both models on the images of each attribute value, the worst change of each attribute first."""
    rows = inside(notes, "decisions", "subgroups")
    if not isinstance(rows, (list, tuple)):
        return None
    kind = METRICS["accuracy"]
    cells = [
        (
            visible(str(row["attribute"])),
            visible(str(row["value"])),
            f"{row['n']:,}",
            kind.value(row["baseline"]),
            kind.value(row["candidate"]),
            interval(kind.change(row["low"]), kind.change(row["high"])) or ABSENT,
        )
        for row in rows
    ]
    head = ("attribute", "value", "images", "accuracy, baseline", "accuracy, candidate", "difference, 95 %")
    return Table(head, tuple(cells)) if cells else None


def thresholds_from(notes: Mapping[str, Any]) -> str:
    """Where the operating thresholds were chosen, in words."""
    given = inside(notes, "decisions", "thresholds_from") == "given"
    where = "on other images" if given else "on these images"
    return (
        f"Thresholds chosen for the baseline {where} and kept for the candidate, as in a clinic that swaps the file "
        "and nothing else."
    )


def checks(notes: Mapping[str, Any]) -> Mapping[str, Any]:
    """The other tests of the same differences, as they were recorded."""
    found = inside(notes, "tests")
    kept = found if isinstance(found, Mapping) else {}
    return {key: value for key, value in kept.items() if value is not None}
