"""A few images out of many, evenly spaced: calibration images come class by class, so the first ones are no sample."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from quantward.core.contracts import Batch


def evenly(batches: Iterable[Batch], count: int) -> Batch:
    """At most `count` images, evenly spaced over all that the batches hold, as one batch.

    At no time are more than 2 `count` images held: beyond, every second one is let go.

    >>> evenly([np.arange(5.0)[:, None], np.arange(5.0, 8.0)[:, None]], 3).ravel().tolist()
    [0.0, 4.0, 6.0]
    """
    kept: list[Batch] = []
    step, position = 1, 0
    for batch in batches:
        for image in batch:
            if position % step == 0:
                kept.append(image)
            if len(kept) > 2 * count:
                kept, step = kept[::2], 2 * step
            position += 1
    chosen = np.linspace(0, len(kept) - 1, min(count, len(kept))).round().astype(int)
    return np.stack([kept[i] for i in chosen])
