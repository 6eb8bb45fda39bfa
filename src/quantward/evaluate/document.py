"""A comparison and its verdict as the one JSON document that `compare --json` prints; its schema stands in docs/."""

from __future__ import annotations

from typing import Any

from quantward.core.store import plain
from quantward.core.values import Comparison, Delta, Verdict

_SECTIONS = ("tests", "calibration", "decisions")


def compare_document(comparison: Comparison, verdict: Verdict) -> dict[str, Any]:
    """Plain data with stable keys; an undefined value is None and stands beside its `reason`."""
    flips = comparison.flips
    document: dict[str, Any] = {
        "n": comparison.n,
        "n_groups": comparison.n_groups,
        "classes": list(comparison.classes),
        "baseline": comparison.baseline,
        "candidate": comparison.candidate,
        "replicates": comparison.replicates,
        "seed": comparison.seed,
        "metrics": {name: _delta(delta) for name, delta in comparison.deltas.items()},
        "per_class": {
            name: {label: _delta(delta) for label, delta in row.items()} for name, row in comparison.per_class.items()
        },
        "flips": {
            "count": flips.count,
            "rate": flips.rate,
            "low": flips.low,
            "high": flips.high,
            "broken": flips.broken,
            "mended": flips.mended,
            "matrix": flips.matrix,
        },
        "smaller": comparison.smaller,
        "faster": comparison.faster,
        "tests": comparison.notes.get("tests"),
        "calibration": comparison.notes.get("calibration"),
        "decisions": comparison.notes.get("decisions"),
        "notes": {name: note for name, note in comparison.notes.items() if name not in _SECTIONS},
        "findings": verdict.findings,
        "verdict": verdict.outcome,
    }
    whole: dict[str, Any] = plain(document)
    return whole


def _delta(delta: Delta) -> dict[str, Any]:
    row: dict[str, Any] = {
        "baseline": delta.baseline,
        "candidate": delta.candidate,
        "delta": delta.delta,
        "low": delta.low,
        "high": delta.high,
        "p": delta.p,
        "p_holm": delta.p_holm,
        "ties": delta.ties,
    }
    if delta.n_positive is not None:
        row["n_positive"] = delta.n_positive
    if delta.reason:
        row["reason"] = delta.reason
    return row
