"""The images whose top class changed: the worst first, each with its picture and both probability vectors."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from quantward.core.values import FloatArray, Predictions
from quantward.evaluate.alignment import aligned
from quantward.report._figures import pair_of_bars
from quantward.report._words import number, signed, visible

Thumbnail = Callable[[str], bytes | None]
"""An image's id -> the bytes of a small PNG or JPEG, or None where there is none."""

_KINDS = ((b"\x89PNG\r\n\x1a\n", "image/png"), (b"\xff\xd8\xff", "image/jpeg"))


@dataclass(frozen=True)
class Bar:
    """One class of a flipped image: both probabilities as figures and as bars."""

    name: str
    baseline: str
    candidate: str
    bars: Markup
    true: bool


@dataclass(frozen=True)
class Flip:
    """An image whose top class changed; `kind` is `broken` (was right), `mended` (is right) or `moved` (neither)."""

    id: str
    truth: str
    before: str
    after: str
    kind: str
    fall: str
    picture: str
    bars: tuple[Bar, ...]


def worst(
    baseline: Predictions | None, candidate: Predictions | None, thumbnail: Thumbnail | None, most: int
) -> tuple[Flip, ...]:
    """Up to `most` flips, by how far the probability of the true class fell; ties in the order of the images."""
    if baseline is None or candidate is None:
        return ()
    baseline, candidate = aligned(baseline, candidate)
    before, after = np.asarray(baseline.probabilities), np.asarray(candidate.probabilities)
    truth = np.asarray(baseline.truth)
    rows = np.arange(len(truth))
    fall = before[rows, truth] - after[rows, truth]
    moved = np.flatnonzero(before.argmax(axis=1) != after.argmax(axis=1))
    ranked = moved[np.argsort(-fall[moved], kind="stable")][:most]
    return tuple(_flip(baseline, before[i], after[i], int(i), thumbnail) for i in ranked)


def _flip(predictions: Predictions, before: FloatArray, after: FloatArray, i: int, thumbnail: Thumbnail | None) -> Flip:
    classes = [visible(name) for name in predictions.classes]
    truth, old, new = int(predictions.truth[i]), int(before.argmax()), int(after.argmax())
    kind = "broken" if old == truth else "mended" if new == truth else "moved"
    bars = tuple(
        Bar(
            name=name,
            baseline=number(100 * float(p), 0),
            candidate=number(100 * float(q), 0),
            bars=pair_of_bars(
                float(p), float(q), f"{name}: {number(100 * float(p), 1)} % to {number(100 * float(q), 1)} %"
            ),
            true=k == truth,
        )
        for k, (name, p, q) in enumerate(zip(classes, before, after, strict=True))
    )
    return Flip(
        id=visible(predictions.ids[i]),
        truth=classes[truth],
        before=classes[old],
        after=classes[new],
        kind=kind,
        fall=signed(100 * float(after[truth] - before[truth]), 0),
        picture=_picture(predictions.ids[i], thumbnail),
        bars=bars,
    )


def _picture(name: str, thumbnail: Thumbnail | None) -> str:
    """A data URI, empty where there is no picture or its bytes are neither PNG nor JPEG."""
    data = thumbnail(name) if thumbnail is not None else None
    kind = next((kind for magic, kind in _KINDS if data and data.startswith(magic)), None)
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}" if data and kind else ""
