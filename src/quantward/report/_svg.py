"""A few SVG primitives: just enough to draw plots without a plotting library, so that a report stays one small file.

Colours come from the page's style sheet by class name, hence light, dark and print need one drawing only. Every
text and attribute is escaped here; nothing that comes in is trusted.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from markupsafe import Markup, escape


def coordinate(value: float) -> str:
    """A coordinate with at most two decimals and no trailing zeros: small files, same bytes everywhere.

    >>> coordinate(3.0), coordinate(2.346), coordinate(-0.0001)
    ('3', '2.35', '0')
    """
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text


def tag(name: str, *children: Markup | str, **attributes: str | float | None) -> Markup:
    """One element. `class_` is written `class`, an underscore becomes a dash, None leaves the attribute out.

    >>> tag("text", "a < b", x=1, text_anchor="end")
    Markup('<text x="1" text-anchor="end">a &lt; b</text>')
    """
    written = []
    for key, value in attributes.items():
        if value is not None:
            text = value if isinstance(value, str) else coordinate(value)
            written.append(f' {key.rstrip("_").replace("_", "-")}="{escape(text)}"')
    inside = "".join(str(escape(child)) for child in children)
    head = f"<{name}{''.join(written)}"
    return Markup(f"{head}>{inside}</{name}>" if children else f"{head}/>")


def join(parts: Iterable[Markup]) -> Markup:
    """Elements one after the other."""
    return Markup("").join(parts)


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round tick positions in [low, high] at steps of 1, 2, 2.5 or 5 times a power of ten.

    >>> ticks(-3, 3)
    [-2.0, 0.0, 2.0]
    >>> ticks(0, 1)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    span = high - low
    if not math.isfinite(span) or span <= 0:
        return [low]
    rough = span / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(k * step, 12) for k in range(first, last + 1)]


@dataclass(frozen=True)
class Panel:
    """A square plot of two shares, both axes from 0 to 1, with grid and labels; `size` in CSS pixels."""

    title: str
    across: str
    upward: str
    size: float = 230
    left: float = 40
    bottom: float = 38
    top: float = 8
    right: float = 10

    def x(self, value: float) -> float:
        """Horizontal position of a share."""
        return self.left + value * (self.size - self.left - self.right)

    def y(self, value: float) -> float:
        """Vertical position of a share (upwards)."""
        return self.size - self.bottom - value * (self.size - self.top - self.bottom)

    def curve(self, points: Iterable[tuple[float, float]], kind: str) -> Markup:
        """A line through points given as shares."""
        steps = [f"{self.x(x):.1f} {self.y(y):.1f}".replace(".0", "") for x, y in points]
        steps = [step for i, step in enumerate(steps) if i == 0 or step != steps[i - 1]]
        return tag("path", d="M" + "L".join(steps), class_=f"curve {kind}") if steps else Markup("")

    def dots(self, points: Iterable[tuple[float, float, float]], kind: str) -> Markup:
        """Dots at (x, y) with a radius in pixels."""
        return join(tag("circle", cx=self.x(x), cy=self.y(y), r=r, class_=f"dot {kind}") for x, y, r in points)

    def draw(self, *content: Markup, description: str = "", diagonal: bool = False) -> Markup:
        """The whole drawing: grid below, content above, a title and description for screen readers."""
        grid = [
            tag(
                "rect",
                x=self.x(0),
                y=self.y(1),
                width=self.x(1) - self.x(0),
                height=self.y(0) - self.y(1),
                class_="plane",
            )
        ]
        left, right, floor, roof = (coordinate(v) for v in (self.x(0), self.x(1), self.y(0), self.y(1)))
        lines = ""
        for share in (0.0, 0.25, 0.5, 0.75, 1.0):
            lines += f"M{coordinate(self.x(share))} {floor}V{roof}M{left} {coordinate(self.y(share))}H{right}"
            label = "0" if share == 0 else "1" if share == 1 else f"{share:g}".lstrip("0")
            grid += [
                tag("text", label, x=self.x(share), y=self.y(0) + 13, class_="tick mid"),
                tag("text", label, x=self.x(0) - 5, y=self.y(share) + 3.5, class_="tick end"),
            ]
        grid.append(tag("path", d=lines, class_="grid"))
        if diagonal:
            grid.append(tag("line", x1=self.x(0), y1=self.y(0), x2=self.x(1), y2=self.y(1), class_="diagonal"))
        middle = self.y(0.5)
        names = (
            tag("text", self.across, x=self.x(0.5), y=self.size - 7, text_anchor="middle", class_="axis"),
            tag(
                "text",
                self.upward,
                x=11,
                y=middle,
                text_anchor="middle",
                class_="axis",
                transform=f"rotate(-90 11 {coordinate(middle)})",
            ),
        )
        head = (tag("title", self.title), tag("desc", description)) if description else (tag("title", self.title),)
        box = f"0 0 {coordinate(self.size)} {coordinate(self.size)}"
        return tag("svg", *head, *grid, *names, *content, viewBox=box, role="img", class_="panel")


@dataclass(frozen=True)
class Ruler:
    """A horizontal scale drawn in per cent of its width, so that a row stretches with its table cell."""

    low: float
    high: float

    def at(self, value: float) -> float:
        """Position of a value, in per cent, kept inside the ruler."""
        share = (value - self.low) / (self.high - self.low)
        return 100 * min(1.0, max(0.0, share))

    def place(self, value: float) -> str:
        """Position of a value as an SVG length."""
        return f"{coordinate(self.at(value))}%"
