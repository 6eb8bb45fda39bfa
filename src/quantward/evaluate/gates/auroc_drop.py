"""Macro AUROC must not drop: the ranking of patients, whatever threshold a clinic chooses."""

from __future__ import annotations

from dataclasses import dataclass

from quantward.core.values import Finding
from quantward.evaluate.evidence import Evidence, judged


@dataclass(frozen=True)
class AurocDrop:
    """`limit` is the largest tolerated drop in macro AUROC, as a share (0.02 is 2 points)."""

    limit: float = 0.02

    def judge(self, evidence: Evidence) -> Finding:
        """Pass where the 95 % bound of the drop in macro AUROC is within `limit`, fail where all is beyond."""
        comparison = evidence.comparison
        delta = comparison.deltas["auroc"]
        return judged("auroc-drop", "Macro AUROC holds", delta, self.limit, comparison.n)
