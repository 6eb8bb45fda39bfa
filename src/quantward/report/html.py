"""One self-contained HTML file about a search or a comparison: no network, no script, the same bytes every time.

A report is read years later, mailed and printed. So styles, figures and thumbnails are inside the file, a content
security policy forbids it to load anything, and every name that came from a data set is escaped.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

import quantward
from quantward.core.store import write_text
from quantward.core.values import Comparison, Dossier, Efficiency, Entry, Evaluation, Predictions, Verdict
from quantward.report import _knowledge as knowledge
from quantward.report._page import page, state_words
from quantward.report._words import ABSENT, MINUS, SIGNS, visible

Thumbnail = Callable[[str], bytes | None]
"""An image's id -> the bytes of a small PNG or JPEG, or None where there is none."""


def write_report(dossier: Dossier, path: Path, thumbnail: Thumbnail | None = None) -> Path:
    """Write everything about one search as one HTML file at `path` (atomically); returns the path.

    `thumbnail` gives the picture of a flipped image, and is called for at most a few dozen ids.
    """
    return _write(dossier, path, thumbnail, "dossier")


def write_comparison(
    comparison: Comparison,
    baseline: Predictions,
    candidate: Predictions,
    verdict: Verdict | None,
    path: Path,
    *,
    baseline_evaluation: Evaluation | None = None,
    candidate_evaluation: Evaluation | None = None,
    baseline_efficiency: Efficiency | None = None,
    candidate_efficiency: Efficiency | None = None,
    thumbnail: Thumbnail | None = None,
    power: str = "",
    gates: Mapping[str, Any] | None = None,
    images: Mapping[str, Any] | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> Path:
    """Write one comparison as one HTML file at `path`, with the sections of `write_report` that apply to a pair.

    The evaluations add reliability diagrams, confusion matrices and the intervals of both models themselves.
    """
    entries = (
        Entry(comparison.baseline, "", "", baseline, baseline_evaluation, efficiency=baseline_efficiency),
        Entry(
            comparison.candidate,
            "",
            "",
            candidate,
            candidate_evaluation,
            comparison,
            candidate_efficiency,
            verdict,
        ),
    )
    passed = verdict is not None and verdict.outcome == "PASS"
    dossier = Dossier(
        title=f"{comparison.candidate} against {comparison.baseline}",
        entries=entries,
        chosen=comparison.candidate if passed else None,
        images=images or {},
        gates=gates or {},
        provenance=provenance or {},
        power=power,
    )
    return _write(dossier, path, thumbnail, "comparison")


def _write(dossier: Dossier, path: Path, thumbnail: Thumbnail | None, kind: str) -> Path:
    text = (
        _environment()
        .get_template("report.html.j2")
        .render(
            page=page(dossier, thumbnail, kind),
            knowledge=knowledge,
            version=quantward.__version__,
            style=_style(),
        )
    )
    write_text(path, text)
    return path


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("quantward.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["fact"] = fact
    environment.filters["visible"] = visible
    environment.filters["breakable"] = breakable
    environment.filters["state"] = state_words
    environment.globals["sign"] = SIGNS.__getitem__
    environment.tests["fact"] = lambda value: not isinstance(value, (Mapping, list, tuple))
    environment.tests["mapping"] = lambda value: isinstance(value, Mapping)
    environment.tests["brief"] = lambda value: (
        isinstance(value, Mapping)
        and 0 < len(value) <= 3
        and not any(isinstance(item, (Mapping, list, tuple)) or len(str(item)) > 24 for item in value.values())
    )
    environment.tests["facts"] = lambda value: (
        isinstance(value, (list, tuple)) and not any(isinstance(item, (Mapping, list, tuple)) for item in value)
    )
    return environment


def fact(value: object) -> str:
    """A plain value as text: yes and no, four significant digits, a dash for nothing.

    >>> fact(True), fact(None), fact(0.123456), fact(-2), fact(20260101)
    ('yes', '–', '0.1235', '−2', '20260101')
    """
    if value is None or value == "":
        return ABSENT
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return str(value).replace("-", MINUS)
    if isinstance(value, float):
        text = f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:.4g}"
        return text.replace("-", MINUS)
    return visible(value)


def breakable(text: str) -> Markup:
    """A long spelling that may break after `:`, `,`, `/` and `_` instead of in the middle of a word.

    >>> breakable("a:b<c")
    Markup('a:<wbr>b&lt;c')
    """
    parts = re.split(r"(?<=[:,/_])", text)
    return Markup("<wbr>").join(parts)


@cache
def _style() -> Markup:
    """The style sheet: our own file, the only text that goes into the page unescaped."""
    text = resources.files("quantward.report").joinpath("templates/report.css").read_text(encoding="utf-8")
    return Markup(text)
