"""Confusion and flip matrices as shaded tables: exact counts to read, shades to see the pattern."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from quantward.core.values import Entry
from quantward.report._words import count, visible


@dataclass(frozen=True)
class Cell:
    """One count; `heat` from 0 to 1 shades it, `kind` is `right` on the diagonal and `wrong` off it."""

    text: str
    heat: str
    kind: str
    said: str


@dataclass(frozen=True)
class Matrix:
    """A matrix of counts with named rows (down) and columns (across)."""

    title: str
    down: str
    across: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]


def matrices(entry: Entry, baseline: Entry) -> tuple[Matrix, ...]:
    """Confusion of the baseline, confusion of the candidate, and the flips between them, where they are known."""
    found = []
    for side in (baseline, entry):
        if side.evaluation is not None and side.evaluation.confusion:
            title = f"Confusion of {visible(side.name)}"
            found.append(_matrix(title, "true class", "called", side.evaluation.classes, side.evaluation.confusion))
    if entry.comparison is not None and entry.comparison.flips.matrix:
        comparison = entry.comparison
        names = (f"called by {visible(baseline.name)}", f"called by {visible(entry.name)}")
        found.append(_matrix("Flips", *names, comparison.classes, comparison.flips.matrix))
    return tuple(found)


def _matrix(title: str, down: str, across: str, classes: Sequence[str], counts: Sequence[Sequence[int]]) -> Matrix:
    """Shaded by the share of the row, so that a rare class shows as plainly as a common one."""
    names = tuple(visible(name) for name in classes)
    rows = []
    for i, (name, line) in enumerate(zip(names, counts, strict=True)):
        whole = sum(line)
        cells = tuple(
            Cell(
                text=f"{amount:,}" if amount else "·",
                heat=f"{(amount / whole) ** 0.6 if whole else 0:.3f}",
                kind="right" if i == j else "wrong",
                said=f"{count(amount, 'image')}: {down} {name}, {across} {names[j]}",
            )
            for j, amount in enumerate(line)
        )
        rows.append((name, cells))
    return Matrix(title, down, across, names, tuple(rows))
