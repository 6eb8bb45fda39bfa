"""The three plots that the figures of a study are: rows of dots on one scale, lines with bands, and a cloud of points.

Drawn with the report's SVG primitives. Series are told apart by colour and by the shape of their marks, and every mark
says in words what it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from quantward.report._front import Axis, spanning
from quantward.report._svg import coordinate, join, tag, ticks
from quantward.report._words import visible

STYLES = 8
"""Colours of series; further series begin again, with another shape."""

STEP, LABELS, WIDE, NARROW = 26.0, 250.0, 760.0, 640.0
"""Height of a row of dots, width of the column of its labels, widths of whole drawings."""

FULL = 44
"""Characters of a label that fit."""

STYLE = """
.graph { width: 100%; min-width: 560px; height: auto; display: block; }
.graph .plane { fill: var(--sheet); } .graph .grid { stroke: var(--line); stroke-width: .6; fill: none; }
.graph .mid { text-anchor: middle; } .graph .end { text-anchor: end; }
.graph .label { fill: var(--ink); font-size: 11.5px; }
.graph .mark { fill: var(--c); stroke: var(--paper); stroke-width: .8; }
.graph .pale { fill-opacity: .8; stroke: none; } .graph .band { fill: var(--c); fill-opacity: .13; }
.graph .whisker { stroke: var(--c); stroke-width: 1.6; fill: none; }
.graph .whisker.mean { stroke: var(--ink); stroke-width: 1.8; }
.graph .level { stroke: var(--base); stroke-dasharray: 5 3; stroke-width: 1.2; }
.graph .line { stroke: var(--c); stroke-width: 1.8; fill: none; }
.graph .paper, .series .paper { fill: var(--paper); stroke: var(--fail); stroke-width: 1.6; }
.curve:is(.s0, .s1, .s2, .s3, .s4, .s5, .s6, .s7) { stroke: var(--c); }
.dot:is(.s0, .s1, .s2, .s3, .s4, .s5, .s6, .s7) { fill: var(--c); }
.series { list-style: none; margin: 0 0 8px; padding: 0; display: flex; flex-wrap: wrap; gap: 2px 20px;
  font-size: 12.5px; color: var(--soft); }
