"""Saliency-guided: hides what the network looks at least and wants the same answer; it should look at little."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from quantward.core.progress import Track, silent
from quantward.train.batches import Images
from quantward.train.course import Course, require
from quantward.train.loop import History
from quantward.train.losses import Loss
from quantward.train.presets import with_presets
from quantward.train.saliency import Fill, SaliencyLoss, Threshold
from quantward.train.supervision import Supervision
from quantward.train.teach import teach


@with_presets
@dataclass(frozen=True)
class Saliency(Supervision, Course):
    """The options of a Course and of Supervision, and how saliency guides (`train.saliency.SaliencyLoss`).

    `masked` is the share of pixels that is hidden, `threshold` how they are found (`fixed`: that share of every image;
    `adaptive`: below a threshold that follows the share over all images), `fill` what stands in their place.
    `consistency` weighs the KL divergence between whole and hidden image, `sparsity` the L1 norm of the map; a weight
    of 0 leaves a part out.
    """

    masked: float = 0.5
    threshold: Threshold = "fixed"
    fill: Fill = "noise"
    consistency: float = 1.0
    sparsity: float = 0.0

    def __post_init__(self) -> None:
        Course.__post_init__(self)
        Supervision.__post_init__(self)
        require(self, ("masked", 0, 0.99), ("consistency", 0, math.inf), ("sparsity", 0, math.inf))

    def lesson(self, images: Images, arguments: Mapping[str, Any] | None = None) -> Loss:
        """The loss alone, for another loop: quantization-aware training, say."""
        return SaliencyLoss(
            self.criterion(images),
            masked=self.masked,
            consistency=self.consistency,
            sparsity=self.sparsity,
            threshold=self.threshold,
            fill=self.fill,
        )

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
