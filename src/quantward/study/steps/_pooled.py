"""What the folds of a row said, as one set of predictions: every image is there once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from quantward.core.values import Predictions

SAID = "predictions.csv"


def pooled(folds: Sequence[Predictions], source: str) -> Predictions:
    """The folds one after the other; groups only where every fold has them."""
    groups = [fold.groups for fold in folds]
    return Predictions(
        ids=tuple(name for fold in folds for name in fold.ids),
        truth=np.concatenate([fold.truth for fold in folds]),
        probabilities=np.concatenate([fold.probabilities for fold in folds]),
        classes=folds[0].classes,
        source=source,
        groups=None if None in groups else tuple(name for group in groups for name in group or ()),
    )
