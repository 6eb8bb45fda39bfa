"""Balanced accuracy must not drop: accuracy alone hides what happens to rare classes."""

from __future__ import annotations

from dataclasses import dataclass

from quantward.core.values import Finding
from quantward.evaluate.evidence import Evidence, judged


@dataclass(frozen=True)
class BalancedAccuracyDrop:
    """`limit` is the largest tolerated drop in balanced accuracy, as a share (0.02 is 2 points)."""

    limit: float = 0.03

    def judge(self, evidence: Evidence) -> Finding:
        """Pass where the 95 % bound of the drop in balanced accuracy is within `limit`, fail where all is beyond."""
        comparison = evidence.comparison
        delta = comparison.deltas["balanced_accuracy"]
        return judged("balanced-accuracy-drop", "Balanced accuracy holds", delta, self.limit, comparison.n)
