"""Two figures of a sensitivity sweep: what a table of bits loses at each size, and how far two rankings agree.

Losses of single layers differ by a factor of thousands, so both figures have logarithmic scales for them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from quantward.report._svg import coordinate, join, tag, ticks

FLOOR = 1e-9
"""Losses below are drawn on the frame: a logarithm has no zero."""


@dataclass(frozen=True)
class Axis:
    """Values from `low` to `high`, drawn between two coordinates; `log` for powers of ten."""

    low: float
    high: float
    start: float
    stop: float
    log: bool = False

    def at(self, value: float) -> float:
        """The coordinate of a value, kept inside the axis."""
        low, high, v = (math.log10(max(x, FLOOR)) if self.log else x for x in (self.low, self.high, value))
        share = 0.5 if high == low else min(1.0, max(0.0, (v - low) / (high - low)))
        return self.start + share * (self.stop - self.start)

    def marks(self) -> list[tuple[float, str]]:
        """Where the axis has labels, and which."""
        if not self.log:
            return [(v, f"{v:g}") for v in ticks(self.low, self.high, about=6)]
        first, last = math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9)
        step = max(1, math.ceil((last - first + 1) / 6))
        return [(10.0**k, f"1e{k}") for k in range(first, last + 1, step)]


def spanning(values: Iterable[float], start: float, stop: float, log: bool = False) -> Axis:
    """An axis that holds all values with some air at both ends; powers of ten where it is logarithmic."""
    found = [max(v, FLOOR) if log else v for v in values if math.isfinite(v)]
    low, high = min(found, default=1.0), max(found, default=1.0)
    if log:
        low, high = 10.0 ** math.floor(math.log10(low)), 10.0 ** math.ceil(math.log10(high))
        return Axis(low, high if high > low else 10 * low, start, stop, True)
    air = 0.04 * (high - low) or max(abs(high), 1.0) * 0.1
    return Axis(low - air, high + air, start, stop)


def front_figure(points: Sequence[tuple[float, float]], files: Sequence[tuple[str, float, float]]) -> Markup:
    """The front as a line of (bytes, predicted loss), and each deployed file as a dot (name, bytes, measured loss)."""
    megabytes = [size / 1e6 for size, _ in points] + [size / 1e6 for _, size, _ in files]
    x = spanning(megabytes, 52, 630)
    y = spanning([loss for _, loss in points if loss > 0] + [loss for _, _, loss in files if loss > 0], 250, 12, True)
    stairs = [f"{coordinate(x.at(size / 1e6))} {coordinate(y.at(loss))}" for size, loss in points]
    content = [tag("path", d="M" + "L".join(stairs), class_="curve base")] if stairs else []
    for name, size, loss in files:
        said = f"{name}: {size / 1e6:.2f} MB, {loss:.3g} nats"
        content.append(tag("circle", tag("title", said), cx=x.at(size / 1e6), cy=y.at(loss), r=4.5, class_="dot cand"))
    return _plot(
        "Loss at each size", x, y, "megabytes", "KL divergence from FP32, nats", content,
        f"{len(points)} tables on the front; {len(files)} of them as deployed files.",
    )  # fmt: skip


def ranks_figure(rows: Sequence[tuple[str, float, float]]) -> Markup:
    """Each layer at (estimated loss, measured loss) on one logarithmic square; on the dashed line both are the same."""
    every = [value for _, a, b in rows for value in (a, b) if value > 0]
    x, y = spanning(every, 52, 292, True), spanning(every, 252, 12, True)
    content = [
        tag("line", x1=x.at(x.low), y1=y.at(y.low), x2=x.at(x.high), y2=y.at(y.high), class_="diagonal"),
        join(
            tag("circle", tag("title", f"{name}: estimated {a:.3g}, measured {b:.3g} nats"), cx=x.at(a), cy=y.at(b),
                r=3, class_="dot cand")
            for name, a, b in rows
        ),
    ]  # fmt: skip
    return _plot("Two rankings", x, y, "estimated, nats", "measured, nats", content, f"{len(rows)} layers.", wide=304)


def _plot(
    title: str, x: Axis, y: Axis, across: str, upward: str, content: Iterable[Markup], told: str, wide: float = 642
) -> Markup:
    """Frame, grid and labels around the content; the foot of the plot lies at `y.start`."""
    lines, labels = "", []
    for value, text in x.marks():
        place = coordinate(x.at(value))
        lines += f"M{place} {coordinate(y.start)}V{coordinate(y.stop)}"
        labels.append(tag("text", text, x=x.at(value), y=y.start + 14, class_="tick mid"))
    for value, text in y.marks():
        place = coordinate(y.at(value))
        lines += f"M{coordinate(x.start)} {place}H{coordinate(x.stop)}"
        labels.append(tag("text", text, x=x.start - 5, y=y.at(value) + 3.5, class_="tick end"))
    middle = (y.start + y.stop) / 2
    frame = tag("rect", x=x.start, y=y.stop, width=x.stop - x.start, height=y.start - y.stop, class_="plane")
    names = (
        tag("text", across, x=(x.start + x.stop) / 2, y=y.start + 31, class_="axis mid"),
        tag("text", upward, x=11, y=middle, class_="axis mid", transform=f"rotate(-90 11 {coordinate(middle)})"),
    )
    box = f"0 0 {coordinate(wide)} {coordinate(y.start + 38)}"
    grid = tag("path", d=lines, class_="grid")
    return tag("svg", tag("title", title), tag("desc", told), frame, grid, *labels, *names, *content, viewBox=box,
               role="img", class_="panel", style=f"max-width:{coordinate(wide)}px")  # fmt: skip
