"""The deployed file must answer like the simulation it was chosen by, or what was studied is not what ships."""

from __future__ import annotations

from dataclasses import dataclass

from quantward.core.values import Finding
from quantward.evaluate.evidence import Evidence, points


@dataclass(frozen=True)
class Agreement:
    """`limit` is the smallest tolerated share of images on which simulation and file name the same class."""

    limit: float = 0.99

    def judge(self, evidence: Evidence) -> Finding:
        """Reads `agreement` from the audit, a share of images between 0 and 1."""
        code, title = "agreement", "The file answers like its simulation"
        share = evidence.audit.get("agreement")
        if share is None:
            return Finding(code, title, "not-applicable", None, self.limit, "The file was not audited against one.")
        why = f"Same class on {points(share)} % of the images, at least {points(self.limit)} % wanted."
        return Finding(code, title, "pass" if share >= self.limit else "fail", share, self.limit, why)