.series svg { width: 14px; height: 12px; vertical-align: -1px; margin-right: 5px; overflow: visible; }
.series .mark { fill: var(--c); } .series li { overflow-wrap: anywhere; }
.s0 { --c: #0067a6; } .s1 { --c: #c24a00; } .s2 { --c: #00805c; } .s3 { --c: #a8437f; } .s4 { --c: #3d8fc4; }
.s5 { --c: #9a7400; } .s6 { --c: #555d66; } .s7 { --c: #6b4fa8; }
@media (prefers-color-scheme: dark) {
  .s0 { --c: #56b4e9; } .s1 { --c: #ff9d6b; } .s2 { --c: #4fd0a0; } .s3 { --c: #e59ac6; } .s4 { --c: #8ecbf0; }
  .s5 { --c: #e8bd5a; } .s6 { --c: #b4bdc6; } .s7 { --c: #b7a3e8; }
}
"""


@dataclass(frozen=True)
class Point:
    """One measured value with its interval and what is said of it."""

    x: float
    y: float
    said: str
    low: float | None = None
    high: float | None = None
    series: int = 0
    shape: int = 0


@dataclass(frozen=True)
class Dots:
    """One row of a dot plot: single networks, their mean with its spread, and the paper's mean."""

    label: str
    singles: Sequence[tuple[float, str, int]]
    mean: float | None = None
    low: float | None = None
    high: float | None = None
    paper: float | None = None


def mark(x: float, y: float, shape: int, kind: str, said: str = "", r: float = 4.2) -> Markup:
    """A circle, square, triangle or diamond."""
    head = (tag("title", said),) if said else ()
    shape %= 4
    if shape == 0:
        return tag("circle", *head, cx=x, cy=y, r=r, class_=kind)
    corners = {
        1: [(-0.88, -0.88), (0.88, -0.88), (0.88, 0.88), (-0.88, 0.88)],
        2: [(0, -1.15), (1.05, 0.8), (-1.05, 0.8)],
        3: [(0, -1.2), (1.2, 0), (0, 1.2), (-1.2, 0)],
    }[shape]
    steps = "L".join(f"{coordinate(x + r * dx)} {coordinate(y + r * dy)}" for dx, dy in corners)
    return tag("path", *head, d=f"M{steps}Z", class_=kind)


def style(series: int) -> str:
    """The class that holds a series' colour."""
    return f"s{series % STYLES}"


def legend(names: Sequence[tuple[str, int, int]], paper: bool = False) -> Markup:
    """What colours and shapes stand for: (name, series, shape)."""
    items = [tag("li", tag("svg", mark(7, 6, shape, "mark"), viewBox="0 0 14 12", aria_hidden="true"), visible(name),
                 class_=style(series)) for name, series, shape in names]  # fmt: skip
    if paper:
        items.append(tag("li", tag("svg", mark(7, 6, 3, "paper"), viewBox="0 0 14 12", aria_hidden="true"),
                         "the paper's"))  # fmt: skip
    return tag("ul", *items, class_="series") if items else Markup("")


def scroll(*content: Markup) -> Markup:
    """A drawing that is moved sideways where the window is narrower than it can be read."""
    return tag("div", *content, class_="scroll")


def dots(title: str, rows: Sequence[Dots], across: str, told: str) -> Markup:
    """Rows of dots on one horizontal scale."""
    values = [v for row in rows for v in (row.mean, row.low, row.high, row.paper, *(one[0] for one in row.singles))
              if v is not None]  # fmt: skip
    x = spanning(values, LABELS + 14, WIDE - 12)
    floor = 8 + STEP * len(rows)
    parts = [_ruled(x, 8, floor)]
    for k, row in enumerate(rows):
        y = 8 + STEP * (k + 0.5)
        parts.append(tag("text", tag("title", row.label), cut(row.label), x=LABELS, y=y + 4, class_="label end"))
        if row.mean is not None:
            if row.low is not None and row.high is not None:
                parts.append(_whisker(x.at(row.low), x.at(row.high), y, "whisker mean"))
            parts.append(tag("line", x1=x.at(row.mean), x2=x.at(row.mean), y1=y - 7, y2=y + 7, class_="whisker mean"))
        for value, said, series in row.singles:
            parts.append(tag("g", mark(x.at(value), y, series // STYLES, "mark pale", said, 3.6), class_=style(series)))
        if row.paper is not None:
            parts.append(mark(x.at(row.paper), y, 3, "paper", f"the paper's: {row.paper:.4g}", 4.6))
    parts.append(tag("text", across, x=(x.start + x.stop) / 2, y=floor + 31, class_="axis mid"))
    return _whole(title, told, parts, WIDE, floor + 38)


def lines(
    title: str,
    rows: Sequence[Sequence[Point]],
    marks: Sequence[tuple[float, str]],
    across: str,
    upward: str,
    told: str,
    log: bool = False,
    band: bool = True,
    level: tuple[float, str] | None = None,
) -> Markup:
    """A line a series with its intervals, as a band or as bars; `marks` are the places across that have a name, `level`
    a dashed line (value, words)."""
    points = [point for row in rows for point in row]
    at = [value for value, _ in marks]
    x = _around([*at, *(point.x for point in points)], 56, NARROW - 14, log)
    held = [v for p in points for v in (p.y, p.low, p.high) if v is not None] + ([level[0]] if level else [])
    y = spanning(held, 230, 10)
    parts = [_framed(x, y, marks)]
    if level is not None:
        high = y.at(level[0])
        parts += [tag("line", x1=x.start, x2=x.stop, y1=high, y2=high, class_="level"),
                  tag("text", level[1], x=x.stop - 4, y=high - 4, class_="tick end")]  # fmt: skip
    for row in rows:
        if not row:
            continue
        kind, bounded = style(row[0].series), [p for p in row if p.low is not None and p.high is not None]
        drawn = []
        if band and len(bounded) > 1:
            there = [f"{coordinate(x.at(p.x))} {coordinate(y.at(p.high or 0))}" for p in bounded]
            back = [f"{coordinate(x.at(p.x))} {coordinate(y.at(p.low or 0))}" for p in reversed(bounded)]
            drawn.append(tag("path", d=f"M{'L'.join([*there, *back])}Z", class_="band"))
        steps = "L".join(f"{coordinate(x.at(p.x))} {coordinate(y.at(p.y))}" for p in row)
        drawn.append(tag("path", d=f"M{steps}", class_="line"))
        for p in row:
            if p.low is not None and p.high is not None and (not band or len(bounded) == 1):
                drawn.append(tag("line", x1=x.at(p.x), x2=x.at(p.x), y1=y.at(p.low), y2=y.at(p.high), class_="whisker"))
            drawn.append(mark(x.at(p.x), y.at(p.y), p.series // STYLES, "mark", p.said))
        parts.append(tag("g", *drawn, class_=kind))
    parts += _names(x, y, across, upward)
    return _whole(title, told, parts, NARROW, 268)


def cloud(title: str, points: Sequence[Point], across: str, upward: str, told: str) -> Markup:
    """Points with their vertical intervals over a logarithmic horizontal axis."""
    x = _around([p.x for p in points], 56, WIDE - 14, True)
    y = spanning([v for p in points for v in (p.y, p.low, p.high) if v is not None], 330, 10)
    parts = [_framed(x, y, [(v, f"{v:g}") for v in _round_marks(x)])]
    for p in points:
        bars = []
        if p.low is not None and p.high is not None:
            bars.append(tag("line", x1=x.at(p.x), x2=x.at(p.x), y1=y.at(p.low), y2=y.at(p.high), class_="whisker"))
        parts.append(tag("g", *bars, mark(x.at(p.x), y.at(p.y), p.shape, "mark", p.said, 5), class_=style(p.series)))
    parts += _names(x, y, across, upward)
    return _whole(title, told, parts, WIDE, 368)


def cut(label: str, room: int = FULL) -> str:
    """A label that fits; the whole one stands in its tooltip.

    >>> cut("int8-static:calibrator=max", 12)
    'int8-static…'
    """
    return visible(label) if len(label) <= room else visible(label)[: room - 1] + "…"


def _around(values: Sequence[float], start: float, stop: float, log: bool) -> Axis:
    """An axis that ends a little beyond its values, also where it is logarithmic (no empty decade)."""
    low, high = min(values), max(values)
    if log and low > 0:
        air = (high / low) ** 0.06 if high > low else 1.5
        return Axis(low / air, high * air, start, stop, True)
    air = 0.06 * (high - low) or 0.5
    return Axis(low - air, high + air, start, stop)


def _round_marks(axis: Axis) -> list[float]:
    """1, 2, 5, 10, ... within a logarithmic axis; even steps where it spans little."""
    if axis.high < 8 * axis.low:
        return ticks(axis.low, axis.high, about=6)
    return [m * 10.0**k for k in range(-4, 7) for m in (1, 2, 5) if axis.low <= m * 10.0**k <= axis.high]


def _ruled(x: Axis, top: float, floor: float) -> Markup:
    """Ground, grid and numbers of a horizontal scale."""
    marks = x.marks()
    grid = "".join(f"M{coordinate(x.at(v))} {coordinate(floor)}V{coordinate(top)}" for v, _ in marks)
    return join([
        tag("rect", x=x.start, y=top, width=x.stop - x.start, height=floor - top, class_="plane"),
        tag("path", d=grid, class_="grid"),
        *(tag("text", text, x=x.at(v), y=floor + 14, class_="tick mid") for v, text in marks),
    ])  # fmt: skip


def _framed(x: Axis, y: Axis, marks: Iterable[tuple[float, str]]) -> Markup:
    """Ground, grid and numbers of both axes."""
    marks = list(marks)
    grid = "".join(f"M{coordinate(x.at(v))} {coordinate(y.start)}V{coordinate(y.stop)}" for v, _ in marks)
    grid += "".join(f"M{coordinate(x.start)} {coordinate(y.at(v))}H{coordinate(x.stop)}" for v, _ in y.marks())
    return join([
        tag("rect", x=x.start, y=y.stop, width=x.stop - x.start, height=y.start - y.stop, class_="plane"),
        tag("path", d=grid, class_="grid"),
        *(tag("text", text, x=x.at(v), y=y.start + 14, class_="tick mid") for v, text in marks),
        *(tag("text", text, x=x.start - 5, y=y.at(v) + 3.5, class_="tick end") for v, text in y.marks()),
    ])  # fmt: skip


def _names(x: Axis, y: Axis, across: str, upward: str) -> list[Markup]:
    middle = (y.start + y.stop) / 2
    return [
        tag("text", across, x=(x.start + x.stop) / 2, y=y.start + 31, class_="axis mid"),
        tag("text", upward, x=11, y=middle, class_="axis mid", transform=f"rotate(-90 11 {coordinate(middle)})"),
    ]


def _whisker(start: float, stop: float, y: float, kind: str) -> Markup:
    return tag("path", d=f"M{coordinate(start)} {coordinate(y)}H{coordinate(stop)}", class_=kind)


def _whole(title: str, told: str, parts: Sequence[Markup], wide: float, tall: float) -> Markup:
    box = f"0 0 {coordinate(wide)} {coordinate(tall)}"
    return tag("svg", tag("title", visible(title)), tag("desc", visible(told)), *parts, viewBox=box, role="img",
               class_="graph", style=f"max-width:{coordinate(wide * 1.3)}px")  # fmt: skip
