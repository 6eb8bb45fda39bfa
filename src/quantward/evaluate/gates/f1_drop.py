"""Macro F1 must not drop: precision and sensitivity of every class at the answers as given."""

from __future__ import annotations

from dataclasses import dataclass

from quantward.core.values import Finding
from quantward.evaluate.evidence import Evidence, judged


@dataclass(frozen=True)
class F1Drop:
    """`limit` is the largest tolerated drop in macro F1, as a share (0.02 is 2 points)."""

    limit: float = 0.03

    def judge(self, evidence: Evidence) -> Finding:
        """Pass where the 95 % bound of the drop in macro F1 is within `limit`, fail where all is beyond."""
        comparison = evidence.comparison
        delta = comparison.deltas["f1"]
        return judged("f1-drop", "Macro F1 holds", delta, self.limit, comparison.n)
