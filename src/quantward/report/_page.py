"""From a Dossier to what the page shows: the headline, and every section with its texts ready to print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from quantward.core.values import Dossier, Entry
from quantward.report._audit import ASKED, Audit, audit
from quantward.report._detail import OTHERS, WORST, Detail, detail
from quantward.report._differences import DeltaGroup, by_candidate
from quantward.report._flips import Thumbnail
from quantward.report._headline import Headline, headline, leading_of
from quantward.report._notes import Table
from quantward.report._rows import Row, single, tally, verdict_rows
from quantward.report._words import (
    ABSENT,
    METRICS,
    MINUS,
    STATES,
    milliseconds,
    number,
    percent,
    ratio,
    seconds,
    size,
    visible,
)


@dataclass(frozen=True)
class Timing:
    """One row of the efficiency table: a file at one batch size."""

    name: str
    runtime: str
    size: str
    smaller: str
    batch: str
    p50: str
    p90: str
    p99: str
    faster: str
    spread: str
    noisy: bool
    runs: str
    throughput: str
    memory: str
    made: str
    first: bool


@dataclass(frozen=True)
class Gate:
    """One gate over all candidates: what was asked, and (state, observed, why) of each candidate."""

    title: str
    code: str
    asked: str
    cells: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True)
class Judged:
    """All findings of one candidate: (title, code, state, observed, limit, why)."""

    name: str
    outcome: str
    state: str
    findings: tuple[tuple[str, str, str, str, str, str], ...]
    leading: bool


@dataclass(frozen=True)
class Page:
    """Everything a template needs; a section whose value is empty is left out."""

    kind: str
    title: str
    headline: Headline
    power: str
    rows: tuple[Row, ...]
    tally: str
    candidates: tuple[DeltaGroup, ...]
    leading: Detail | None
    others: tuple[Detail, ...]
    gates: tuple[Gate, ...]
    gates_source: str
    judged: tuple[Judged, ...]
    timings: tuple[Timing, ...]
    timings_machine: str
    choices: Table | None
    audits: tuple[Audit, ...]
    audited: tuple[str, ...]
    external_rows: tuple[Row, ...]
    external_candidates: tuple[DeltaGroup, ...]
    external_images: Mapping[str, Any]
    images: Mapping[str, Any]
    counts: Table | None
    warnings: tuple[tuple[str, str, str], ...]
    provenance: Mapping[str, Any]


def page(dossier: Dossier, thumbnail: Thumbnail | None, kind: str = "dossier") -> Page:
    """Lay a Dossier out. `kind` is `dossier` (a search) or `comparison` (one pair of predictions)."""
    rows = verdict_rows(dossier.entries, dossier.chosen)
    baseline = dossier.entries[0] if dossier.entries else None
    compared = [e for e in dossier.entries[1:] if e.comparison is not None or e.predictions is not None]
    leading = leading_of(dossier)
    others = [e for e in compared if e is not leading]
    details: list[Detail] = []
    if baseline is not None:
        named = enumerate([leading, *others] if leading is not None else [])
        details = [detail(e, baseline, f"c{i}", thumbnail, OTHERS if i else WORST) for i, e in named]
    external = verdict_rows(dossier.external, None)
    audits = tuple(found for entry in dossier.entries if (found := audit(entry)) is not None)
    known = ("counts", "warnings")
    return Page(
        kind=kind,
        title=visible(dossier.title),
        headline=headline(dossier, leading, rows, kind),
        power=dossier.power,
        rows=rows,
        tally=tally(rows),
        candidates=by_candidate(dossier.entries[1:]) if len(dossier.entries) > 2 else (),
        leading=details[0] if details else None,
        others=tuple(details[1:]),
        gates=_gates(dossier),
        gates_source=visible(dossier.gates.get("source", "")),
        judged=tuple(_judged(entry, entry is leading) for entry in dossier.entries if entry.verdict is not None),
        timings=_timings(dossier.entries),
        timings_machine=_machine(dossier.entries),
        choices=_choices(dossier.choices),
        audits=audits,
        audited=tuple(label for label in ASKED if any(label == line[0] for one in audits for line in one.facts)),
        external_rows=external,
        external_candidates=by_candidate(dossier.external[1:]),
        external_images={k: v for k, v in dossier.external_images.items() if k not in known},
        images={k: v for k, v in dossier.images.items() if k not in known},
        counts=_counts(dossier.images.get("counts")),
        warnings=(*_warnings(dossier.images), *_warnings(dossier.external_images, "external: ")),
        provenance=dossier.provenance,
    )


def _gates(dossier: Dossier) -> tuple[Gate, ...]:
    """Gates down, candidates across; a gate that a candidate was not asked stays empty there."""
    verdicts = [entry.verdict for entry in dossier.entries if entry.verdict is not None]
    first = {finding.code: finding for verdict in reversed(verdicts) for finding in verdict.findings}
    order = dict.fromkeys(finding.code for verdict in verdicts for finding in verdict.findings)
    asked = dossier.gates.get("gates", {})
    found = []
    for code in order:
        cells = []
        for verdict in verdicts:
            hit = next((f for f in verdict.findings if f.code == code), None)
            cells.append(("", "", "") if hit is None else (hit.status, _observed(hit.observed), visible(hit.why)))
        options = asked.get(code) if isinstance(asked, Mapping) else None
        if isinstance(options, Mapping):
            text = ", ".join(f"{visible(key)} {_observed(value)}" for key, value in options.items())
        else:
            text = "" if first[code].limit is None else f"limit {_observed(first[code].limit)}"
        found.append(Gate(visible(first[code].title), visible(code), text, tuple(cells)))
    return tuple(found)


def _judged(entry: Entry, leading: bool) -> Judged:
    assert entry.verdict is not None
    rows = tuple(
        (
            visible(f.title),
            visible(f.code),
            f.status,
            _observed(f.observed),
            _observed(f.limit),
            visible(f.why),
        )
        for f in entry.verdict.findings
    )
    state = {"PASS": "pass", "FAIL": "fail"}.get(entry.verdict.outcome, "undecided")
    return Judged(visible(entry.name), entry.verdict.outcome, state, rows, leading)


def _observed(value: Any) -> str:
    """A figure as the gate keeps it, three significant digits; the sentence beside it has the unit."""
    if value is None:
        return ABSENT
    return f"{value:.3g}".replace("-", MINUS) if isinstance(value, (int, float)) else visible(value)


def _timings(entries: Sequence[Entry]) -> tuple[Timing, ...]:
    found = []
    for entry in entries:
        cost = entry.efficiency
        if cost is None:
            continue
        comparison = entry.comparison
        lines = cost.latency or (None,)
        for i, line in enumerate(lines):
            found.append(
                Timing(
                    name=visible(entry.name),
                    runtime=visible(cost.runtime),
                    size=size(cost.bytes),
                    smaller=ABSENT if comparison is None else ratio(comparison.smaller),
                    batch=ABSENT if line is None else str(line.batch),
                    p50=ABSENT if line is None else milliseconds(line.p50),
                    p90=ABSENT if line is None else milliseconds(line.p90),
                    p99=ABSENT if line is None else milliseconds(line.p99),
                    faster=ratio(comparison.faster) if comparison is not None and line == single(cost) else "",
                    spread=ABSENT if line is None else percent(line.spread, 0),
                    noisy=line is not None and not line.reliable,
                    runs=ABSENT if line is None else f"{line.runs:,}",
                    throughput=ABSENT if cost.throughput is None else number(cost.throughput, 0),
                    memory=size(cost.peak_bytes),
                    made=seconds(cost.seconds),
                    first=i == 0,
                )
            )
    return tuple(found)


def _machine(entries: Sequence[Entry]) -> str:
    machines = dict.fromkeys(visible(e.efficiency.machine) for e in entries if e.efficiency and e.efficiency.machine)
    return "; ".join(machines)


def _choices(choices: Sequence[Mapping[str, Any]]) -> Table | None:
    """The choices as they were recorded, one column a key; a row with a true `chosen` stands out."""
    if not choices:
        return None
    keys = list(dict.fromkeys(key for choice in choices for key in choice if key != "chosen"))
    rows = tuple(tuple(choice.get(key) for key in keys) for choice in choices)
    marked = frozenset(i for i, choice in enumerate(choices) if choice.get("chosen") is True)
    return Table(tuple(_heading(key) for key in keys), rows, marked)


def _heading(key: str) -> str:
    return METRICS[key].words if key in METRICS else visible(key.replace("_", " "))


def _counts(counts: Any) -> Table | None:
    """Images by role and class, with sums."""
    if not isinstance(counts, Mapping) or not counts:
        return None
    if not all(isinstance(row, Mapping) for row in counts.values()):
        return None
    classes = list(dict.fromkeys(name for row in counts.values() for name in row))
    rows = tuple(
        (visible(role), *(row.get(name, 0) for name in classes), sum(row.values())) for role, row in counts.items()
    )
    return Table(("role", *(visible(name) for name in classes), "all"), rows)


def _warnings(images: Mapping[str, Any], prefix: str = "") -> tuple[tuple[str, str, str], ...]:
    """(severity, code, sentence) of what was found in the data; a plain text is a warning without a code."""
    found = []
    for item in images.get("warnings") or ():
        if isinstance(item, Mapping):
            severity = str(item.get("severity", "warning"))
            text = item.get("sentence") or item.get("message") or item.get("why") or ""
            found.append((severity, visible(item.get("code", "")), prefix + visible(text)))
        else:
            found.append(("warning", "", prefix + visible(item)))
    return tuple(sorted(found, key=lambda row: row[0] != "error"))


def state_words(state: str) -> str:
    """A finding's state as it is printed."""
    return STATES.get(state, state)
