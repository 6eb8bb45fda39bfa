"""Brier score must not rise: calibration and discrimination in one proper score."""

from __future__ import annotations

from dataclasses import dataclass

from quantward.core.values import Finding
from quantward.evaluate.evidence import Evidence, judged


@dataclass(frozen=True)
class BrierIncrease:
    """`limit` is the largest tolerated rise in the Brier score, as a share (0.02 is 2 points)."""

    limit: float = 0.02

    def judge(self, evidence: Evidence) -> Finding:
        """Pass where the 95 % bound of the rise in the Brier score is within `limit`, fail where all is beyond."""
        comparison = evidence.comparison
        delta = comparison.deltas["brier"]
        return judged("brier-increase", "Brier score holds", delta, self.limit, comparison.n, smaller_is_better=True)
