"""The debiased calibration error must not rise: for small test sets, where the plain ECE is mostly noise."""

from __future__ import annotations

from dataclasses import dataclass

from quantward.core.values import Finding
from quantward.evaluate.evidence import Evidence, judged


@dataclass(frozen=True)
class EceDebiasedIncrease:
    """`limit` is the largest tolerated rise in the debiased ECE, as a share (0.02 is 2 points)."""

    limit: float = 0.02

    def judge(self, evidence: Evidence) -> Finding:
        """Pass where the 95 % bound of the rise in the debiased ECE is within `limit`, fail where all is beyond."""
        comparison = evidence.comparison
        delta = comparison.deltas["ece_debiased"]
        return judged(
            "ece-debiased-increase",
            "Debiased calibration error holds",
            delta,
            self.limit,
            comparison.n,
            smaller_is_better=True,
        )
