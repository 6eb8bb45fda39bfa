"""Fine-tunes the whole network with cross-entropy: the plain way, and the baseline for every other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from quantward.core.progress import Track, silent
from quantward.train.batches import Images
from quantward.train.course import Course
from quantward.train.loop import History
from quantward.train.presets import with_presets
from quantward.train.supervision import Supervision
from quantward.train.teach import teach


@with_presets
@dataclass(frozen=True)
class Fit(Supervision, Course):
    """The options of a Course and of Supervision."""

    def __post_init__(self) -> None:
        Course.__post_init__(self)
        Supervision.__post_init__(self)

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
        return teach(net, images, self, self, self.lesson(images), seed=seed, folder=folder, arguments=arguments,
                     track=track)  # fmt: skip
