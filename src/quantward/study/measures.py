"""Every figure that a study's tables can show, by name: where it stands in what a row left, and how it reads.

A name is a metric (`auroc`), a difference to the baseline (`delta.auroc`), a metric of one class (`auroc[melanoma]`),
of the external images (`external.accuracy`), a cost (`bytes`, `smaller`, `p50@1`, `throughput@32`, `speedup@1`,
`making`), a drift (`drift.rank correlation`) or a fact of the file (`agreement`, `integer_share`, `flips`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

from quantward.core.errors import UsageError
from quantward.core.values import Estimate
from quantward.evaluate.proportions import wilson
from quantward.report import _words as words
from quantward.report._words import ABSENT
from quantward.study.record import Line

Unit = Literal[
    "percent", "score", "points", "change", "bytes", "milliseconds", "seconds", "times", "rate", "probability"
]

ALIASES = {
    "recall": "sensitivity",
    "auc": "auroc",
    "roc_auc": "auroc",
    "size": "bytes",
    "size_ratio": "smaller",
    "latency": "p50",
    "latency_ms": "p50",
    "conversion": "making",
}
"""Words of the papers for figures that have another name here."""


@dataclass(frozen=True)
class Measure:
    """How a figure is called, in which unit it is read, and which way is better (empty where neither is)."""

    name: str
    title: str
    unit: Unit
    better: Literal["higher", "lower", ""] = "higher"

    def text(self, value: float | None) -> str:
        """A value as it is printed, without a unit where the column's title has it.

        >>> Measure("accuracy", "Accuracy, %", "percent").text(0.9313)
        '93.1'
        """
        if value is None:
            return ABSENT
        told: str = _TEXTS[self.unit](value)
        return told

    def interval(self, low: float | None, high: float | None) -> str:
        """Both bounds, empty where there are none."""
        return words.interval(self.text(low), self.text(high))

    def quoted(self, value: float) -> str:
        """A figure of the paper with the digits that the paper gives it.

        >>> Measure("ece", "ECE", "score").quoted(0.0067), Measure("accuracy", "Accuracy, %", "percent").quoted(0.9313)
        ('0.0067', '93.13')
        """
        return f"{self.factor * value:.10g}".replace("-", words.MINUS)

    @property
    def factor(self) -> float:
        """What a value is multiplied with to be in the unit of the title."""
        return {"percent": 100.0, "points": 100.0, "rate": 100.0, "bytes": 1e-6}.get(self.unit, 1.0)


_TEXTS: Mapping[Unit, Any] = {
    "percent": lambda v: words.number(100 * v, 1),
    "rate": lambda v: words.number(100 * v, 1),
    "points": lambda v: words.signed(100 * v, 1),
    "score": lambda v: words.number(v, 3),
    "change": lambda v: words.signed(v, 3),
    "bytes": lambda v: words.milliseconds(v / 1e6),
    "milliseconds": words.milliseconds,
    "seconds": lambda v: words.number(v, 1),
    "times": lambda v: words.number(v, 2),
    "probability": words.probability,
}

_COSTS = {
    "bytes": Measure("bytes", "Size, MB", "bytes", "lower"),
    "smaller": Measure("smaller", "Times smaller", "times"),
    "making": Measure("making", "Conversion, s", "seconds", "lower"),
    "agreement": Measure("agreement", "File = Plan, %", "rate"),
    "integer_share": Measure("integer_share", "Integer layers, %", "rate"),
    "flips": Measure("flips", "Flips, %", "rate", "lower"),
    "precision": Measure("precision", "Precision, %", "percent"),
}
_TIMES = {
    "p50": ("p50, ms", "milliseconds", "lower"),
    "p90": ("p90, ms", "milliseconds", "lower"),
    "p99": ("p99, ms", "milliseconds", "lower"),
    "throughput": ("Images/s", "seconds", "higher"),
    "speedup": ("Times as fast", "times", "higher"),
}
_SHAPE = re.compile(
    r"(?:(?P<place>delta|p|external|drift)\.)?(?P<name>[^.\[\]@]+)(?:\[(?P<label>[^\]]+)\])?(?:@(?P<batch>\d+))?"
)


@dataclass(frozen=True)
class Asked:
    """The parts of a measure's name."""

    place: str
    name: str
    label: str
    batch: int | None


