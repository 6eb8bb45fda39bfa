"""Few images may change their predicted class: equal accuracy can hide many answers that merely traded places."""

from __future__ import annotations

from dataclasses import dataclass

from quantward.core.values import Finding
from quantward.evaluate.evidence import Evidence, ask_for_more, points, state


@dataclass(frozen=True)
class FlipRate:
    """`limit` is the largest tolerated share of images whose predicted class changes."""

    limit: float = 0.05

    def judge(self, evidence: Evidence) -> Finding:
        """Pass where the upper 95 % bound of the flip rate is within the limit, fail where the lower one is beyond."""
        flips, n = evidence.comparison.flips, evidence.comparison.n
        status = state(flips.low, flips.high, self.limit)
        why = (
            f"{flips.count} of {n} images flipped ({points(flips.rate)} %), 95 % interval {points(flips.low)} to "
            f"{points(flips.high)} %, limit {points(self.limit)} %; {flips.broken} were right before, {flips.mended} "
            "are right now."
        )
        if status == "undecided":
            why += " " + ask_for_more(flips.rate, flips.low, flips.high, self.limit, n, "images")
        observed = flips.low if status == "fail" else flips.high
        return Finding("flip-rate", "Answers stay the same", status, observed, self.limit, why)
