"""Net benefit must not drop: what a decision curve is worth to patients, false calls weighed at their price."""

from __future__ import annotations

from dataclasses import dataclass

from quantward.core.values import Finding
from quantward.evaluate.evidence import Evidence, ask_for_more, points, state


@dataclass(frozen=True)
class NetBenefitDrop:
    """`limit` is the largest tolerated drop of any class at any threshold probability: net true positives an image."""

    limit: float = 0.02

    def judge(self, evidence: Evidence) -> Finding:
        """Reads the decisions of the comparison: the worst class and threshold decides by its bound."""
        code, title = "net-benefit-drop", "Net benefit holds"
        tables = evidence.comparison.notes.get("decisions", {}).get("net_benefit")
        if not tables:
            return Finding(code, title, "not-applicable", None, self.limit, "No net benefit was computed.")
        rows = [(name, row) for name, table in tables.items() for row in table]
        severity = {"pass": 0, "undecided": 1, "fail": 2}
        name, row = max(
            rows,
            key=lambda item: (
                severity[state(-item[1]["high"], -item[1]["low"], self.limit)],
                -item[1]["low"],
            ),
        )
        value, low, high = -row["delta"], -row["high"], -row["low"]
        status = state(low, high, self.limit)
        why = (
            f"Worst: {name!r} at threshold {row['at']:g}, drop {points(value)} per 100 images, 95 % interval "
            f"{points(low)} to {points(high)}, limit {points(self.limit)}."
        )
        if status == "undecided":
            why += " " + ask_for_more(value, low, high, self.limit, evidence.comparison.n, "images")
        return Finding(code, title, status, low if status == "fail" else high, self.limit, why)