@lru_cache(maxsize=4096)
def asked(name: str) -> Asked:
    """Read a name. Raises UsageError for one that has no such shape.

    >>> asked("auroc[melanoma]").label, asked("p50@32").batch, asked("delta.accuracy").place
    ('melanoma', 32, 'delta')
    """
    found = _SHAPE.fullmatch(name.strip())
    if found is None:
        raise UsageError(f"Expected a figure like auroc, delta.accuracy or p50@1; got {name!r}. See docs/study.md.")
    plain = ALIASES.get(found["name"].lower(), found["name"])
    return Asked(found["place"] or "", plain, found["label"] or "", int(found["batch"]) if found["batch"] else None)


def canonical(name: str) -> str:
    """The one name of a figure, whatever a paper calls it.

    >>> canonical("recall[polyp]"), canonical("Latency@1"), canonical("delta.auc")
    ('sensitivity[polyp]', 'p50@1', 'delta.auroc')
    """
    one = asked(name)
    place = f"{one.place}." if one.place else ""
    return place + one.name + (f"[{one.label}]" if one.label else "") + ("" if one.batch is None else f"@{one.batch}")


@lru_cache(maxsize=4096)
def measure(name: str) -> Measure:
    """How the figure of that name reads.

    >>> measure("delta.accuracy").title, measure("p50@1").title
    ('Accuracy difference, points', 'p50, ms (batch 1)')
    """
    one = asked(name)
    if one.place == "drift":
        return Measure(name, one.name[:1].upper() + one.name[1:], "score")
    if one.name in _TIMES:
        title, unit, better = _TIMES[one.name]
        title += f" (batch {one.batch})" if one.batch is not None else ""
        return Measure(name, title, unit, better)  # type: ignore[arg-type]
    kind = _COSTS.get(one.name) or _metric(one.name)
    if one.place == "p":
        return Measure(name, f"p ({kind.title.partition(',')[0]})", "probability", "")
    if one.place == "delta":
        percent = kind.unit == "percent"
        title = f"{kind.title.partition(',')[0]} difference" + (", points" if percent else "")
        return Measure(name, title, "points" if percent else "change", kind.better)
    title = f"{kind.title}, external" if one.place == "external" else kind.title
    return replace(kind, name=name, title=f"{title}, {words.visible(one.label)}" if one.label else title)


def _metric(name: str) -> Measure:
    kind = words.metric(name)
    return Measure(name, f"{kind.words}, %" if kind.unit == "percent" else kind.words, kind.unit, kind.better)


def of(line: Line, name: str) -> Estimate:
    """The figure of that name in one row: absent, with the reason, where the row does not have it."""
    if line.failure:
        return Estimate(None, reason=line.failure)
    one = asked(name)
    if one.place == "drift":
        return _read(line.drift.get(one.name) or line.drift.get(one.name.replace("_", " ")), "drift was not asked for")
    if one.name in _TIMES:
        return _timed(line, one)
    if one.name == "making":
        return _number(next((row.get("seconds") for row in line.timed), None), "nothing was timed")
    facts = line.external if one.place == "external" else line.facts
    if one.place == "external" and not facts:
        return Estimate(None, reason="the study names no external images")
    if one.name in ("flips", "bytes", "agreement", "integer_share", "smaller"):
        value = line.smaller if one.name == "smaller" else facts.get(one.name)
        why = "is the baseline" if one.name == "flips" else "not told"
        return _read(value, why) if isinstance(value, Mapping) else _number(value, why)
    if one.place in ("delta", "p"):
        return _delta(facts, one)
    if one.label or (one.name == "precision" and "precision" not in facts.get("metrics", {})):
        return _of_class(line, one)
    return _read(facts.get("metrics", {}).get(one.name), f"{one.name} is not measured")


