"""Macro AUPRC must not drop: it reacts to rare classes where AUROC stays high."""

from __future__ import annotations

from dataclasses import dataclass

from quantward.core.values import Finding
from quantward.evaluate.evidence import Evidence, judged


@dataclass(frozen=True)
class AuprcDrop:
    """`limit` is the largest tolerated drop in macro AUPRC, as a share (0.02 is 2 points)."""

    limit: float = 0.03

    def judge(self, evidence: Evidence) -> Finding:
        """Pass where the 95 % bound of the drop in macro AUPRC is within `limit`, fail where all is beyond."""
        comparison = evidence.comparison
        delta = comparison.deltas["auprc"]
        return judged("auprc-drop", "Macro AUPRC holds", delta, self.limit, comparison.n)
