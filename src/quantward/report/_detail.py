"""One candidate in detail: its differences, diagrams, matrices and flips, gathered for the page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from quantward.core.values import Entry, Evaluation, Predictions
from quantward.evaluate import curves
from quantward.evaluate.single import TOP_LABEL
from quantward.report._audit import Audit, audit
from quantward.report._differences import DeltaGroup, by_class, by_metric
from quantward.report._figures import curve_panel, reliability, steps
from quantward.report._flips import Flip, Thumbnail, worst
from quantward.report._matrices import Matrix, matrices
from quantward.report._notes import (
    Table,
    checks,
    ece_floor,
    inside,
    operating_points,
    subgroups,
    temperature,
    thresholds_from,
)
from quantward.report._sentences import flipped, measured_how
from quantward.report._words import visible

WORST = 12
"""How many flipped images the leading candidate shows."""

OTHERS = 4
"""How many flipped images each further candidate shows: the file must stay fit for an e-mail."""


POINTS = 120
"""Points of a curve: more than a panel of this size can show."""


@dataclass(frozen=True)
class Curves:
    """ROC or precision-recall of one class; `panel` is None, with a `reason`, where it is not defined."""

    name: str
    panel: Markup | None
    reason: str


@dataclass(frozen=True)
class Detail:
    """Everything the page shows about one candidate."""

    key: str
    name: str
    baseline: str
    line: str
    metrics: DeltaGroup | None
    per_class: tuple[DeltaGroup, ...]
    reliability: tuple[tuple[str, Markup], ...]
    floor: str
    temperature: str
    points: Table | None
    thresholds: str
    subgroups: Table | None
    checks: Mapping[str, Any]
    audit: Audit | None
    roc: tuple[Curves, ...]
    precision: tuple[Curves, ...]
    matrices: tuple[Matrix, ...]
    flips: tuple[Flip, ...]
    flips_line: str


def detail(entry: Entry, baseline: Entry, key: str, thumbnail: Thumbnail | None, most: int = WORST) -> Detail:
    """Gather one candidate; what was not measured stays empty and the page leaves it out."""
    pair = (baseline.predictions, entry.predictions)
    notes = entry.comparison.notes if entry.comparison else {}
    return Detail(
        key=key,
        name=visible(entry.name),
        baseline=visible(baseline.name),
        line=measured_how(entry.comparison) if entry.comparison else "",
        metrics=by_metric(entry, baseline),
        per_class=by_class(entry, baseline),
        reliability=_reliability(baseline.evaluation, entry.evaluation),
        floor=ece_floor(inside(notes, "calibration", "candidate")),
        temperature=temperature(notes),
        points=operating_points(notes),
        thresholds=thresholds_from(notes),
        subgroups=subgroups(notes),
        checks=checks(notes),
        audit=audit(entry),
        roc=_curves(*pair, roc=True),
        precision=_curves(*pair, roc=False),
        matrices=matrices(entry, baseline),
        flips=worst(*pair, thumbnail, most),
        flips_line=flipped(entry.comparison) if entry.comparison else "",
    )


def _reliability(baseline: Evaluation | None, entry: Evaluation | None) -> tuple[tuple[str, Markup], ...]:
    sides = [
        (words, style, e) for words, style, e in (("baseline", "base", baseline), ("candidate", "cand", entry)) if e
    ]
    known = dict.fromkeys(name for _, _, side in sides for name in side.reliability)
    names = sorted(known, key=lambda name: name != TOP_LABEL)
    found = []
    for name in names:
        series = [(words, style, side.reliability[name]) for words, style, side in sides if name in side.reliability]
        title = "Most probable class" if name == TOP_LABEL else visible(name)
        found.append((title, reliability(title, series)))
    return tuple(found)


def _curves(baseline: Predictions | None, candidate: Predictions | None, roc: bool) -> tuple[Curves, ...]:
    if candidate is None:
        return ()
    sides = [(w, s, p) for w, s, p in (("baseline", "base", baseline), ("candidate", "cand", candidate)) if p]
    draw = curves.roc if roc else curves.precision_recall
    axes = ("1 − specificity", "sensitivity") if roc else ("recall", "precision")
    found = []
    for k, label in enumerate(candidate.classes):
        name = visible(label)
        series = []
        for words, style, side in sides:
            points = draw(
                np.asarray(side.truth) == k,
                np.asarray(side.probabilities)[:, side.classes.index(label)],
                POINTS,
            )
            series.append((words, style, points if roc else steps(points)))
        known = [one for one in series if one[2]]
        title = f"{'ROC' if roc else 'Precision and recall'} of {name}"
        panel = curve_panel(title, axes, known, diagonal=roc) if known else None
        found.append(Curves(name, panel, "" if known else "the test set has no image of this class, or no other"))
    return tuple(found)
