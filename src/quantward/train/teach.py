"""What every stage does in the end: its loss on its images through the one loop, under one head."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from quantward.core.progress import Track, silent
from quantward.train.batches import Images
from quantward.train.course import Course
from quantward.train.head import head_of, one_logit
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
    known: Tensor | None = None,
    track: Track = silent,
) -> History:
    """Train what of `net` requires gradients, in place; see `loop.fit` for the folder and what is refused.

    With `known`, what the head reads of every image (`trunk.asked_once`), only the head is run and trained.
    """
    with one_logit(net) if supervision.head == "sigmoid" else nullcontext():
        train, tune = supervision.batches(images, course.batch, seed), images.to_tune()
        if known is not None:
            net, train, tune = head_of(net), replace(train, known=known), replace(tune, known=known)
        return fit(
            net,
            train,
            tune,
            course,
            loss=loss,
            seed=seed,
            folder=folder,
            arguments=arguments,
            track=track,
        )
