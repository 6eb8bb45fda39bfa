"""Maps from answers alone: cover a part of the image, see what happens to the class. Works on any opened file."""

from __future__ import annotations

import numpy as np

from quantward.core.contracts import Batch, Session
from quantward.core.errors import UsageError
from quantward.core.values import FloatArray, IntArray

STEP = 32
"""Covered images a call."""


def occlusion(session: Session, images: Batch, classes: IntArray, patch: int | None = None) -> FloatArray:
    """How far the logit of class c falls when a square of `patch` pixels is covered, averaged over the squares that
    cover a pixel, negative falls as 0: (n, 3, s, s), (n,) -> (n, s, s).

    Squares stand half a patch apart (default patch: a quarter of the side) and are filled with 0, the mean colour.
    Zeiler and Fergus, "Visualizing and understanding convolutional networks", ECCV 2014, section 4.2.

    Raises UsageError for a patch that is not between 2 and the side.
    """
    side = images.shape[2]
    patch = patch or max(2, side // 4)
    if not 2 <= patch <= side:
        raise UsageError(f"Expected a patch of 2 to {side} pixels; got {patch}. Choose another size.")
    starts = np.unique(np.append(np.arange(0, side - patch + 1, patch // 2), side - patch))
    corners = [(top, left) for top in starts for left in starts]
    covers = np.ones((len(corners), side, side), np.float32)
    for k, (top, left) in enumerate(corners):
        covers[k, top : top + patch, left : left + patch] = 0
    found = np.empty((len(images), side, side))
    covered = (1 - covers).sum(0)
    for i, (image, whole) in enumerate(zip(images, _logits(session, images, classes), strict=True)):
        falls = np.maximum(whole - _covered(session, image, int(classes[i]), covers), 0.0)
        found[i] = np.tensordot(falls, 1 - covers, axes=1) / covered
    return found


def rise(
    session: Session, images: Batch, classes: IntArray, *, masks: int = 512, cells: int = 7, seed: int = 0
) -> FloatArray:
    """Mean of random masks weighted by the class's probability under them, less its mean: (n, 3, s, s) -> (n, s, s).

    Each mask is a grid of `cells` x `cells` coin tosses, enlarged bilinearly and shifted at random; the weight is
    centred, which takes out the unevenness of few masks. Negative values become 0. Petsiuk, Das and Saenko, "RISE",
    BMVC 2018, eq. 6.
    """
    side = images.shape[2]
    drawn = _masks(masks, cells, side, np.random.default_rng(seed))
    found = np.empty((len(images), side, side))
    for i, image in enumerate(images):
        said = _covered(session, image, int(classes[i]), drawn, probability=True)
        found[i] = np.maximum(np.tensordot(said - said.mean(), drawn, axes=1) / drawn.sum(0), 0.0)
    return found


def _masks(count: int, cells: int, side: int, draw: np.random.Generator) -> Batch:
    """(count, side, side) in [0, 1]: coarse coin tosses, enlarged and shifted by less than a cell."""
    cell = -(-side // cells)
    coarse = draw.integers(0, 2, (count, cells + 1, cells + 1)).astype(np.float32)
    at = (np.arange((cells + 1) * cell) + 0.5) / cell - 0.5
    low = np.clip(np.floor(at).astype(int), 0, cells)
    high, share = np.minimum(low + 1, cells), np.clip(at - low, 0, 1).astype(np.float32)
    rows = coarse[:, low] * (1 - share)[:, None] + coarse[:, high] * share[:, None]
    fine = rows[:, :, low] * (1 - share) + rows[:, :, high] * share
    shifts = draw.integers(0, cell, (count, 2))
    return np.stack([fine[k, y : y + side, x : x + side] for k, (y, x) in enumerate(shifts)])


def _covered(session: Session, image: Batch, label: int, masks: Batch, probability: bool = False) -> FloatArray:
    """The class's logit (or probability) of one image (3, s, s) under each mask (m, s, s): (m,)."""
    parts = []
    for start in range(0, len(masks), STEP):
        batch = image[None] * masks[start : start + STEP, None]
        parts.append(_logits(session, batch, np.full(len(batch), label), probability))
    return np.concatenate(parts)


def _logits(session: Session, images: Batch, classes: IntArray, probability: bool = False) -> FloatArray:
    logits = np.asarray(session(np.ascontiguousarray(images, np.float32)), np.float64)
    if probability:
        logits = np.exp(logits - logits.max(1, keepdims=True))
        logits /= logits.sum(1, keepdims=True)
    return np.asarray(logits[np.arange(len(images)), np.asarray(classes)])
