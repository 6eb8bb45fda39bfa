"""What every stage does in the end: its loss on its images through the one loop, under one head."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from torch import nn

from quantward.core.progress import Track, silent
from quantward.train.batches import Images
from quantward.train.course import Course
from quantward.train.head import one_logit
from quantward.train.loop import History, fit
from quantward.train.losses import Loss
from quantward.train.supervision import Supervision


def teach(
    net: nn.Module,
    images: Images,
    course: Course,
    supervision: Supervision,
    loss: Loss,
    *,
    seed: int = 0,
    folder: Path | None = None,
    arguments: Mapping[str, Any] | None = None,
    track: Track = silent,
) -> History:
    """Train what of `net` requires gradients, in place; see `loop.fit` for the folder and what is refused."""
    with one_logit(net) if supervision.head == "sigmoid" else nullcontext():
        return fit(
            net,
            supervision.batches(images, course.batch, seed),
            images.to_tune(),
            course,
            loss=loss,
            seed=seed,
            folder=folder,
            arguments=arguments,
            track=track,
        )
