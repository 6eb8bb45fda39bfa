"""Differences as tables with a forest plot in them: by metric, by class, and candidate against candidate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from quantward.core.values import Delta, Entry, Verdict
from quantward.report._figures import Limit, forest_axis, forest_row, ruler
from quantward.report._gates import about, limit_of
from quantward.report._rows import delta_of
from quantward.report._words import (
    ABSENT,
    Metric,
    bounds,
    change_bounds,
    count,
    meaning,
    metric,
    ordered,
    probability,
    visible,
)

HEADLINE = ("accuracy", "auroc", "auprc", "ece")
"""The metrics by which candidates are drawn against each other."""

BY_CLASS = ("sensitivity", "specificity", "auroc", "auprc", "ece")
"""The metrics of the per-class tables, where they were measured."""


@dataclass(frozen=True)
class DeltaRow:
    """One difference: both values, the forest plot of the difference, its interval and its p-value."""

    label: str
    note: str
    baseline: str
    baseline_bounds: str
    candidate: str
    candidate_bounds: str
    plot: Markup
    change: str
    change_bounds: str
    p: str
    words: str


@dataclass(frozen=True)
class DeltaGroup:
    """Differences that share one scale, with the axis under them."""

    title: str
    meaning: str
    rows: tuple[DeltaRow, ...]
    axis: Markup
    limited: bool


@dataclass(frozen=True)
class _Part:
    """A row before its scale is known."""

    label: str
    kind: Metric
    delta: Delta
    limit: Limit | None = None
    state: str = "plain"
    note: str = ""
    levels: tuple[str, str] = ("", "")


def by_metric(entry: Entry, baseline: Entry) -> DeltaGroup | None:
    """All overall metrics of one candidate against the baseline, in points."""
    if entry.comparison is None:
        return None
    parts = [
        _Part(kind.words, kind, delta, *_gate(entry.verdict, name), levels=_levels(baseline, entry, name))
        for name in ordered(entry.comparison.deltas)
        for kind, delta in [(metric(name), entry.comparison.deltas[name])]
    ]
    return _group("", "", parts, percent=True, better="higher") if parts else None


def by_class(entry: Entry, baseline: Entry) -> tuple[DeltaGroup, ...]:
    """One group a metric, one row a class."""
    if entry.comparison is None:
        return ()
    counts = {} if baseline.evaluation is None else baseline.evaluation.counts
    groups = []
    for name in (n for n in BY_CLASS if entry.comparison.per_class.get(n)):
        kind = metric(name)
        limit = limit_of(about(entry.verdict, name, classes=True), name)
        parts = [
            _Part(
                visible(label),
                kind,
                delta,
                limit,
                note=_positives(delta, counts.get(label)),
                levels=(_bounds_of(baseline, name, label), _bounds_of(entry, name, label)),
            )
            for label, delta in entry.comparison.per_class[name].items()
        ]
        groups.append(_group(kind.words, kind.meaning, parts, kind.unit == "percent", kind.better))
    return tuple(groups)


def by_candidate(entries: Sequence[Entry]) -> tuple[DeltaGroup, ...]:
    """One group a headline metric, one row a candidate: the picture in which candidates are compared."""
    groups = []
    for name in HEADLINE:
        kind = metric(name)
        parts = [
            _Part(visible(entry.name), kind, delta, *_gate(entry.verdict, name))
            for entry in entries
            for delta in [delta_of(entry, name)]
            if delta is not None
        ]
        if parts:
            title = kind.words if name == "accuracy" else f"{kind.words}, mean over classes"
            groups.append(_group(title, kind.meaning, parts, kind.unit == "percent", kind.better))
    return tuple(groups)


def _gate(verdict: Verdict | None, name: str) -> tuple[Limit | None, str]:
    finding = about(verdict, name)
    return limit_of(finding, name), "plain" if finding is None else finding.status


def _levels(baseline: Entry, entry: Entry, name: str) -> tuple[str, str]:
    """The intervals of both values themselves."""
    return _bounds_of(baseline, name), _bounds_of(entry, name)


def _bounds_of(entry: Entry, name: str, label: str | None = None) -> str:
    if entry.evaluation is None:
        return ""
    table = entry.evaluation.overall if label is None else entry.evaluation.per_class.get(name, {})
    return bounds(table.get(name if label is None else label), metric(name))


def _positives(delta: Delta, counted: int | None) -> str:
    n = counted if delta.n_positive is None else delta.n_positive
    return "" if n is None else count(n, "image")


def _group(title: str, sentence: str, parts: Sequence[_Part], percent: bool, better: str) -> DeltaGroup:
    scale = ruler((part.delta for part in parts), (part.limit for part in parts))
    mixed = len({part.kind.better for part in parts}) > 1
    rows = tuple(
        DeltaRow(
            label=part.label,
            note=_note(part, mixed),
            baseline=part.kind.value(part.delta.baseline),
            baseline_bounds=part.levels[0],
            candidate=part.kind.value(part.delta.candidate),
            candidate_bounds=part.levels[1],
            plot=forest_row(part.delta, part.kind, scale, part.limit, part.state, part.label),
            change=part.kind.change(part.delta.delta),
            change_bounds=change_bounds(part.delta, part.kind),
            p=ABSENT if part.delta.p_holm is None and part.delta.p is None else _p(part.delta),
            words=meaning(part.delta, part.kind),
        )
        for part in parts
    )
    axis = forest_axis(scale, None if mixed else better, percent)
    return DeltaGroup(title, sentence, rows, axis, any(part.limit is not None for part in parts))


def _note(part: _Part, mixed: bool) -> str:
    lower = "lower is better" if mixed and part.kind.better == "lower" else ""
    return "; ".join(text for text in (part.note, lower) if text)


def _p(delta: Delta) -> str:
    return probability(delta.p if delta.p_holm is None else delta.p_holm)
