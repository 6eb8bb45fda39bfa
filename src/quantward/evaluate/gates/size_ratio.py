"""The file must really shrink: a "quantized" file that keeps FP32 weights is larger, not smaller."""

from __future__ import annotations

from dataclasses import dataclass

from quantward.core.values import Finding
from quantward.evaluate.evidence import Evidence


@dataclass(frozen=True)
class SizeRatio:
    """`limit` is how many times smaller than the baseline's file the candidate's must be at least."""

    limit: float = 1.0

    def judge(self, evidence: Evidence) -> Finding:
        """Pass where baseline bytes / candidate bytes reach the limit; bytes have no interval."""
        code, title = "size-ratio", "The file shrinks"
        before, after = evidence.baseline_efficiency, evidence.candidate_efficiency
        if before is None or after is None or not before.bytes or not after.bytes:
            return Finding(code, title, "not-applicable", None, self.limit, "The files were not measured.")
        ratio = before.bytes / after.bytes
        why = f"{before.bytes:,} bytes become {after.bytes:,}: {ratio:.2f} times smaller, {self.limit:g} wanted."
        return Finding(code, title, "pass" if ratio >= self.limit else "fail", ratio, self.limit, why)
