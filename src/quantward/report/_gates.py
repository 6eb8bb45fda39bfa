"""Which finding belongs to which metric: so that a figure can draw the margin a verdict was made with."""

from __future__ import annotations

from quantward.core.values import Finding, Verdict
from quantward.report._figures import Limit
from quantward.report._words import METRICS, metric

_ENDINGS = ("_drop", "_increase")
_OF_CLASSES = ("sensitivity", "specificity")
"""Gates on these judge every class; over the whole set there is no margin for them."""


def concerns(finding: Finding) -> tuple[str, bool] | None:
    """The metric whose change a finding limits, and whether it does so for every class; None for other findings.

    >>> concerns(Finding("balanced-accuracy-drop", "", "pass", -0.01, 0.02, ""))
    ('balanced_accuracy', False)
    >>> concerns(Finding("class-auroc-drop", "", "pass", -0.01, 0.02, ""))
    ('auroc', True)
    >>> concerns(Finding("size-ratio", "", "pass", 3.7, 3.0, "")) is None
    True
    """
    code = finding.code.replace("-", "_")
    ending = next((e for e in _ENDINGS if code.endswith(e)), None)
    if ending is None:
        return None
    stem = code.removesuffix(ending)
    name = stem.removeprefix("class_")
    return (name, stem != name or name in _OF_CLASSES) if name in METRICS else None


def about(verdict: Verdict | None, name: str, classes: bool = False) -> Finding | None:
    """The finding about a metric of the whole (or, with `classes`, of each class); None where no gate asked."""
    if verdict is None:
        return None
    return next((f for f in verdict.findings if concerns(f) == (name, classes)), None)


def limit_of(finding: Finding | None, name: str) -> Limit | None:
    """The margin of a finding as a distance from zero towards harm."""
    if finding is None or finding.limit is None:
        return None
    return Limit(abs(finding.limit), metric(name).better)
