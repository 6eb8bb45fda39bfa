"""How numbers, metrics and states read in a report: one place, so that terminal and HTML never disagree."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from quantward.core.values import Delta, Estimate, Finding, Verdict

ABSENT = "–"
MINUS = "−"


@dataclass(frozen=True)
class Metric:
    """What a metric is called, in which unit it is read, which way is better, and what it means in a sentence."""

    name: str
    words: str
    unit: Literal["percent", "score"]
    better: Literal["higher", "lower"]
    meaning: str

    def figure(self, value: float | None, digits: int | None = None) -> str:
        """A value of this metric, without its unit."""
        if value is None:
            return ABSENT
        if self.unit == "percent":
            return number(100 * value, 1 if digits is None else digits)
        return number(value, 3 if digits is None else digits)

    def value(self, value: float | None) -> str:
        """A value of this metric with its unit: `91.0 %` or `0.973`."""
        return self.figure(value) + (" %" if self.unit == "percent" and value is not None else "")

    def change(self, value: float | None) -> str:
        """A difference of this metric, signed, without its unit."""
        if value is None:
            return ABSENT
        return signed(100 * value, 1) if self.unit == "percent" else signed(value, 3)


_ALL = (
    Metric(
        "accuracy",
        "Accuracy",
        "percent",
        "higher",
        "Share of images whose most probable class is the true one.",
    ),
    Metric(
        "balanced_accuracy",
        "Balanced accuracy",
        "percent",
        "higher",
        "Mean of the sensitivities of the classes, so that a rare class counts as much as a common one.",
    ),
    Metric(
        "sensitivity",
        "Sensitivity",
        "percent",
        "higher",
        "Of the images that show a class, the share the model finds (recall).",
    ),
    Metric(
        "specificity",
        "Specificity",
        "percent",
        "higher",
        "Of the images that do not show a class, the share the model rightly leaves out.",
    ),
    Metric(
        "auroc",
        "AUROC",
        "score",
        "higher",
        "Chance that a random image of the class gets a higher probability than a random other image.",
    ),
    Metric(
        "auprc",
        "AUPRC",
        "score",
        "higher",
        "Area under precision against recall; the stricter figure where a class is rare.",
    ),
    Metric("f1", "F1", "score", "higher", "Harmonic mean of precision and sensitivity."),
    Metric("kappa", "Cohen's kappa", "score", "higher", "Agreement with the truth beyond what chance would give."),
    Metric(
        "brier",
        "Brier score",
        "score",
        "lower",
        "Mean squared distance between the probabilities and the truth, summed over classes; lower is better.",
    ),
    Metric(
        "ece",
        "ECE",
        "score",
        "lower",
        "Expected calibration error: mean distance between stated probability and observed frequency; lower is better.",
    ),
    Metric(
        "ece_debiased",
        "ECE, debiased",
        "score",
        "lower",
        "ECE less what a perfectly calibrated model of this many images would show by chance alone.",
    ),
)
METRICS: Mapping[str, Metric] = {metric.name: metric for metric in _ALL}


def metric(name: str) -> Metric:
    """The metric of that name; one unknown to this file reads as a plain score, higher being better."""
    return METRICS.get(name) or Metric(name, visible(name.replace("_", " ")), "score", "higher", "")


def ordered(names: Mapping[str, Any]) -> list[str]:
    """Metric names in the order of reading; names unknown here come last, in their own order."""
    known = [name for name in METRICS if name in names]
    return known + [name for name in names if name not in METRICS]


def visible(text: object) -> str:
    """A foreign text (class name, id) on one line and without control characters, so that it cannot move a cursor
    or turn the direction of the line.

    >>> visible("a\\x1b[31mb\\nc")
    'a�[31mb c'
    """
    line = " ".join(str(text).split())
    return "".join("�" if unicodedata.category(sign) in ("Cc", "Cf", "Cs") else sign for sign in line)


def number(value: float | None, digits: int = 1) -> str:
    """A number with a true minus sign, never minus zero.

    >>> number(-0.04), number(-2.5), number(None)
    ('0.0', '−2.5', '–')
    """
    if value is None:
        return ABSENT
    text = f"{value:.{digits}f}"
    if float(text) == 0:
        text = text.lstrip("-")
    return text.replace("-", MINUS)


def signed(value: float | None, digits: int = 1) -> str:
    """A number that always shows its sign, except zero.

    >>> signed(0.31), signed(-0.31), signed(0.0)
    ('+0.3', '−0.3', '0.0')
    """
    text = number(value, digits)
    return text if value is None or text[0] == MINUS or float(text) == 0 else f"+{text}"


def percent(value: float | None, digits: int = 1) -> str:
    """A share as a percentage.

    >>> percent(0.0234)
    '2.3 %'
    """
    return ABSENT if value is None else f"{number(100 * value, digits)} %"


def ratio(value: float | None) -> str:
    """How many times smaller or faster.

    >>> ratio(3.74), ratio(12.4)
    ('3.7×', '12×')
    """
    return ABSENT if value is None else f"{number(value, 1 if value < 10 else 0)}×"


def milliseconds(value: float | None) -> str:
    """A duration in milliseconds with three figures.

    >>> milliseconds(5.234), milliseconds(52.34), milliseconds(523.4)
    ('5.23', '52.3', '523')
    """
    return ABSENT if value is None else number(value, 2 if value < 10 else 1 if value < 100 else 0)


def size(count: int | None) -> str:
    """Bytes as MB (10^6) or kB, as file managers and the literature give them.

    >>> size(8_912_345), size(23_400)
    ('8.91 MB', '23.4 kB')
    """
    if count is None:
        return ABSENT
    return f"{milliseconds(count / 1e6)} MB" if count >= 100_000 else f"{number(count / 1e3, 1)} kB"


def probability(value: float | None) -> str:
    """A p-value as journals print it.

    >>> probability(0.0004), probability(0.0321), probability(0.21)
    ('< 0.001', '0.032', '0.21')
    """
    if value is None:
        return ABSENT
    return "< 0.001" if value < 0.001 else number(value, 3 if value < 0.1 else 2)


def seconds(value: float | None) -> str:
    """A duration of work.

    >>> seconds(0.42), seconds(75)
    ('0.4 s', '1 min 15 s')
    """
    if value is None:
        return ABSENT
    return f"{number(value, 1)} s" if value < 60 else f"{int(value // 60)} min {int(value % 60)} s"


def count(amount: int, one: str, many: str = "") -> str:
    """An amount with its noun.

    >>> count(1, "image"), count(1200, "image"), count(2, "class", "classes")
    ('1 image', '1,200 images', '2 classes')
    """
    return f"{amount:,} {one if amount == 1 else many or one + 's'}"


def interval(low: str, high: str) -> str:
    """Two bounds as one text; empty where there are none.

    >>> interval("−1.1", "+0.5")
    '−1.1 to +0.5'
    """
    return "" if ABSENT in (low, high) else f"{low} to {high}"


def bounds(estimate: Estimate | None, kind: Metric) -> str:
    """The interval of an Estimate in the metric's unit."""
    if estimate is None:
        return ""
    return interval(kind.figure(estimate.low), kind.figure(estimate.high))