def p_value(line: Line, name: str) -> float | None:
    """Two-sided p-value of a metric's difference to the baseline, None where there is none."""
    found = line.facts.get("deltas", {}).get(name) or {}
    return found.get("p")


def unreliable(line: Line, name: str) -> bool:
    """Whether a time is one that its machine was too noisy for."""
    one = asked(name)
    return one.name in _TIMES and any(row.get("spread", 0) > 0.10 or row.get("settled") is False
                                      for row in _latencies(line, one.batch))  # fmt: skip


def _delta(facts: Mapping[str, Any], one: Asked) -> Estimate:
    found = facts.get("deltas", {}).get(one.name)
    if found is None:
        return Estimate(None, reason="is the baseline" if not facts.get("deltas") else f"{one.name} is not compared")
    return _number(found.get("p"), found.get("reason", "")) if one.place == "p" else _read(found, "not defined")


def _timed(line: Line, one: Asked) -> Estimate:
    rows = _latencies(line, one.batch)
    if not rows:
        why = next((str(row["failure"]) for row in line.timed if row.get("failure")), "")
        return Estimate(None, reason=why or line.untimed or "nothing was timed")
    row = rows[0]
    if one.name == "throughput":
        return _number(1000 * row["batch"] / row["p50"] if row["p50"] else None, "not timed")
    if one.name == "speedup":
        found = [gain for timed in line.timed for gain in timed.get("speedups", ())
                 if gain["batch"] == row["batch"] and "torch-float" not in gain["reference"]]  # fmt: skip
        return _read(found[0], "") if found else Estimate(None, reason="is the baseline, or FP32 was not timed along")
    return _number(row.get(one.name), "not timed")


def _latencies(line: Line, batch: int | None) -> list[Mapping[str, Any]]:
    found = [row for timed in line.timed for row in timed.get("latency", ())]
    least = min((row["batch"] for row in found), default=None) if batch is None else batch
    return [row for row in found if row["batch"] == least]


def _of_class(line: Line, one: Asked) -> Estimate:
    """A metric of one class, or the precision: from the row's whole evaluation."""
    whole = line.document("evaluation.json")
    if not whole:
        return Estimate(None, reason="the row's evaluation is not at hand")
    classes = list(whole["classes"])
    if one.label and one.label not in classes:
        return Estimate(None, reason=f"no class {one.label!r}")
    if one.name != "precision":
        return _read(whole["per_class"].get(one.name, {}).get(one.label), f"{one.name} is not measured by class")
    shares = [_precision(whole["confusion"], k) for k in range(len(classes))]
    if one.label:
        return shares[classes.index(one.label)]
    values = [share.value for share in shares if share.value is not None]
    if len(values) < len(classes):
        return Estimate(None, reason="a class is never named")
    return Estimate(sum(values) / len(values), n=int(whole["n"]))


def _precision(confusion: list[list[float]], k: int) -> Estimate:
    """TP / (TP + FP) of class k with Wilson's interval."""
    named = sum(row[k] for row in confusion)
    if not named:
        return Estimate(None, reason="the class is never named")
    low, high = wilson(confusion[k][k], named)
    return Estimate(confusion[k][k] / named, low, high, int(named))


def _read(found: Mapping[str, Any] | None, why: str) -> Estimate:
    """An Estimate from any of the forms in which facts hold one: `value`, `mean`, `delta` or `rate` with bounds."""
    if found is None:
        return Estimate(None, reason=why)
    value = next((found[key] for key in ("value", "delta", "mean", "rate") if found.get(key) is not None), None)
    return Estimate(value, found.get("low"), found.get("high"), int(found.get("n") or 0),
                    reason=found.get("reason") or ("" if value is not None else why or "not defined"))  # fmt: skip


def _number(value: Any, why: str) -> Estimate:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return Estimate(float(value))
    return Estimate(None, reason=why)
