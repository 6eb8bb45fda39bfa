"""The verdict table as rows of text, the same for the terminal and the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from quantward.core.values import Delta, Efficiency, Entry, Estimate, Latency
from quantward.report._audit import signs
from quantward.report._words import (
    ABSENT,
    OUTCOMES,
    bounds,
    change_bounds,
    count,
    deciding,
    metric,
    milliseconds,
    percent,
    ratio,
    size,
    summary,
    visible,
)


@dataclass(frozen=True)
class Why:
    """One reason behind an outcome: the gate's code, its state and its sentence."""

    code: str
    title: str
    state: str
    sentence: str


@dataclass(frozen=True)
class Row:
    """One candidate of the verdict table, ready to print. `state` colours the outcome."""

    name: str
    recipe: str
    runtime: str
    accuracy: str
    accuracy_bounds: str
    change: str
    change_bounds: str
    auroc: str
    auprc: str
    ece: str
    flips: str
    flips_bounds: str
    size: str
    smaller: str
    p50: str
    faster: str
    noisy: bool
    outcome: str
    state: str
    summary: str
    why: tuple[Why, ...]
    signs: tuple[Why, ...]
    chosen: bool
    measured: bool


def single(efficiency: Efficiency | None) -> Latency | None:
    """The latency of one image at a time, or of the smallest batch that was timed."""
    if efficiency is None or not efficiency.latency:
        return None
    return min(efficiency.latency, key=lambda latency: latency.batch)


def verdict_rows(entries: Sequence[Entry], chosen: str | None) -> tuple[Row, ...]:
    """Rows of the verdict table, the baseline first; a row without measurements keeps its place and its reason."""
    told = next((entry.comparison.deltas for entry in entries if entry.comparison is not None), {})
    return tuple(_row(entry, told if i == 0 else None, chosen) for i, entry in enumerate(entries))


def estimate_of(entry: Entry, name: str) -> Estimate | None:
    """An overall metric of an entry, where it was measured."""
    return None if entry.evaluation is None else entry.evaluation.overall.get(name)


def delta_of(entry: Entry, name: str) -> Delta | None:
    """An overall difference of an entry, where it was compared."""
    return None if entry.comparison is None else entry.comparison.deltas.get(name)


def _row(entry: Entry, told: Mapping[str, Delta] | None, chosen: str | None) -> Row:
    """One row; `told` is what others' comparisons say about the baseline, and given for the baseline alone."""
    accuracy = metric("accuracy")
    moved = delta_of(entry, "accuracy")
    comparison, efficiency = entry.comparison, entry.efficiency
    flips = comparison.flips if comparison is not None else None
    latency = single(efficiency)
    outcome, state, line = _outcome(entry, told is not None)
    return Row(
        name=visible(entry.name),
        recipe=visible(entry.recipe),
        runtime=visible(entry.runtime),
        accuracy=_level(entry, "accuracy", told),
        accuracy_bounds=bounds(estimate_of(entry, "accuracy"), accuracy),
        change=ABSENT if moved is None else accuracy.change(moved.delta),
        change_bounds=change_bounds(moved, accuracy),
        auroc=_level(entry, "auroc", told),
        auprc=_level(entry, "auprc", told),
        ece=_moved(entry, "ece"),
        flips=ABSENT if flips is None else percent(flips.rate),
        flips_bounds="" if flips is None else f"{percent(flips.low)} to {percent(flips.high)}",
        size=ABSENT if efficiency is None else size(efficiency.bytes),
        smaller=ABSENT if comparison is None else ratio(comparison.smaller),
        p50=ABSENT if latency is None else f"{milliseconds(latency.p50)} ms",
        faster=ABSENT if comparison is None else ratio(comparison.faster),
        noisy=latency is not None and not latency.reliable,
        outcome=outcome,
        state=state,
        summary=line,
        why=_why(entry),
        signs=_signs(entry, state),
        chosen=chosen is not None and entry.name == chosen,
        measured=entry.predictions is not None or entry.evaluation is not None or comparison is not None,
    )


def _level(entry: Entry, name: str, told: Mapping[str, Delta] | None) -> str:
    """A metric of the entry itself: from its evaluation, else from a comparison it took part in."""
    estimate, delta = estimate_of(entry, name), delta_of(entry, name)
    if estimate is not None:
        return metric(name).value(estimate.value)
    if told is not None and name in told:
        return metric(name).value(told[name].baseline)
    return ABSENT if delta is None else metric(name).value(delta.candidate)


def _moved(entry: Entry, name: str) -> str:
    moved = delta_of(entry, name)
    return ABSENT if moved is None else metric(name).change(moved.delta)


def _outcome(entry: Entry, first: bool) -> tuple[str, str, str]:
    """Outcome, the state that colours it, and one line on it."""
    if entry.failure:
        return "FAILED", "failed", visible(entry.failure)
    if entry.verdict is not None:
        outcome = entry.verdict.outcome
        return outcome, OUTCOMES[outcome], summary(entry.verdict)
    if first:
        return "baseline", "baseline", "what the candidates are held against"
    return "not judged", "not-applicable", "no verdict was made for this row"


def _why(entry: Entry) -> tuple[Why, ...]:
    if entry.failure:
        return (Why("failed", "Not measured", "failed", visible(entry.failure)),)
    if entry.verdict is None:
        return ()
    return tuple(Why(visible(f.code), visible(f.title), f.status, visible(f.why)) for f in deciding(entry.verdict))


def _signs(entry: Entry, state: str) -> tuple[Why, ...]:
    """What went wrong, by name: errors always, warnings where the candidate failed."""
    shown = ("error", "warning") if state in ("fail", "failed") else ("error",)
    return tuple(Why(s.code, s.title, s.severity, s.sentence) for s in signs(entry) if s.severity in shown)


def tally(rows: Sequence[Row]) -> str:
    """How the candidates (all rows but the first) fared, in one line.

    >>> tally(())
    'no candidate'
    """
    words = (
        ("PASS", "passed"),
        ("FAIL", "failed"),
        ("INSUFFICIENT EVIDENCE", "undecided"),
        ("FAILED", "could not be measured"),
    )
    candidates = rows[1:]
    parts = [
        f"{sum(row.outcome == outcome for row in candidates)} {word}"
        for outcome, word in words
        if any(row.outcome == outcome for row in candidates)
    ]
    return f"{count(len(candidates), 'candidate')}: {', '.join(parts)}" if parts else "no candidate"
