"""Distils a trained teacher (a RUN of any architecture) into the network: its soft answers beside the labels."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from quantward.core.progress import Track, silent
from quantward.train.batches import Images
from quantward.train.course import Course, require
from quantward.train.distillation import Teacher, distillation, open_teacher, teacher_card
from quantward.train.loop import History
from quantward.train.losses import Loss
from quantward.train.presets import with_presets
from quantward.train.supervision import Supervision
from quantward.train.teach import teach


@with_presets
@dataclass(frozen=True)
class Distill(Supervision, Course):
    """The options of a Course and of Supervision, and whom to learn from.

    `teacher` is a RUN folder, or a folder of folds, of which each student takes the teacher of its own fold. `alpha` is
    the teacher's share of the loss, `temperature` softens both answers, `features` weighs how both relate the images of
    a batch (0: not at all; a few hundred to 3000 is usual). With `augment=none` the teacher is asked once for every
    image, else about every view.
    """

    teacher: str = field(kw_only=True)
    alpha: float = 0.7
    temperature: float = 4.0
    features: float = 0.0

    def __post_init__(self) -> None:
        Course.__post_init__(self)
        Supervision.__post_init__(self)
        require(self, ("alpha", 0, 1), ("temperature", 0.01, math.inf), ("features", 0, math.inf))

    def depends(self, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        """The teacher's architecture and weights. Raises Refused for one that may have learned from test images."""
        _, card = teacher_card(self.teacher, arguments)
        return {"teacher": {"arch": card.arch, "sha256": card.sha256}}

    def lesson(self, images: Images, arguments: Mapping[str, Any] | None = None) -> Loss:
        """The loss alone, for another loop: quantization-aware training, say."""
        return self._loss(images, self._teacher(images, arguments))

    def run(
        self,
        net: nn.Module,
        images: Images,
        *,
        seed: int = 0,
        folder: Path | None = None,
        arguments: Mapping[str, Any] | None = None,
        track: Track = silent,
    ) -> History:
        """Train `net` in place on `images.train`, stop by `images.tune`."""
        teacher = self._teacher(images, arguments)
        if self.augment == "none":
            teacher.remember(images)
        return teach(net, images, self, self, self._loss(images, teacher), seed=seed, folder=folder,
                     arguments=arguments, track=track)  # fmt: skip

    def _teacher(self, images: Images, arguments: Mapping[str, Any] | None) -> Teacher:
        return open_teacher(teacher_card(self.teacher, arguments or {})[0], images)

    def _loss(self, images: Images, teacher: Teacher) -> Loss:
        return distillation(self.criterion(images), teacher, alpha=self.alpha, temperature=self.temperature,
                            features=self.features)  # fmt: skip
