"""A drift of attention to look at: the measures as a table, and the images whose map moved most, both maps laid over.

Pictures are inside the page, without names: an id may be a patient's.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from PIL import Image
from rich.console import Console
from rich.text import Text

import quantward
from quantward.core.store import write_text
from quantward.core.values import FloatArray, ImageArray
from quantward.report._svg import tag
from quantward.report._tables import empty_table
from quantward.report._words import ABSENT, MINUS, visible

Record = Mapping[str, Any]

META = Markup(
    '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
    'img-src data:">'
)

NOTICE = (
    "For research use only. A map shows which places moved the answer, not why, and a good answer can come with a "
    "strange map. Maps of both models are about the class that FP32 gives the image."
)

MEANING = {
    "rank correlation": "Spearman's correlation of all pixels of the two maps; 1 is the same order of importance.",
    "top 20 % overlap": "Intersection over union of the fifth of the pixels that matters most in each map.",
    "SSIM": "Structural similarity of the two maps, each scaled to 1.",
    "centre shift": "Distance between the maps' centres of mass, as a share of the image's side.",
    "pointing game": "Share of images whose most important pixel lies inside the marked region.",
    "mass in mask": "Share of the map's sum that lies inside the marked region.",
    "deletion area": "Area under the class's probability while what matters most is covered first; low is good.",
    "insertion area": "Area under it while they are uncovered first; high is good.",
}

COLOURS = np.array([[0, 0, 4], [87, 16, 110], [188, 55, 84], [249, 142, 9], [252, 255, 164]], np.float64)
"""From no to most importance: dark blue over red to yellow, rising in lightness, so that it survives a grey print."""


@dataclass(frozen=True, eq=False)
class Shown:
    """One image of the gallery: `picture` as PNG, both maps (s, s), and what both models said."""

    recipe: str
    truth: str
    before: str
    after: str
    correlation: float
    overlap: float
    picture: bytes
    maps: tuple[FloatArray, FloatArray]


def write_gallery(record: Record, pictures: Sequence[Shown], path: Path) -> Path:
    """One self-contained HTML page at `path`; returns the path."""
    style = resources.files("quantward.report").joinpath("templates/report.css").read_text(encoding="utf-8")
    title = f"{record['dataset']}: where the networks look"
    head = (META, tag("title", visible(title)), Markup(f"<style>\n{style}</style>"))
    body = (
        tag("header", tag("p", "Quantward", class_="brand"), tag("h1", visible(title)), tag("p", NOTICE)),
        tag("main", _table(record), *(_wall(name, pictures) for name in _recipes(record))),
        tag("footer", tag("p", f"Made with Quantward {quantward.__version__}. For research use only.")),
    )
    page = tag("html", tag("head", *head), tag("body", *body), lang="en")
    write_text(path, f"<!doctype html>\n{page}\n")
    return path


def overlay(picture: ImageArray, heat: FloatArray) -> ImageArray:
    """The grey picture (s, s, 3) with the map in colour over it, the stronger the more a pixel matters.

    >>> overlay(np.full((2, 2, 3), 100, np.uint8), np.zeros((2, 2)))[0, 0].tolist()
    [100, 100, 100]
    """
    grey = picture.astype(np.float64).mean(axis=2, keepdims=True).repeat(3, axis=2)
    top = float(heat.max())
    share = np.zeros_like(heat) if top <= 0 else np.asarray(heat / top)
    at = share * (len(COLOURS) - 1)
    low = np.clip(at.astype(int), 0, len(COLOURS) - 2)
    part = (at - low)[..., None]
    colour = COLOURS[low] * (1 - part) + COLOURS[low + 1] * part
    weight = 0.65 * np.sqrt(share)[..., None]
    return np.asarray(np.rint(grey * (1 - weight) + colour * weight), np.uint8)


def show_drift(record: Record, console: Console) -> None:
    """The same table in the terminal."""
    titles, rows = _rows(record)
    table = empty_table(f"{record['method']}, {record['images']} images")
    for title in titles[1:]:
        table.add_column(title, justify="right")
    for row in rows:
        table.add_row(*(Text(visible(cell)) for cell in row))
    console.print(table)


def _recipes(record: Record) -> list[str]:
    return [candidate["recipe"] for candidate in record["candidates"]]


def _rows(record: Record) -> tuple[list[str], list[list[str]]]:
    """Titles and a row a measure: FP32's own where it has one, then each candidate's."""
    own = ["fp32"] if record["fp32"] else []
    rows = []
    for name in record["candidates"][0]["measures"]:
        cells = [*(record["fp32"].get(name) for _ in own), *(one["measures"][name] for one in record["candidates"])]
        rows.append([name, *map(_cell, cells)])
    answers = [f"{candidate['changed']} of {record['images']}" for candidate in record["candidates"]]
    return ["measure", *own, *_recipes(record)], [*rows, ["answers changed", *(ABSENT for _ in own), *answers]]


def _cell(value: Mapping[str, Any] | None) -> str:
    """Mean and interval; how many images had no value is said where there are some."""
    if value is None or value["value"] is None:
        return ABSENT
    text = f"{value['value']:.3f} ({value['low']:.3f} to {value['high']:.3f})".replace("-", MINUS)
    return f"{text}, n = {value['n']}" if value["undefined"] else text


def _table(record: Record) -> Markup:
    titles, rows = _rows(record)
    head = tag("tr", *(tag("th", visible(title)) for title in titles))
    lines = [
        tag("tr", tag("th", visible(row[0]), tag("small", MEANING.get(row[0], ""))),
            *(tag("td", visible(cell)) for cell in row[1:]))
        for row in rows
    ]  # fmt: skip
    place = f", at {record['place']}" if record["place"] else ""
    how = f"{record['method']}{place}, on {record['images']} test images. Mean, 95 % interval."
    table = tag("table", tag("thead", head), tag("tbody", *lines), class_="grid")
    return tag("section", tag("h2", "Drift"), tag("p", visible(how), class_="how"), tag("div", table, class_="scroll"))


def _wall(recipe: str, pictures: Sequence[Shown]) -> Markup:
    """The images of one candidate, the most drifted first."""
    own = [_figure(one) for one in pictures if one.recipe == recipe]
    text = "Left the image, in the middle where FP32 looks, on the right where this candidate looks."
    return tag("section", tag("h2", visible(f"Moved most: {recipe}")), tag("p", text, class_="how"),
               tag("div", *own, class_="wall"))  # fmt: skip


def _figure(one: Shown) -> Markup:
    with Image.open(io.BytesIO(one.picture)) as image:
        picture = np.asarray(image.convert("RGB"))
    both = [overlay(picture, heat) for heat in one.maps]
    strip = Image.fromarray(np.concatenate([picture, *both], axis=1))
    stream = io.BytesIO()
    strip.save(stream, "JPEG", quality=85)
    answers = f"FP32 says {one.before}, the candidate {one.after}; the truth is {one.truth}."
    told = "no map" if math.isnan(one.correlation) else f"rank correlation {one.correlation:.2f}".replace("-", MINUS)
    return tag("figure",
               tag("img", src=f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}",
                   alt=visible(f"{told}. {answers}"), loading="lazy"),
               tag("figcaption", tag("b", visible(told)), visible(f". {answers}")))  # fmt: skip
