"""Fine-tunes the whole network with cross-entropy: the plain way, and the baseline for every other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import nn

from quantward.core.errors import Refused
from quantward.core.progress import Track, silent
from quantward.core.values import IntArray
from quantward.train.augment import augment_named
from quantward.train.batches import Images
from quantward.train.course import Course
from quantward.train.loop import History, fit
from quantward.train.losses import cross_entropy


@dataclass(frozen=True)
class Fit(Course):
    """The options of a Course, plus label `smoothing`, `class_weights` and the name of the augmentation."""

    smoothing: float = 0.0
    class_weights: Literal["none", "balanced"] = "none"
    augment: Literal["none", "light", "standard", "published"] = "standard"

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
        weights = balanced(images.labels[images.train], images.classes) if self.class_weights == "balanced" else None
        return fit(
            net,
            images.to_train(self.batch, augment_named(self.augment), seed),
            images.to_tune(),
            self,
            loss=cross_entropy(self.smoothing, weights),
            seed=seed,
            folder=folder,
            arguments=arguments,
            track=track,
        )


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


PUBLISHED = Fit(
    epochs=50,
    lr=1e-4,
    weight_decay=1e-4,
    optimizer="adam",
    schedule="constant",
    warmup=0.0,
    patience=10,
    min_delta=0.001,
    monitor="accuracy",
    augment="published",
)
"""The protocol of the INT8 reliability study: Adam, 1e-4 for rate and decay, stopped by accuracy with patience 10."""
