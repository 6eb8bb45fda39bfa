"""Expected calibration error must not rise: a probability that a physician reads has to stay true."""

from __future__ import annotations

from dataclasses import dataclass

from quantward.core.values import Finding
from quantward.evaluate.evidence import Evidence, judged


@dataclass(frozen=True)
class EceIncrease:
    """`limit` is the largest tolerated rise in ECE, as a share (0.02 is 2 points)."""

    limit: float = 0.02

    def judge(self, evidence: Evidence) -> Finding:
        """Pass where the 95 % bound of the rise in ECE is within `limit`, fail where all is beyond."""
        comparison = evidence.comparison
        delta = comparison.deltas["ece"]
        return judged("ece-increase", "Calibration holds", delta, self.limit, comparison.n, smaller_is_better=True)
