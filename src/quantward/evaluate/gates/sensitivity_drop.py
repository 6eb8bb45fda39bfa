"""No class's sensitivity may drop by more than a margin: a disease must not vanish behind a good average."""

from __future__ import annotations

from dataclasses import dataclass

from quantward.core.values import Finding
from quantward.evaluate.evidence import Evidence, judged_per_class


@dataclass(frozen=True)
class SensitivityDrop:
    """`limit` is the largest tolerated drop of any class as a share; below `positives` images a class is undecided."""

    limit: float = 0.05
    positives: int = 20

    def judge(self, evidence: Evidence) -> Finding:
        """Pass where every class's 95 % bound is within the limit, fail where one class's interval is all beyond."""
        deltas = evidence.comparison.per_class["sensitivity"]
        title = "Every class keeps its sensitivity"
        return judged_per_class("sensitivity-drop", title, deltas, self.limit, self.positives)
