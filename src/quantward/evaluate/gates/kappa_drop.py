"""Cohen's kappa must not drop: agreement with the truth beyond what the class shares alone would give."""

from __future__ import annotations

from dataclasses import dataclass

from quantward.core.values import Finding
from quantward.evaluate.evidence import Evidence, judged


@dataclass(frozen=True)
class KappaDrop:
    """`limit` is the largest tolerated drop in kappa, as a share (0.02 is 2 points)."""

    limit: float = 0.03

    def judge(self, evidence: Evidence) -> Finding:
        """Pass where the 95 % bound of the drop in kappa is within `limit`, fail where all is beyond."""
        comparison = evidence.comparison
        delta = comparison.deltas["kappa"]
        return judged("kappa-drop", "Agreement with the truth holds", delta, self.limit, comparison.n)
