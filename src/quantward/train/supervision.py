"""What every stage may do about labels: smoothing, rare classes, one logit for two classes, and random views."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from quantward.core.errors import Refused, UsageError
from quantward.core.values import IntArray
from quantward.train.augment import augment_named
from quantward.train.batches import Batches, Images
from quantward.train.losses import Criterion, Loss, classify, criterion
from quantward.train.presets import Preset


@dataclass(frozen=True)
class Supervision:
    """How labels are learned.

    `smoothing` moves that share of the truth to all classes alike. `class_weights=balanced` weighs every class the
    same, `focal` lowers the weight of images that are right already (2 is usual), `sampling=balanced` shows every class
    as often as the others: an epoch stays as long, rare images come again in another view. `head=sigmoid` trains one
    logit for two classes (binary cross-entropy) and writes it as two. `augment` names the random views. `preset` sets
    options as a published protocol has them; options that are given win.
    """

    smoothing: float = 0.0
    class_weights: Literal["none", "balanced"] = "none"
    focal: float = 0.0
    sampling: Literal["none", "balanced"] = "none"
    head: Literal["softmax", "sigmoid"] = "softmax"
    augment: Literal["none", "light", "standard", "published"] = "standard"
    preset: Preset = "none"

    def __post_init__(self) -> None:
        criterion(self.smoothing, None, self.focal)
        if self.class_weights == self.sampling == "balanced":
            raise UsageError(
                "Expected class_weights=balanced or sampling=balanced; got both, which favours rare classes twice. "
                "Leave one out."
            )

    def criterion(self, images: Images) -> Criterion:
        """What judges logits, weighed by the classes of the training images."""
        weights = balanced(images.labels[images.train], images.classes) if self.class_weights == "balanced" else None
        return criterion(self.smoothing, weights, self.focal)

    def lesson(self, images: Images, arguments: Mapping[str, Any] | None = None) -> Loss:
        """The loss alone, for another loop: quantization-aware training, say."""
        return classify(self.criterion(images))

    def depends(self, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        """What the result depends on besides options, images and weights: nothing."""
        return {}

    def batches(self, images: Images, size: int, seed: int) -> Batches:
        """The training images as this supervision shows them."""
        return images.to_train(size, augment_named(self.augment), seed, balance=self.sampling == "balanced")


def balanced(labels: IntArray, classes: tuple[str, ...]) -> tuple[float, ...]:
    """Weights that make every class count the same: n / (K n_k) for K classes, n images, n_k of class k.

    Raises Refused for a class without an image.

    >>> balanced(np.array([0, 0, 0, 1]), ("benign", "malignant"))
    (0.6666666666666666, 2.0)
    """
    counts = np.bincount(np.asarray(labels), minlength=len(classes))
    if not counts.all():
        absent = classes[int(np.argmin(counts))]
        raise Refused(f"Expected images of every class to weigh; {absent!r} has none to train on. Make the folds anew.")
    return tuple(float(weight) for weight in counts.sum() / (len(classes) * counts))
