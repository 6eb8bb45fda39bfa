"""At the baseline's own operating threshold no class may lose sensitivity: clinics do not retune after an update."""

from __future__ import annotations

from dataclasses import dataclass

from quantward.core.values import Delta, Finding
from quantward.evaluate.evidence import Evidence, judged_per_class


@dataclass(frozen=True)
class ThresholdSensitivityDrop:
    """`limit` is the largest tolerated drop of any class as a share; below `positives` images a class is undecided."""

    limit: float = 0.05
    positives: int = 20

    def judge(self, evidence: Evidence) -> Finding:
        """Reads the frozen operating points of the comparison: pass where every class's bound is within the limit."""
        code, title = "threshold-sensitivity-drop", "Frozen thresholds keep their sensitivity"
        points = evidence.comparison.notes.get("decisions", {}).get("operating_points")
        if not points:
            return Finding(code, title, "not-applicable", None, self.limit, "No operating point was set.")
        deltas = {}
        for name, row in points.items():
            before, after = row["baseline"]["sensitivity"], row["frozen"]["sensitivity"]
            deltas[name] = Delta(
                before,
                after,
                after - before,
                row["sensitivity_low"],
                row["sensitivity_high"],
                n_positive=evidence.baseline.counts[name],
            )
        return judged_per_class(code, title, deltas, self.limit, self.positives)
