"""How long a study will still take: by the times of like steps that are done, else by rules of thumb."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from quantward.study.values import Design, Done, Step, Store


@dataclass(frozen=True)
class Work:
    """One kind of step: how many there are, how many are done, and how many seconds the others take on one worker.
    `rough` says that no step of the kind has ever been timed here, so the seconds are a rule of thumb."""

    kind: str
    steps: int
    done: int
    seconds: float
    rough: bool


@dataclass(frozen=True)
class Forecast:
    """What is left of a study; `times` is step -> seconds, for every step that is not done."""

    kinds: tuple[Work, ...]
    times: Mapping[str, float]

    @property
    def seconds(self) -> float:
        """All that is left, one step after the other."""
        return sum(self.times.values())

    @property
    def rough(self) -> bool:
        """Whether a rule of thumb has a share in it."""
        return any(work.rough for work in self.kinds if work.done < work.steps)


def estimate(design: Design, store: Store) -> Forecast:
    """What is left to do of a design, given what its store holds."""
    return forecast(design, {key: done for key in design.steps if (done := store.find(key)) is not None})


def forecast(design: Design, finished: Mapping[str, Done]) -> Forecast:
    """What is left to do when `finished` (key -> result) is done.

    A step takes its rule of thumb times the median of real over thumb, among the finished steps of its kind and
    network where there are any, else among those of its kind.
    """
    arch = networks(design)
    ratios: dict[tuple[str, str], list[float]] = {}
    for key, done in finished.items():
        step = design.steps.get(key)
        if step is not None and step.guess > 0:
            for what in (arch[key], ""):
                ratios.setdefault((step.kind, what), []).append(done.seconds / step.guess)
    factor = {what: median(values) for what, values in ratios.items()}
    times = {
        key: step.guess * factor.get((step.kind, arch[key]), factor.get((step.kind, ""), 1.0))
        for key, step in design.steps.items()
        if key not in finished
    }
    kinds = []
    for kind in dict.fromkeys(step.kind for step in design.steps.values()):
        keys = [key for key, step in design.steps.items() if step.kind == kind]
        kinds.append(Work(kind, len(keys), sum(key in finished for key in keys),
                          sum(times.get(key, 0.0) for key in keys), (kind, "") not in factor))  # fmt: skip
    return Forecast(tuple(kinds), times)


def networks(design: Design) -> dict[str, str]:
    """Each step's network: that of its training, or of what it needs first."""
    found: dict[str, str] = {}

    def of(step: Step) -> str:
        asked: Mapping[str, Any] = step.asked
        if "arch" in asked:
            return str(asked["arch"])
        return next((found[key] for part, key in step.needs.items() if not part.startswith("@")), "")

    for key, step in design.steps.items():
        found[key] = of(step)
    return found
