"""Accuracy must not drop by more than a margin: the first thing anybody asks."""

from __future__ import annotations

from dataclasses import dataclass

from quantward.core.values import Finding
from quantward.evaluate.evidence import Evidence, judged


@dataclass(frozen=True)
class AccuracyDrop:
    """`limit` is the largest tolerated drop in accuracy, as a share (0.02 is 2 points)."""

    limit: float = 0.02

    def judge(self, evidence: Evidence) -> Finding:
        """Pass where the 95 % bound of the drop in accuracy is within `limit`, fail where all is beyond."""
        comparison = evidence.comparison
        delta = comparison.deltas["accuracy"]
        return judged("accuracy-drop", "Accuracy holds", delta, self.limit, comparison.n)
