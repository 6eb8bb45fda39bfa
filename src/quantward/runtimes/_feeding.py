"""Feeds a file as it wants to be fed: images in pieces, axes in its order, logits out, whatever its maker chose."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from quantward.core.contracts import Batch, Session
from quantward.core.errors import Refused
from quantward.core.values import Variant

SMALLEST = 1e-30
"""Probabilities below are taken for this one before the logarithm: float32 knows no smaller ones worth a rank."""


def fed(variant: Variant, call: Callable[[Batch], npt.NDArray[Any]]) -> Session:
    """A Session, (n, 3, size, size) -> logits (n, classes) float32, around what calls the file with one array.

    Pieces have at most `max_batch` images, or exactly `batch`, filled up with the last image. Probabilities p become
    log p, whose softmax is p again.
    """

    def run(batch: Batch) -> Batch:
        if not len(batch):
            return np.zeros((0, len(variant.classes)), np.float32)
        step = variant.batch or variant.max_batch or len(batch)
        parts = [_piece(variant, call, batch[i : i + step]) for i in range(0, len(batch), step)]
        return np.concatenate(parts)

    return run


def blank(variant: Variant) -> Batch:
    """One call's input as the file wants it, all zeros."""
    return in_layout(variant, np.zeros((variant.batch or 1, 3, *(variant.preprocess.size,) * 2), np.float32))


def in_layout(variant: Variant, images: Batch) -> Batch:
    """(n, 3, size, size) with its axes in the order that the file reads."""
    return np.ascontiguousarray(images.transpose(0, 2, 3, 1)) if variant.layout == "NHWC" else images


def _piece(variant: Variant, call: Callable[[Batch], npt.NDArray[Any]], images: Batch) -> Batch:
    n = len(images)
    if variant.batch is not None and n < variant.batch:
        images = np.concatenate([images, np.repeat(images[-1:], variant.batch - n, axis=0)])
    said = np.asarray(call(in_layout(variant, images)))
    if said.shape[:1] != (len(images),):
        raise Refused(
            f"Expected an answer for each of {len(images)} images from {variant.name}; got an array of shape "
            f"{said.shape}. Export the file with an open batch size."
        )
    scores = said.reshape(len(images), -1)[:n].astype(np.float32, copy=False)
    return np.log(np.maximum(scores, np.float32(SMALLEST))) if variant.outputs == "probabilities" else scores
