"""A sensitivity sweep to look at: the ranking of layers, the front, and what its tables did as files.

Reads the record that the sweep writes (plain data), so that an old record can be shown again without a model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from markupsafe import Markup
from rich.console import Console
from rich.text import Text

import quantward
from quantward.core.store import write_text
from quantward.report._front import front_figure, ranks_figure
from quantward.report._svg import tag
from quantward.report._tables import empty_table
from quantward.report._words import ABSENT, MINUS, visible

Record = Mapping[str, Any]
MOST = 12
"""Layers that the terminal shows; the page has them all."""

META = Markup(
    '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
)

NOTICE = (
    "The tables were chosen on calibration images and tried on the select images; the test images had no part in it. "
    "What a file is worth is for quantward find to say."
)


def write_front(record: Record, path: Path) -> Path:
    """One self-contained HTML page at `path`; returns the path."""
    style = resources.files("quantward.report").joinpath("templates/report.css").read_text(encoding="utf-8")
    title = f"{record['dataset']}: bits layer by layer"
    head = (
        META,
        tag("title", visible(title)),
        Markup(f"<style>\n{style}</style>"),
    )
    body = (
        tag("header", tag("p", "Quantward", class_="brand"), tag("h1", visible(title)), tag("p", NOTICE)),
        tag("main", *_sections(record)),
        tag("footer", tag("p", f"Made with Quantward {quantward.__version__}. For research use only.")),
    )
    page = tag("html", tag("head", *head), tag("body", *body), lang="en")
    write_text(path, f"<!doctype html>\n{page}\n")
    return path


def _sections(record: Record) -> list[Markup]:
    points = [(point["bytes"], point["predicted"]) for point in record["points"]]
    files = [(row["recipe"], row["bytes"], row["divergence"]) for row in _told(record) if row["recipe"] != "fp32"]
    found = [
        tag("section", tag("h2", "Loss at each size"), front_figure(points, files),
            tag("p", "Dashed: predicted, weights with scales and biases. Dots: measured, whole files.", class_="read"),
            _html(*_tried_rows(record)))
    ]  # fmt: skip
    both = {
        width: [(c["layer"], c["fisher"], c["divergence"]) for c in record["costs"]
                if _width(c) == width and c["divergence"] is not None]
        for width in record["offer"]
    }  # fmt: skip
    panels = [
        tag("figure", tag("figcaption", f"{width}: {_agreement(row)}"), ranks_figure(both[width]))
        for width, row in zip(record["offer"], record["correlations"], strict=False)
        if both[width]
    ]
    tables = [_html(*_ranking_rows(record, width), caption=width) for width in reversed(record["offer"])]
    pictures = [tag("div", *panels, class_="panels")] if panels else []
    title = tag("h2", "Layers, the most sensitive first")
    ranking = tag("section", title, _how(record), *pictures, *tables)
    return [*found, ranking]


def _how(record: Record) -> Markup:
    return tag("p", f"One layer at a time, all others in float, on {record['images']} calibration images. "
               "Estimated: from gradients of the float network. Measured: mean KL divergence from FP32.")  # fmt: skip


def _html(titles: Sequence[str], rows: Sequence[Sequence[str]], caption: str = "") -> Markup:
    """A table whose first column names the row."""
    head = tag("tr", *(tag("th", title) for title in titles))
    lines = [
        tag("tr", tag("th", visible(row[0])), *(tag("td", visible(cell)) for cell in row[1:])) for row in rows
    ]  # fmt: skip
    above = [tag("h3", caption)] if caption else []
    table = tag("table", tag("thead", head), tag("tbody", *lines), class_="grid")
    return tag("div", *above, table, class_="scroll")


def show_front(record: Record, console: Console) -> None:
    """The ranking at the fewest bits, how far both rankings agree, and the tables that were tried."""
    width = record["offer"][-1]
    titles, rows = _ranking_rows(record, width)
    _print(f"{width}, {record['images']} images", titles, rows[:MOST], console)
    if len(rows) > MOST:
        console.print(Text(f"and {len(rows) - MOST} layers that mind less", "dim"))
    for row in record["correlations"]:
        console.print(Text(f"{_width(row)}: {_agreement(row)}"))
    titles, rows = _tried_rows(record)
    if rows:
        console.print()
        _print(f"tables on {record['select_images']} select images", titles, rows, console)
        console.print(Text(NOTICE, "dim"))


def _print(name: str, titles: Sequence[str], rows: Sequence[Sequence[str]], console: Console) -> None:
    table = empty_table(name)
    for title in titles[1:]:
        table.add_column(title, justify="right")
    for row in rows:
        table.add_row(*(Text(visible(cell)) for cell in row))
    console.print(table)


def _width(row: Record) -> str:
    return f"w{row['bits']['weights']}a{row['bits']['activations']}"


def _agreement(row: Record) -> str:
    """Spearman's correlation in words."""
    if row["value"] is None:
        return f"rank correlation undefined over {row['n']} layers"
    bounds = "" if row["low"] is None else f" ({row['low']:.2f} to {row['high']:.2f})"
    return f"rank correlation {row['value']:.2f}{bounds} over {row['n']} layers".replace("-", MINUS)


