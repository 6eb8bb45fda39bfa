"""No subgroup (hospital, sex, scanner, ...) may lose accuracy: an average must not hide who pays for the change."""

from __future__ import annotations

from dataclasses import dataclass

from quantward.core.values import Delta, Finding
from quantward.evaluate.evidence import Evidence, judged_per_class


@dataclass(frozen=True)
class WorstGroupDrop:
    """`limit` is the largest tolerated drop of any subgroup as a share; one of fewer than `images` is undecided."""

    limit: float = 0.05
    images: int = 20

    def judge(self, evidence: Evidence) -> Finding:
        """Reads the subgroup table of the comparison; not applicable where no attribute was given."""
        code, title = "worst-group-drop", "Every subgroup keeps its accuracy"
        rows = evidence.comparison.notes.get("decisions", {}).get("subgroups")
        if not rows:
            return Finding(code, title, "not-applicable", None, self.limit, "No attribute of the images was given.")
        deltas = {
            f"{row['attribute']}={row['value']}": Delta(
                row["baseline"], row["candidate"], row["delta"], row["low"], row["high"], n_positive=row["n"]
            )
            for row in rows
        }
        return judged_per_class(code, title, deltas, self.limit, self.images, what="images")