def change_bounds(delta: Delta | None, kind: Metric) -> str:
    """The interval of a Delta in the metric's unit (points or score)."""
    return "" if delta is None else interval(kind.change(delta.low), kind.change(delta.high))


def meaning(delta: Delta, kind: Metric, alpha: float = 0.05) -> str:
    """What a difference says, in plain words: only what its interval and its corrected p-value allow.

    >>> meaning(Delta(0.91, 0.87, -0.04, -0.06, -0.02, 0.001, 0.004), metric("accuracy"))
    'worse'
    >>> meaning(Delta(0.91, 0.905, -0.005, -0.02, 0.01, 0.4, 1.0), metric("accuracy"))
    'no difference shown'
    >>> meaning(Delta(0.04, 0.05, 0.01, 0.002, 0.02, 0.02, 0.2), metric("ece"))
    'perhaps worse'
    """
    if delta.delta is None:
        return f"not defined: {visible(delta.reason)}" if delta.reason else "not defined"
    if delta.low is None or delta.high is None:
        return "no interval"
    if delta.low <= 0 <= delta.high:
        return "identical" if delta.low == delta.high == 0 else "no difference shown"
    risen = delta.low > 0
    word = "better" if risen == (kind.better == "higher") else "worse"
    if delta.p_holm is not None and delta.p_holm >= alpha:
        return f"perhaps {word}"
    return word


OUTCOMES = {
    "PASS": "pass",
    "FAIL": "fail",
    "INSUFFICIENT EVIDENCE": "undecided",
}
"""Outcome of a verdict -> the state of a finding that has the same colour."""

SIGNS = {"pass": "✓", "fail": "✕", "undecided": "?", "not-applicable": "·", "baseline": "◦", "failed": "✕",
         "error": "✕", "warning": "!", "note": "·"}  # fmt: skip
"""A shape beside each colour: the state must be readable in grey and by those who do not see red and green."""

STATES = {
    "pass": "pass",
    "fail": "fail",
    "undecided": "undecided",
    "not-applicable": "not applicable",
}


def deciding(verdict: Verdict) -> tuple[Finding, ...]:
    """The findings that made the outcome what it is: the failures, else the undecided ones, else none."""
    for status in ("fail", "undecided"):
        found = tuple(finding for finding in verdict.findings if finding.status == status)
        if found:
            return found
    return ()


def summary(verdict: Verdict) -> str:
    """One line on how a verdict came about.

    >>> summary(Verdict("x", (Finding("a", "", "pass", 0, 0, ""), Finding("b", "", "not-applicable", 0, 0, ""))))
    'the one gate that applies passed'
    """
    tally = {state: sum(f.status == state for f in verdict.findings) for state in STATES}
    applied = len(verdict.findings) - tally["not-applicable"]
    if not applied:
        return "no gate applied"
    if tally["fail"] or tally["undecided"]:
        parts = [f"{tally[s]} {w}" for s, w in (("fail", "failed"), ("undecided", "undecided")) if tally[s]]
        return f"{' and '.join(parts)} of {count(applied, 'gate')}"
    return "the one gate that applies passed" if applied == 1 else f"all {applied} gates passed"
