"""The candidate must not be slower than the baseline where it runs: fewer bits do not imply less time."""

from __future__ import annotations

from dataclasses import dataclass

from quantward.core.values import Finding
from quantward.evaluate.evidence import Evidence


@dataclass(frozen=True)
class Slowdown:
    """`limit` is the largest tolerated ratio of median latencies, candidate over baseline, at batch 1."""

    limit: float = 1.1

    def judge(self, evidence: Evidence) -> Finding:
        """Undecided where the machine was too noisy for either figure and the ratio is within 25 % of the limit."""
        code, title = "slowdown", "It is not slower"
        before, after = evidence.baseline_efficiency, evidence.candidate_efficiency
        ours = {item.batch: item for item in before.latency} if before else {}
        theirs = {item.batch: item for item in after.latency} if after else {}
        shared = sorted(set(ours) & set(theirs))
        if not shared:
            return Finding(code, title, "not-applicable", None, self.limit, "No latency was measured for both.")
        one, two = ours[shared[0]], theirs[shared[0]]
        ratio = two.p50 / one.p50
        why = (
            f"{one.p50:.2f} ms become {two.p50:.2f} ms at batch {one.batch}: {ratio:.2f} times the baseline's, "
            f"at most {self.limit:g} wanted."
        )
        noisy = not (one.reliable and two.reliable)
        if noisy and self.limit / 1.25 < ratio < self.limit * 1.25:
            why += " The machine was too noisy to tell (spread over 10 %); measure on a quiet one."
            return Finding(code, title, "undecided", ratio, self.limit, why)
        return Finding(code, title, "pass" if ratio <= self.limit else "fail", ratio, self.limit, why)
