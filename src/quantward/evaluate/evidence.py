"""What a gate may look at, and the one rule by which all of them decide: the confidence bound, never the point."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from quantward.core.values import Comparison, Delta, Efficiency, Evaluation, Finding, Status


@dataclass(frozen=True)
class Evidence:
    """All that is known of one candidate. `audit` holds plain facts about its file, absent where nobody looked."""

    comparison: Comparison
    baseline: Evaluation
    candidate: Evaluation
    baseline_efficiency: Efficiency | None = None
    candidate_efficiency: Efficiency | None = None
    audit: Mapping[str, Any] = field(default_factory=dict)


class Gate(Protocol):
    """A frozen dataclass whose fields are its limits."""

    def judge(self, evidence: Evidence) -> Finding: ...


def points(share: float) -> str:
    """A share as percentage points.

    >>> points(0.0123)
    '1.2'
    """
    return f"{0.0 if abs(share) < 5e-4 else 100 * share:.1f}"


def harm(delta: Delta, smaller_is_better: bool = False) -> tuple[float, float, float]:
    """How much worse the candidate is: value, low, high, positive where worse."""
    if delta.delta is None or delta.low is None or delta.high is None:
        return math.nan, math.nan, math.nan
    if smaller_is_better:
        return delta.delta, delta.low, delta.high
    return -delta.delta, -delta.high, -delta.low


def state(low: float, high: float, limit: float) -> Status:
    """Non-inferiority: pass where the whole interval of the harm is within the limit, fail where all is beyond it.

    >>> state(-0.01, 0.015, 0.02), state(0.03, 0.05, 0.02), state(-0.02, 0.04, 0.02)
    ('pass', 'fail', 'undecided')
    """
    if high <= limit:
        return "pass"
    return "fail" if low > limit else "undecided"


def more_needed(value: float, low: float, high: float, limit: float, n: int) -> int | None:
    """How many more cases would decide, were the harm to stay as observed: intervals shrink with 1 / sqrt(n).

    None where the observed harm lies on the limit, so that no number of cases is expected to decide.

    >>> more_needed(0.0, -0.04, 0.04, 0.02, 100)
    300
    """
    half = high - value if value < limit else value - low
    room = abs(limit - value)
    if room < 1e-9 or half <= 0:
        return None
    return max(1, math.ceil(n * (half / room) ** 2 * (1 - 1e-12)) - n)


def ask_for_more(value: float, low: float, high: float, limit: float, n: int, what: str) -> str:
    """The sentence of an undecided gate: how many more cases, and which way they would decide."""
    more = more_needed(value, low, high, limit, n)
    if more is None or more > 1_000_000:
        return f"The observed value lies on the limit: no number of {what} is expected to decide."
    way = "pass" if value < limit else "fail"
    return f"About {more:,} more {what} would decide it (a {way}, if the difference stays as it is)."


def judged(code: str, title: str, delta: Delta, limit: float, n: int, *, smaller_is_better: bool = False) -> Finding:
    """The finding of a gate on one difference of the whole: `limit` is the largest harm that is tolerated."""
    if delta.delta is None:
        return Finding(code, title, "undecided", None, limit, f"Undefined: {delta.reason}.")
    value, low, high = harm(delta, smaller_is_better)
    if math.isnan(low):
        return Finding(code, title, "undecided", None, limit, f"The interval is undefined: {delta.reason}.")
    status = state(low, high, limit)
    word = "rise" if smaller_is_better else "drop"
    why = f"{word} {points(value)} points, 95 % interval {points(low)} to {points(high)}, limit {points(limit)}."
    if status == "undecided":
        why += " " + ask_for_more(value, low, high, limit, n, "images")
    return Finding(code, title, status, low if status == "fail" else high, limit, why[0].upper() + why[1:])


def judged_per_class(
    code: str, title: str, deltas: Mapping[str, Delta], limit: float, enough: int, what: str = "positives"
) -> Finding:
    """The finding of a gate on every class (or subgroup): one that fails fails it, one undecided leaves it open.

    A class with fewer than `enough` positives is undecided whatever its interval, which then covers too seldom.
    """
    found: dict[Status, list[tuple[float, str]]] = {"fail": [], "undecided": [], "pass": []}
    for name, delta in deltas.items():
        positive = delta.n_positive or 0
        if not positive:
            found["undecided"].append((math.inf, f"no image of class {name!r}"))
            continue
        value, low, high = harm(delta)
        if positive < enough:
            text = f"{name!r} has {positive} {what}, {enough - positive} more are needed"
            found["undecided"].append((high, text))
            continue
        if math.isnan(high):
            found["undecided"].append((math.inf, f"{name!r}: {delta.reason}"))
            continue
        status = state(low, high, limit)
        text = f"{name!r} {points(value)} points, 95 % interval {points(low)} to {points(high)}"
        if status == "undecided":
            text += ": " + ask_for_more(value, low, high, limit, positive, what)[:-1]
        found[status].append((low if status == "fail" else high, text))
    for status, cases in found.items():
        if cases:
            cases.sort(key=lambda case: -case[0])
            shown = [text for _, text in cases] if status != "pass" else [f"worst class {cases[0][1]}"]
            observed = cases[0][0] if math.isfinite(cases[0][0]) else None
            return Finding(code, title, status, observed, limit, f"{'; '.join(shown)}. Limit {points(limit)} points.")
    return Finding(code, title, "not-applicable", None, limit, "No class to judge.")
