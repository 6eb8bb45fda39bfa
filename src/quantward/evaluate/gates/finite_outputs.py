"""No output may be NaN or infinite: an overflow in FP16 is a wrong answer, not a rounding error."""

from __future__ import annotations

from dataclasses import dataclass

from quantward.core.values import Finding
from quantward.evaluate.evidence import Evidence


@dataclass(frozen=True)
class FiniteOutputs:
    """`limit` is how many images may have an output that is not finite."""

    limit: int = 0

    def judge(self, evidence: Evidence) -> Finding:
        """Reads `nonfinite` from the audit, a number of images; figures that were computed at all are finite."""
        count = int(evidence.audit.get("nonfinite", 0))
        why = (
            f"{count} of {evidence.candidate.n} images have an output that is NaN or infinite."
            if count
            else "Every output is a number."
        )
        title = "Every output is a number"
        return Finding("finite-outputs", title, "pass" if count <= self.limit else "fail", count, self.limit, why)
