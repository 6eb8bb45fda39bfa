"""What every way of training shares: how long, how fast, when to stop. Stages add their own options to it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from quantward.core.errors import UsageError


@dataclass(frozen=True)
class Course:
    """The course of one training.

    `lr` is the peak rate, reached after `warmup` (a share of all steps) and then lowered by `schedule`: `cosine` to
    zero at the last step, `plateau` to a tenth whenever `monitor` rests for half the patience, or `constant`. Training
    ends when `monitor` on the tuning images has not improved by more than `min_delta` for `patience` epochs; the best
    epoch's weights are kept. `clip` bounds the gradient norm (0: never). `freeze_norm` keeps the batch statistics as
    they are. `precision` auto means bf16 where processor or GPU compute in it, else float32.
    """

    epochs: int = 15
    batch: int = 32
    lr: float = 1e-3
    weight_decay: float = 0.02
    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    schedule: Literal["cosine", "plateau", "constant"] = "cosine"
    warmup: float = 0.1
    patience: int = 5
    min_delta: float = 0.001
    monitor: Literal["loss", "accuracy"] = "loss"
    clip: float = 0.0
    freeze_norm: bool = False
    precision: Literal["auto", "32", "bf16"] = "auto"
    deterministic: bool = True

    def __post_init__(self) -> None:
        require(
            self,
            ("epochs", 1, math.inf),
            ("batch", 1, math.inf),
            ("lr", 1e-12, math.inf),
            ("weight_decay", 0, math.inf),
            ("warmup", 0, 1),
            ("patience", 1, math.inf),
            ("min_delta", 0, math.inf),
            ("clip", 0, math.inf),
        )


def require(options: object, *rows: tuple[str, float, float]) -> None:
    """Raises UsageError for the first of the options (name, least, most) whose value is outside its bounds."""
    for name, low, high in rows:
        value = getattr(options, name)
        if not low <= value <= high:
            raise UsageError(
                f"Expected {name} of at least {low:g}{'' if math.isinf(high) else f', at most {high:g}'}; "
                f"got {value:g}. Choose another value."
            )


def rate(course: Course, step: int, steps: int, factor: float = 1.0) -> float:
    """Learning rate of one step out of `steps`; `factor` is what a plateau has left of it.

    Warm-up: lr (step + 1) / w over the first w = warmup * steps steps. Cosine (Loshchilov and Hutter, 2017, without
    restarts): lr (1 + cos(pi t)) / 2, t running from 0 after the warm-up to 1 after the last step.

    >>> course = Course(lr=1.0, warmup=0.2)
    >>> [round(rate(course, step, 10), 3) for step in (0, 1, 2, 6, 9)]
    [0.5, 1.0, 1.0, 0.5, 0.038]
    """
    warm = round(course.warmup * steps)
    if step < warm:
        return course.lr * (step + 1) / warm
    if course.schedule == "cosine":
        return course.lr * 0.5 * (1.0 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))
    return course.lr * factor
