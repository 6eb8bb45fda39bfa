"""The figure of a bench page: a bar for each file and runtime on one scale of milliseconds, with p90, p99, factors."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from markupsafe import Markup

from quantward.core.values import Efficiency, Latency, Speedup
from quantward.report._svg import coordinate, join, tag, ticks
from quantward.report._words import milliseconds, number, ratio, visible

WIDE, NAMES, GAINS = 1070.0, 235.0, 355.0
"""Width of the drawing, of the column of names on the left, and of that of factors on the right, in its own units."""

STEP, HEAD, FOOT = 34.0, 8.0, 26.0
"""Height of a row, and of what is above and below all rows."""

FULL = 35
"""Characters of a name that fit."""

Row = tuple[str, Efficiency, Latency, Sequence[Speedup]]
"""A device (empty where there is one only), what was timed, its latency, and its factors at that batch size."""


def bars(rows: Sequence[Row]) -> Markup:
    """All rows on one linear scale; it ends at the largest p90, and a longer p99 is cut off there."""
    longest = max(line.p90 for _, _, line, _ in rows) * 1.02 or 1.0
    start, stop = NAMES + 10, WIDE - GAINS
    floor = HEAD + STEP * len(rows)

    def x(value: float) -> float:
        return start + min(value, longest) / longest * (stop - start)

    marks = ticks(0, longest, about=6)
    grid = "".join(f"M{coordinate(x(mark))} {coordinate(HEAD)}V{coordinate(floor)}" for mark in marks)
    labels = [tag("text", f"{mark:g}", x=x(mark), y=floor + 14, class_="tick mid") for mark in marks]
    unit = tag("text", "milliseconds a call", x=WIDE - GAINS + 12, y=floor + 14, class_="tick")
    drawn = [_row(row, HEAD + STEP * i, x) for i, row in enumerate(rows)]
    said = f"{len(rows)} bars; the shortest {milliseconds(min(line.p50 for _, _, line, _ in rows))} ms."
    box = f"0 0 {coordinate(WIDE)} {coordinate(floor + FOOT)}"
    return tag("svg", tag("title", "Milliseconds a call"), tag("desc", said), tag("path", d=grid, class_="grid"),
               *labels, unit, *drawn, viewBox=box, role="img", class_="bars")  # fmt: skip


def _row(row: Row, top: float, x: Callable[[float], float]) -> Markup:
    device, cost, line, gains = row
    middle = top + STEP / 2
    where = " · ".join(part for part in (device, cost.runtime, f"{cost.threads} threads" * (cost.threads > 1)) if part)
    kind = ("float " if cost.recipe == "fp32" else "") + ("noisy " if not line.reliable else "")
    tip = f"{cost.name} on {cost.runtime}: p50 {line.p50:.3g}, p90 {line.p90:.3g}, p99 {line.p99:.3g} ms"
    y = coordinate(middle)
    parts = [
        tag("text", _cut(visible(cost.name)), x=0, y=middle - 2, class_="name"),
        tag("text", _cut(visible(where), FULL + 5), x=0, y=middle + 11, class_="where"),
        tag("rect", tag("title", tip), x=x(0), y=top + 7, width=max(1.0, x(line.p50) - x(0)), height=STEP - 14,
            class_=f"bar {kind}".strip()),
        tag("path", d=f"M{coordinate(x(line.p90))} {y}H{coordinate(x(line.p99))}", class_="far"),
        tag("path", d=f"M{coordinate(x(line.p50))} {y}H{coordinate(x(line.p90))}m0 -5v10", class_="whisker"),
        tag("text", f"{milliseconds(line.p50)} ms", x=WIDE - GAINS + 12, y=middle + 4, class_="value"),
    ]  # fmt: skip
    for i, one in enumerate(gains[:2]):
        text = f"{ratio(one.value)} ({number(one.low, 1)}–{number(one.high, 1)}) over {one.reference}"
        parts.append(tag("text", _cut(visible(text), 50), x=WIDE - GAINS + 76,
                         y=middle + (4 if len(gains) == 1 else -3 + 13 * i), class_="gain"))  # fmt: skip
    return join(parts)


def _cut(text: str, room: int = FULL) -> str:
    """A name that fits its column.

    >>> _cut("int8-static:calibrator=percentile", 12)
    'int8-static…'
    """
    return text if len(text) <= room else text[: room - 1] + "…"