def _ranking_rows(record: Record, width: str) -> tuple[list[str], list[list[str]]]:
    """Titles and rows at one width: by measured loss where there is one, else by the estimate."""
    costs = [cost for cost in record["costs"] if _width(cost) == width]
    measured = all(cost["divergence"] is not None for cost in costs)
    costs.sort(key=lambda cost: -(cost["divergence"] if measured else cost["fisher"]))
    titles = ["layer", "bytes", "estimated, nats"]
    if measured:
        titles += ["measured, nats", "changed, %", "accuracy, points"]
    rows = []
    for cost in costs:
        row = [cost["layer"], f"{cost['bytes']:,}", f"{cost['fisher']:.2e}"]
        if measured:
            row += [f"{cost['divergence']:.2e}", _share(cost["changed"]), _share(cost["accuracy"], signed=True)]
        rows.append([row[0], *(cell.replace("e-", f"e{MINUS}") for cell in row[1:])])
    return titles, rows


def _told(record: Record) -> list[Record]:
    return [row for row in record["tried"] if not row["failure"]]


def _tried_rows(record: Record) -> tuple[list[str], list[list[str]]]:
    """Titles and rows of the tables that were tried, the FP32 file first."""
    whole = next((row["bytes"] for row in record["tried"] if row["recipe"] == "fp32"), None)
    titles = ["table", "MB", "of FP32", "predicted", "measured", "changed, %", "accuracy, %", "ms"]
    rows = []
    for row in record["tried"]:
        name = "fp32" if row["recipe"] == "fp32" else Path(row["recipe"].partition("=")[2]).name
        if row["failure"]:
            rows.append([f"{name}: {row['failure']}", *[ABSENT] * 7])
            continue
        noisy = "*" if row["spread"] is not None and row["spread"] > 0.10 else ""
        rows.append([
            name, f"{row['bytes'] / 1e6:.2f}", f"{row['bytes'] / whole:.3f}", f"{row['predicted']:.4f}",
            f"{row['divergence']:.4f}", _share(row["changed"]), _share(row["accuracy"]),
            ABSENT if row["milliseconds"] is None else f"{row['milliseconds']:.2f}{noisy}",
        ])  # fmt: skip
    return titles, rows


def _share(value: float | None, signed: bool = False) -> str:
    """A share in per cent, a dash for nothing.

    >>> _share(0.125), _share(-0.031, signed=True), _share(None)
    ('12.5', '−3.1', '–')
    """
    if value is None:
        return ABSENT
    return f"{100 * value:{'+' if signed else ''}.1f}".replace("-", MINUS)
