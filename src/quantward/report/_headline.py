"""The verdict in one sentence, with what was lost and gained: the part of a report that everybody reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from quantward.core.values import Dossier, Entry
from quantward.report._rows import Row, delta_of, single, tally
from quantward.report._sentences import gained, lost
from quantward.report._words import change_bounds, count, metric, milliseconds, ratio, size, visible


@dataclass(frozen=True)
class Tile:
    """One key figure of the headline: from baseline to candidate."""

    label: str
    baseline: str
    candidate: str
    change: str


@dataclass(frozen=True)
class Headline:
    """The verdict in one sentence, then what was lost and gained."""

    state: str
    sentence: str
    lines: tuple[str, ...]
    tiles: tuple[Tile, ...]


def leading_of(dossier: Dossier) -> Entry | None:
    """The candidate that is shown in detail: the chosen one, else the first that was measured."""
    compared = [e for e in dossier.entries[1:] if e.comparison is not None or e.predictions is not None]
    return next((e for e in compared if e.name == dossier.chosen), compared[0] if compared else None)


def headline(dossier: Dossier, leading: Entry | None, rows: Sequence[Row], kind: str) -> Headline:
    """The headline of a search, or of a comparison of one pair; `leading` is the candidate shown in detail."""
    if not dossier.entries or leading is None:
        failed = [row for row in rows[1:] if row.state == "failed"]
        why = (f"{failed[0].name}: {failed[0].summary}",) if failed else ()
        return Headline("fail", "No candidate could be measured.", why, ())
    baseline = dossier.entries[0]
    passed = leading.verdict is not None and leading.verdict.outcome == "PASS"
    if kind == "comparison":
        return Headline(*_pair(leading, baseline), _lines(leading, baseline), _tiles(leading, baseline))
    if passed and dossier.chosen == leading.name:
        sentence = f"{visible(leading.name)} passed: it is the lowest precision shown to stay within every margin."
        return Headline("pass", sentence, _lines(leading, baseline), _tiles(leading, baseline))
    line = f"Keep {visible(baseline.name)}. Of {tally(rows)}."
    alone = sum(row.state == "pass" for row in rows[1:])
    if alone:
        sentence = f"No precision was accepted, though {count(alone, 'candidate')} passed."
        line += " The descent ends at the first precision that does not pass."
        return Headline("undecided", sentence, (line,), ())
    undecided = sum(row.state == "undecided" for row in rows[1:])
    if undecided:
        sentence = f"No candidate was shown to stay within every margin; {count(undecided, 'candidate')} "
        sentence += "could not be decided."
        return Headline("undecided", sentence, (f"{line} More test images may decide the open ones.",), ())
    return Headline("fail", "No candidate passed.", (line,), ())


def _pair(candidate: Entry, baseline: Entry) -> tuple[str, str]:
    """State and sentence of a comparison."""
    name, other = visible(candidate.name), visible(baseline.name)
    if candidate.verdict is None:
        return "not-applicable", f"{name} against {other}: no gate was asked."
    return {
        "PASS": ("pass", f"{name} passed: it stays within every margin of {other}."),
        "FAIL": ("fail", f"{name} failed: at least one margin is broken."),
        "INSUFFICIENT EVIDENCE": (
            "undecided",
            f"{name} is undecided: these images can neither accept nor reject it.",
        ),
    }[candidate.verdict.outcome]


def _lines(candidate: Entry, baseline: Entry) -> tuple[str, ...]:
    if candidate.comparison is None:
        return ()
    said = (
        lost(candidate.comparison, baseline.name),
        gained(candidate.comparison, candidate.efficiency, baseline.efficiency),
    )
    return tuple(line for line in said if line)


def _tiles(candidate: Entry, baseline: Entry) -> tuple[Tile, ...]:
    found = []
    for name in ("accuracy", "auroc", "ece"):
        delta, kind = delta_of(candidate, name), metric(name)
        if delta is not None and delta.delta is not None:
            reach = change_bounds(delta, kind)
            change = f"{kind.change(delta.delta)}{f' ({reach})' if reach else ''}"
            label = kind.words if name == "accuracy" else f"{kind.words} (macro)"
            found.append(Tile(label, kind.value(delta.baseline), kind.value(delta.candidate), change))
    comparison, ours, theirs = candidate.comparison, candidate.efficiency, baseline.efficiency
    if ours is not None and theirs is not None:
        smaller = None if comparison is None else comparison.smaller
        found.append(Tile("File", size(theirs.bytes), size(ours.bytes), _ratio(smaller, "smaller")))
    new, old = single(ours), single(theirs)
    if new is not None and old is not None and new.batch == old.batch:
        faster = None if comparison is None else comparison.faster
        label = "One image" if new.batch == 1 else f"Batch of {new.batch}"
        times = f"{milliseconds(old.p50)} ms", f"{milliseconds(new.p50)} ms"
        found.append(Tile(label, *times, _ratio(faster, "as fast")))
    return tuple(found)


def _ratio(value: float | None, word: str) -> str:
    return "" if value is None else f"{ratio(value)} {word}"
