"""The figures of a report as inline SVG: forest rows, reliability diagrams, ROC and precision-recall curves, bars."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup

from quantward.core.values import Delta, ReliabilityBin
from quantward.report._svg import Panel, Ruler, coordinate, join, tag, ticks
from quantward.report._words import Metric, change_bounds, signed

ROW = 40.0
"""Height of one forest row in pixels."""


@dataclass(frozen=True)
class Limit:
    """How far a difference may go before a gate fails; positive, in the metric's unit, towards harm."""

    margin: float
    better: str

    @property
    def place(self) -> float:
        """Where the margin lies on the axis candidate - baseline."""
        return -self.margin if self.better == "higher" else self.margin


def ruler(deltas: Iterable[Delta], limits: Iterable[Limit | None]) -> Ruler:
    """A scale, symmetric about zero, that holds all margins and the intervals of all ordinary rows.

    One collapsed candidate must not squeeze the others to dots: rows four times as wide as the median row are cut
    at the edge (and drawn with an arrow).
    """
    reach = sorted(
        max(abs(x) for x in (d.delta, d.low, d.high) if x is not None) for d in deltas if d.delta is not None
    )
    margins = [limit.margin for limit in limits if limit is not None]
    if not reach:
        edge = max(margins, default=0.01)
    else:
        median = reach[len(reach) // 2] if len(reach) % 2 else reach[len(reach) // 2 - 1]
        ordinary = max(4 * median, 2.5 * max(margins, default=0.0))
        edge = max([min(reach[-1], ordinary) if ordinary > 0 else reach[-1], *margins])
    edge = 1.12 * edge if edge > 0 else 0.01
    return Ruler(-edge, edge)


def forest_row(delta: Delta, kind: Metric, scale: Ruler, limit: Limit | None, state: str, label: str) -> Markup:
    """One row of a forest plot: the margin's forbidden side shaded, zero as a line, the interval with its dot."""
    middle = ROW / 2
    parts = []
    if limit is not None:
        edge = scale.at(limit.place)
        start, width = (0.0, edge) if limit.place <= 0 else (edge, 100 - edge)
        parts += [
            tag(
                "rect",
                x=f"{coordinate(start)}%",
                y=0,
                width=f"{coordinate(width)}%",
                height=ROW,
                class_="beyond",
            ),
            tag("line", x1=f"{coordinate(edge)}%", x2=f"{coordinate(edge)}%", y1=0, y2=ROW, class_="margin"),
        ]
    parts.append(tag("line", x1=scale.place(0), x2=scale.place(0), y1=0, y2=ROW, class_="zero"))
    if delta.delta is not None:
        low = delta.delta if delta.low is None else delta.low
        high = delta.delta if delta.high is None else delta.high
        parts.append(tag("line", x1=scale.place(low), x2=scale.place(high), y1=middle, y2=middle, class_=f"ci {state}"))
        for bound in (low, high):
            if scale.low <= bound <= scale.high:
                x = scale.place(bound)
                parts.append(tag("line", x1=x, x2=x, y1=middle - 4, y2=middle + 4, class_=f"ci {state}"))
        for sign, anchor, beyond in (("◀", "start", low < scale.low), ("▶", "end", high > scale.high)):
            if beyond:
                x = "0%" if anchor == "start" else "100%"
                parts.append(tag("text", sign, x=x, y=middle + 4, text_anchor=anchor, class_=f"arrow {state}"))
        if scale.low <= delta.delta <= scale.high:
            parts.append(tag("circle", cx=scale.place(delta.delta), cy=middle, r=4, class_=f"point {state}"))
    said = f"{label}: {kind.change(delta.delta)}"
    reach = change_bounds(delta, kind)
    said += f", interval {reach}" if reach else ""
    if limit is not None:
        said += f", margin {kind.change(limit.place)}"
    return tag("svg", tag("title", said), *parts, class_="forest", height=ROW, width="100%", role="img")


def forest_axis(scale: Ruler, better: str | None, percent: bool) -> Markup:
    """The axis under forest rows: ticks, and which side is worse (None where that differs from row to row)."""
    factor = 100 if percent else 1
    marks = ticks(factor * scale.low, factor * scale.high, about=4)
    step = min((b - a for a, b in pairwise(marks)), default=1.0)
    digits = next((d for d in range(6) if abs(round(step, d) - step) < 1e-9 * max(1.0, step)), 6)
    parts = [tag("line", x1="0%", x2="100%", y1=0.5, y2=0.5, class_="frame")]
    for mark in marks:
        place = scale.at(mark / factor)
        anchor = "start" if place < 6 else "end" if place > 94 else "middle"
        x = f"{coordinate(place)}%"
        parts += [
            tag("line", x1=x, x2=x, y1=0, y2=4, class_="frame"),
            tag("text", signed(mark, digits), x=x, y=15, text_anchor=anchor, class_="tick"),
        ]
    worse = ("0%", "start", "← worse") if better == "higher" else ("100%", "end", "worse →")
    other = ("100%", "end", "better →") if better == "higher" else ("0%", "start", "← better")
    for x, anchor, word in (worse, other) if better else ():
        parts.append(tag("text", word, x=x, y=29, text_anchor=anchor, class_="axis"))
    unit = "points" if percent else "difference"
    parts.append(tag("text", unit, x="50%", y=29, text_anchor="middle", class_="axis"))
    return tag("svg", tag("title", "Axis"), *parts, class_="forest", height=33, width="100%", role="img")


def reliability(name: str, series: Sequence[tuple[str, str, Sequence[ReliabilityBin]]]) -> Markup:
    """Stated probability against observed frequency, one line a series of (words, style, bins).

    The area of a dot grows with the images in its bin: small dots are few images and may lie anywhere.
    """
    panel = Panel(f"Reliability of {name}", "stated probability", "observed frequency")
    most = max((b.count for _, _, bins in series for b in bins), default=1) or 1
    content, said = [], []
    for words, style, bins in series:
        full = [
            (b.confidence, b.frequency, b.count) for b in bins if b.confidence is not None and b.frequency is not None
        ]
        content += [
            panel.curve([(x, y) for x, y, _ in full], style),
            panel.dots([(x, y, 1.4 + 4.2 * (n / most) ** 0.5) for x, y, n in full], style),
        ]
        said.append(f"{words}: {len(full)} filled bins")
    return panel.draw(*content, description="; ".join(said), diagonal=True)


def curve_panel(
    name: str,
    axes: tuple[str, str],
    series: Sequence[tuple[str, str, Sequence[tuple[float, float]]]],
    diagonal: bool,
) -> Markup:
    """One ROC or precision-recall panel; series are (words, style, points)."""
    panel = Panel(name, *axes)
    content = [panel.curve(points, style) for _, style, points in series]
    return panel.draw(*content, description="; ".join(words for words, _, _ in series), diagonal=diagonal)


def steps(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Precision-recall points as the staircase that average precision adds up; straight lines would flatter.

    >>> steps([(0.0, 1.0), (0.5, 1.0), (1.0, 0.5)])
    [(0.0, 1.0), (0.5, 1.0), (0.5, 0.5), (1.0, 0.5)]
    """
    stairs = list(points[:1])
    for x, y in points[1:]:
        if y != stairs[-1][1]:
            stairs.append((stairs[-1][0], y))
        if (x, y) != stairs[-1]:
            stairs.append((x, y))
    return stairs


def pair_of_bars(baseline: float, candidate: float, words: str) -> Markup:
    """Two thin bars, baseline above candidate, for one probability each."""
    bars = (
        tag("rect", x="0", y=2, width=f"{coordinate(100 * baseline)}%", height=5, class_="bar base"),
        tag("rect", x="0", y=9, width=f"{coordinate(100 * candidate)}%", height=5, class_="bar cand"),
    )
    return tag("svg", tag("title", words), join(bars), class_="bars", height=16, width="100%", role="img")


FAINTEST = 1e-6
"""Share of the values that still shows: one in a million may stretch a range as far as all others together."""

Interval = tuple[float, float]


def histogram(name: str, shares: Sequence[float], reach: Interval, bulk: Interval, grid: Interval) -> Markup:
    """The values of one activation: `shares` of them in equal bins over `reach`, on a logarithmic scale.

    What `bulk` (99.9 % of the values) spans is drawn strong; what lies beyond the `grid` of stored integers is shaded.
    """
    width, height, left, right, floor = 300.0, 118.0, 8.0, 8.0, 88.0
    low, high = min(reach[0], grid[0], 0.0), max(reach[1], grid[1], 0.0)
    span = high - low if high > low else 1.0

    def at(value: float) -> float:
        return left + (value - low) / span * (width - left - right)

    parts = []
    for start, end in ((low, grid[0]), (grid[1], high)):
        if at(end) - at(start) > 0.5:
            parts.append(tag("rect", x=at(start), y=6, width=at(end) - at(start), height=floor - 6, class_="beyond"))
    step = (reach[1] - reach[0]) / len(shares)
    for k, share in enumerate(shares):
        if share < FAINTEST:
            continue
        tall = max(1.5, (math.log10(share / FAINTEST) / 6) * (floor - 10))
        x, middle = at(reach[0] + k * step), reach[0] + (k + 0.5) * step
        kind = "bin" if bulk[0] - step / 2 <= middle <= bulk[1] + step / 2 else "bin rare"
        bar = max(at(reach[0] + (k + 1) * step) - x - 0.6, 0.8)
        parts.append(tag("rect", x=x, y=floor - tall, width=bar, height=tall, class_=kind))
    parts.append(tag("line", x1=left, x2=width - right, y1=floor, y2=floor, class_="frame"))
    parts += [tag("line", x1=at(value), x2=at(value), y1=4, y2=floor + 4, class_="edge") for value in grid]
    parts += _marks(at, low, high, floor + 16)
    said = f"grid from {signed(grid[0], 2)} to {signed(grid[1], 2)}, values from {signed(reach[0], 2)} to "
    said += f"{signed(reach[1], 2)}, 99.9 % of them from {signed(bulk[0], 2)} to {signed(bulk[1], 2)}"
    box = f"0 0 {coordinate(width)} {coordinate(height)}"
    return tag("svg", tag("title", name), tag("desc", said), *parts, viewBox=box, role="img", class_="histogram")


def _marks(at: Callable[[float], float], low: float, high: float, y: float) -> list[Markup]:
    """Numbers under an axis, those at its ends kept inside."""
    marks = ticks(low, high, about=4)
    step = min((b - a for a, b in pairwise(marks)), default=1.0)
    digits = next((d for d in range(6) if abs(round(step, d) - step) < 1e-9 * max(1.0, step)), 6)
    shown = []
    for mark in marks:
        place = (mark - low) / (high - low) if high > low else 0.5
        anchor = "start" if place < 0.06 else "end" if place > 0.94 else "middle"
        text = signed(mark, digits).lstrip("+")
        shown.append(tag("text", text, x=at(mark), y=y, text_anchor=anchor, class_="tick"))
    return shown
