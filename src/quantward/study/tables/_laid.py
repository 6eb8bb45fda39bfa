"""Three ways to lay rows out that most tables share: row by row, one coordinate across, and means over networks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean, median, stdev

from quantward.core.values import Estimate
from quantward.report._words import ABSENT, OUTCOMES
from quantward.study.axes import TITLES, precision, precisions, varying
from quantward.study.measures import Measure, measure, of, unreliable
from quantward.study.record import Line, Record
from quantward.study.sheets import Cell, Sheet, cell, lost, text

NOTHING = "No row of this study has a result yet."
SPREAD = (
    "A mean over networks stands with its standard deviation, which tells how networks differ, not how sure one is."
)


def listed(
    record: Record,
    name: str,
    title: str,
    lines: Sequence[Line],
    measures: Sequence[str],
    *,
    more: Sequence[tuple[str, Callable[[Line], Cell]]] = (),
    caption: str = "",
    read: str = "",
) -> Sheet:
    """A row a line, the measures across, then the cells of `more`. A measure that no line has is left out."""
    names = coordinates(lines)
    done = [line for line in lines if not line.failure]
    kept = [one for one in measures if any(of(line, one).value is not None for line in done)]
    shown = [measure(one) for one in kept]
    rows = []
    for line in lines:
        head = tuple(text(line.at(key) or ABSENT) for key in names)
        if line.failure:
            rows.append((*head, *lost(line.failure, max(1, len(shown) + len(more)))))
        else:
            cells = [*(figure(record, kind, line) for kind in shown), *(tell(line) for _, tell in more)]
            rows.append((*head, *(cells or [Cell("")])))
    columns = (*(TITLES[key] for key in names), *(kind.title for kind in shown), *(what for what, _ in more))
    columns = columns if shown or more else (*columns, "result")  # where no row has any figure, reasons have a column
    return Sheet(name, title, columns, tuple(rows), caption, read, "" if lines else NOTHING, named=len(names))


def coordinates(lines: Sequence[Line]) -> tuple[str, ...]:
    """The columns that name a row: what varies, and the recipe in any case."""
    names = varying(lines)
    return names if "recipe" in names else (*names, "recipe")


def figure(record: Record, kind: Measure, line: Line) -> Cell:
    """One row's figure beside the paper's; a time that is not to be relied on has a star."""
    found = cell(kind, of(line, kind.name), record.published([line], kind.name))
    if found.value is not None and unreliable(line, kind.name):
        return Cell(found.text + "*", found.under, found.paper, "noisy", "the machine was too noisy", found.value,
                    found.low, found.high, found.published)  # fmt: skip
    return found


def single(record: Record, name: str) -> str:
    """A time at the smallest batch size that the study asks for.

    >>> from pathlib import Path
    >>> single(Record(Path(), "x", {"bench": {"batches": [32, 1]}}, ()), "p50")
    'p50@1'
    """
    return f"{name}@{min(batches(record))}"


def batches(record: Record) -> tuple[int, ...]:
    """The batch sizes that the study times, 1 where it times none."""
    return tuple((record.study.get("bench") or {}).get("batches") or (1,))


def verdict(line: Line) -> Cell:
    """What the gates said; the baseline is not judged."""
    said = line.facts.get("verdict")
    said = said.get("outcome") if isinstance(said, dict) else said
    return Cell(said.lower(), state=OUTCOMES.get(said, "")) if said else Cell("baseline", state="none")


def crossed(record: Record, name: str, title: str, lines: Sequence[Line], metric: str, caption: str = "") -> Sheet:
    """Networks down, precisions across, one measure in the cells; a last row of means where there are several."""
    kind = measure(metric)
    kept = precisions(lines)
    across = list(dict.fromkeys(precision(line, kept) for line in lines))
    down = list(dict.fromkeys(line.row.backbone for line in lines))
    at: dict[tuple[str, str], list[Line]] = {}
    for line in lines:
        at.setdefault((line.row.backbone, precision(line, kept)), []).append(line)
    rows = []
    for backbone in down:
        cells = [_single(record, kind, at.get((backbone, one), [])) for one in across]
        rows.append((text(backbone), *cells))
    if len(down) > 1:
        means = [mean(record, kind, [line for backbone in down for line in at.get((backbone, one), [])])
                 for one in across]  # fmt: skip
        rows.append((text(f"mean of {len(down)}"), *means))
        caption = f"{caption} {SPREAD}".strip()
    return Sheet(name, title, ("backbone", *across), tuple(rows), caption, absent="" if lines else NOTHING)


def _single(record: Record, kind: Measure, lines: Sequence[Line]) -> Cell:
    if not lines:
        return Cell("", why="not in the grid")
    if lines[0].failure:
        return Cell("failed", state="failed", why=lines[0].failure)
    return figure(record, kind, lines[0])


def mean(record: Record, kind: Measure, lines: Sequence[Line]) -> Cell:
    """Mean over networks with their standard deviation, and the paper's mean; how many failed is told."""
    return _gathered(record, kind, lines, fmean, "mean")


def middle(record: Record, kind: Measure, lines: Sequence[Line]) -> Cell:
    """Median over networks, least and largest under it, and the paper's median."""
    return _gathered(record, kind, lines, median, "median")


def _gathered(
    record: Record, kind: Measure, lines: Sequence[Line], how: Callable[[Sequence[float]], float], word: str
) -> Cell:
    values = [value for line in lines if (value := of(line, kind.name).value) is not None]
    published = record.published(lines, kind.name)
    if not values:
        why = next((line.failure for line in lines if line.failure), of(lines[0], kind.name).reason if lines else "")
        return cell(kind, Estimate(None, reason=why or "not in the grid"), published)
    paper = "" if published is None else kind.quoted(published)
    short = len(lines) - len(values)
    why = (
        f"{word} over {len(values)} of {len(lines)}; the rest has no figure" if short else f"{word} over {len(values)}"
    )
    if len(values) == 1:
        under = ""
    elif word == "mean":
        under = f"± {kind.text(stdev(values)).lstrip('+')}"
    else:
        under = kind.interval(min(values), max(values))
    return Cell(kind.text(how(values)) + ("†" if short else ""), under, paper, "", why, kind.factor * how(values),
                published=None if published is None else kind.factor * published)  # fmt: skip
