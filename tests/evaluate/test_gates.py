"""Every gate: pass, fail, undecided and not applicable, by the bound and never by the point."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantward.core.values import Delta, Efficiency, Evaluation, Finding, Flips, Latency, Predictions
from quantward.evaluate.evidence import Evidence, judged, judged_per_class, more_needed, state
from quantward.evaluate.paired import assess
from quantward.evaluate.verdict import GATES

Maker = Callable[..., Predictions]
WHOLE = {
    "accuracy-drop": "accuracy",
    "balanced-accuracy-drop": "balanced_accuracy",
    "auroc-drop": "auroc",
    "auprc-drop": "auprc",
    "f1-drop": "f1",
    "kappa-drop": "kappa",
    "ece-increase": "ece",
    "ece-debiased-increase": "ece_debiased",
    "brier-increase": "brier",
}
BY_CLASS = {"sensitivity-drop": "sensitivity", "specificity-drop": "specificity", "class-auroc-drop": "auroc"}


@pytest.fixture
def evidence(predictions: Maker) -> Evidence:
    comparison, before, after = assess(predictions(200), predictions(200, noise=0.5), replicates=50)
    return Evidence(comparison, before, after)


def said(name: str, evidence: Evidence, **limits: Any) -> Finding:
    finding: Finding = GATES.get(name)(**limits).judge(evidence)
    return finding


def delta(low: float, high: float, positive: int | None = None) -> Delta:
    return Delta(0.9, 0.9 + (low + high) / 2, (low + high) / 2, low, high, 0.5, n_positive=positive)


@pytest.mark.parametrize("name", GATES.names())
def test_every_gate_keeps_the_contract(name: str, evidence: Evidence) -> None:
    kind = GATES.get(name)
    assert dataclasses.is_dataclass(kind) and kind.__dataclass_params__.frozen  # type: ignore[attr-defined]
    fields = dataclasses.fields(kind)
    assert fields[0].name == "limit" and all(f.default is not dataclasses.MISSING for f in fields)
    finding = kind().judge(evidence)
    assert finding.code == name and finding.title and finding.why.endswith(".")
    assert finding.status in ("pass", "fail", "undecided", "not-applicable") and finding.limit == kind().limit


@pytest.mark.parametrize(("name", "metric"), WHOLE.items())
def test_gates_on_the_whole_read_the_bound(name: str, metric: str, evidence: Evidence) -> None:
    sign = 1 if "increase" in name else -1

    def with_harm(low: float, high: float) -> Finding:
        ends = sorted((sign * low, sign * high))
        deltas = {**evidence.comparison.deltas, metric: delta(*ends)}
        return said(name, replace(evidence, comparison=replace(evidence.comparison, deltas=deltas)), limit=0.02)

    assert with_harm(-0.01, 0.02).status == "pass"
    held = with_harm(0.03, 0.05)
    assert held.status == "fail" and held.observed == pytest.approx(0.03)
    open_ = with_harm(-0.03, 0.05)
    assert open_.status == "undecided" and open_.observed == pytest.approx(0.05)
    assert "more images would decide it" in open_.why
    deltas = {**evidence.comparison.deltas, metric: Delta(None, None, None, reason="no image of class 'c'")}
    absent = said(name, replace(evidence, comparison=replace(evidence.comparison, deltas=deltas)))
    assert absent.status == "undecided" and "no image of class 'c'" in absent.why


@pytest.mark.parametrize(("name", "metric"), BY_CLASS.items())
def test_gates_by_class_read_the_worst_class(name: str, metric: str, evidence: Evidence) -> None:
    def with_classes(*deltas: Delta) -> Finding:
        rows = {**evidence.comparison.per_class, metric: dict(zip("abc", deltas, strict=True))}
        changed = replace(evidence, comparison=replace(evidence.comparison, per_class=rows))
        return said(name, changed, limit=0.05, positives=20)

    good, bad, vague = delta(-0.02, 0.02, 50), delta(-0.2, -0.1, 50), delta(-0.1, 0.1, 50)
    assert with_classes(good, good, good).status == "pass"
    failed = with_classes(good, vague, bad)
    assert failed.status == "fail" and "'c'" in failed.why and failed.observed == pytest.approx(0.1)
    assert with_classes(good, vague, good).status == "undecided"
    few = with_classes(good, delta(0.0, 0.0, 12), good)
    assert few.status == "undecided" and "'b' has 12 positives, 8 more are needed" in few.why
    none = with_classes(good, Delta(None, None, None, n_positive=0, reason="absent"), good)
    assert none.status == "undecided" and "no image of class 'b'" in none.why


def test_flip_rate(evidence: Evidence) -> None:
    def with_flips(count: int, low: float, high: float) -> Finding:
        flips = Flips(count, count / 200, low, high, 1, 1)
        return said("flip-rate", replace(evidence, comparison=replace(evidence.comparison, flips=flips)), limit=0.05)

    assert with_flips(2, 0.0, 0.04).status == "pass"
    assert with_flips(40, 0.15, 0.26).status == "fail"
    assert with_flips(8, 0.02, 0.08).status == "undecided"


def collapsed(evidence: Evidence, rows: tuple[tuple[int, ...], ...]) -> Evidence:
    return replace(evidence, candidate=replace(evidence.candidate, confusion=rows))


def test_single_class_collapse_is_named(evidence: Evidence) -> None:
    a, b, c = evidence.candidate.counts.values()
    found = said("single-class-collapse", collapsed(evidence, ((0, a, 0), (0, b, 0), (0, c, 0))))
    assert found.status == "fail" and "'b'" in found.why and found.observed == 1.0
    assert said("single-class-collapse", collapsed(evidence, ((a, 0, 0), (0, b, 0), (0, 0, c)))).status == "pass"

    def onesided(e: Evaluation) -> Evaluation:
        return replace(e, counts={"a": 198, "b": 1, "c": 1}, confusion=((198, 0, 0), (1, 0, 0), (1, 0, 0)))

    rare = replace(evidence, baseline=onesided(evidence.baseline), candidate=onesided(evidence.candidate))
    assert said("single-class-collapse", rare).status == "pass"


def cost(size: int, *latency: Latency) -> Efficiency:
    return Efficiency("x", "r", size, 1.0, latency)


def test_size_must_shrink(evidence: Evidence) -> None:
    """A published "INT8" file grew from 9.13 to 9.24 MB."""
    assert said("size-ratio", evidence).status == "not-applicable"
    grown = replace(evidence, baseline_efficiency=cost(9_130_000), candidate_efficiency=cost(9_240_000))
    assert said("size-ratio", grown).status == "fail"
    shrunk = replace(evidence, baseline_efficiency=cost(400), candidate_efficiency=cost(100))
    assert said("size-ratio", shrunk).observed == 4.0
    assert said("size-ratio", shrunk, limit=4.5).status == "fail"


@pytest.mark.parametrize(
    ("after", "spread", "status"),
    [(9.0, 0.01, "pass"), (12.0, 0.01, "fail"), (10.5, 0.3, "undecided"), (30.0, 0.3, "fail")],
)
def test_slowdown(evidence: Evidence, after: float, spread: float, status: str) -> None:
    assert said("slowdown", evidence).status == "not-applicable"
    timed = replace(
        evidence,
        baseline_efficiency=cost(1, Latency(1, 10.0, 11, 12, 50, 0.02), Latency(32, 1, 1, 1, 9, 0)),
        candidate_efficiency=cost(1, Latency(1, after, 11, 12, 50, spread)),
    )
    found = said("slowdown", timed)
    assert found.status == status and found.observed == pytest.approx(after / 10)


def test_audit_gates(evidence: Evidence) -> None:
    assert said("agreement", evidence).status == "not-applicable"
    assert said("agreement", replace(evidence, audit={"agreement": 0.999})).status == "pass"
    assert said("agreement", replace(evidence, audit={"agreement": 0.95})).status == "fail"
    assert said("finite-outputs", evidence).status == "pass"
    assert said("finite-outputs", replace(evidence, audit={"nonfinite": 3})).status == "fail"


def with_decisions(evidence: Evidence, **parts: Any) -> Evidence:
    return replace(evidence, comparison=replace(evidence.comparison, notes={"decisions": parts}))


def test_frozen_thresholds(evidence: Evidence) -> None:
    def row(low: float, high: float) -> dict[str, Any]:
        middle = (low + high) / 2
        return {
            "baseline": {"sensitivity": 0.9},
            "frozen": {"sensitivity": 0.9 + middle},
            "sensitivity_low": low,
            "sensitivity_high": high,
        }

    name = "threshold-sensitivity-drop"
    assert said(name, with_decisions(evidence)).status == "not-applicable"
    good, bad = row(-0.02, 0.02), row(-0.3, -0.2)
    assert said(name, with_decisions(evidence, operating_points={"a": good})).status == "pass"
    found = said(name, with_decisions(evidence, operating_points={"a": good, "b": bad}))
    assert found.status == "fail" and "'b'" in found.why


def test_net_benefit(evidence: Evidence) -> None:
    def table(low: float, high: float) -> list[dict[str, float]]:
        return [{"at": 0.1, "delta": (low + high) / 2, "low": low, "high": high}]

    name = "net-benefit-drop"
    assert said(name, with_decisions(evidence)).status == "not-applicable"
    good, vague, bad = table(-0.01, 0.01), table(-0.05, 0.05), table(-0.06, -0.03)
    assert said(name, with_decisions(evidence, net_benefit={"a": good})).status == "pass"
    assert said(name, with_decisions(evidence, net_benefit={"a": good, "b": vague})).status == "undecided"
    found = said(name, with_decisions(evidence, net_benefit={"a": vague, "b": bad}))
    assert found.status == "fail" and "'b'" in found.why and found.observed == pytest.approx(0.03)


def test_worst_group(evidence: Evidence) -> None:
    def row(value: str, n: int, low: float, high: float) -> dict[str, Any]:
        middle = (low + high) / 2
        return {
            "attribute": "site",
            "value": value,
            "n": n,
            "baseline": 0.9,
            "candidate": 0.9 + middle,
            "delta": middle,
            "low": low,
            "high": high,
        }

    name = "worst-group-drop"
    assert said(name, with_decisions(evidence)).status == "not-applicable"
    good, bad, few = row("A", 90, -0.01, 0.01), row("B", 90, -0.3, -0.2), row("C", 5, 0.0, 0.0)
    assert said(name, with_decisions(evidence, subgroups=[good])).status == "pass"
    found = said(name, with_decisions(evidence, subgroups=[good, bad, few]))
    assert found.status == "fail" and "site=B" in found.why
    found = said(name, with_decisions(evidence, subgroups=[good, few]))
    assert found.status == "undecided" and "5 images, 15 more are needed" in found.why


@given(st.floats(-0.2, 0.2), st.floats(1e-4, 0.2), st.floats(0.001, 0.1))
def test_a_point_inside_the_limit_alone_never_passes(middle: float, half: float, limit: float) -> None:
    status = state(middle - half, middle + half, limit)
    assert (status == "pass") == (middle + half <= limit)
    assert (status == "fail") == (middle - half > limit)


@given(st.floats(-0.1, 0.1), st.floats(0.001, 0.2), st.floats(0.005, 0.1), st.integers(10, 2000))
def test_as_many_more_as_asked_for_would_decide(value: float, half: float, limit: float, n: int) -> None:
    more = more_needed(value, value - half, value + half, limit, n)
    if state(value - half, value + half, limit) != "undecided" or more is None:
        return
    shrunk = half * np.sqrt(n / (n + more))
    assert state(value - shrunk, value + shrunk, limit + 1e-9 * (1 if value < limit else -1)) != "undecided"
    if more > 1 and abs(limit - value) > 1e-4:
        wider = half * np.sqrt(n / (n + more - 1))
        assert state(value - wider, value + wider, limit - 1e-9 * (1 if value < limit else -1)) == "undecided"


def test_missing_intervals_leave_it_open() -> None:
    bare = Delta(0.9, 0.8, -0.1, n_positive=50, reason="no interval: most bootstrap replicates lack a class")
    assert judged("x", "X", bare, 0.02, 100).status == "undecided"
    assert judged_per_class("x", "X", {"a": bare}, 0.02, 20).status == "undecided"
    assert judged_per_class("x", "X", {}, 0.02, 20).status == "not-applicable"
