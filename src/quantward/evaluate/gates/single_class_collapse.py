"""The candidate must not call nearly everything one class, as networks do once their ranges are lost."""

from __future__ import annotations

from dataclasses import dataclass

from quantward.core.values import Evaluation, Finding
from quantward.evaluate.evidence import Evidence, points


@dataclass(frozen=True)
class SingleClassCollapse:
    """`limit` is the largest share of images that may go to one class, unless truth or baseline reach it too."""

    limit: float = 0.95

    def judge(self, evidence: Evidence) -> Finding:
        """Fail where one class takes more than `limit` of the answers but not of the truth or the baseline's."""
        calls = _calls(evidence.candidate)
        name = max(calls, key=lambda label: calls[label])
        share = calls[name]
        truth = evidence.candidate.counts[name] / evidence.candidate.n
        before = _calls(evidence.baseline)[name]
        collapsed = share > self.limit and truth <= self.limit and before <= self.limit
        why = (
            f"{points(share)} % of the answers are {name!r}; {points(truth)} % of the images are, and the baseline "
            f"says so of {points(before)} %."
        )
        title = "Answers use every class"
        return Finding("single-class-collapse", title, "fail" if collapsed else "pass", share, self.limit, why)


def _calls(evaluation: Evaluation) -> dict[str, float]:
    columns = [sum(column) for column in zip(*evaluation.confusion, strict=True)]
    return {name: count / evaluation.n for name, count in zip(evaluation.classes, columns, strict=True)}
