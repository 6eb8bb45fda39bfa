"""Random prediction sets that the tests of this room share: ties, rare classes, patients."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from quantward.core.values import Predictions

Maker = Callable[..., Predictions]


@pytest.fixture
def predictions() -> Maker:
    """Make predictions of n images; `noise` disturbs the logits with a seed of its own, so that two sets pair up."""

    def make(
        n: int = 120,
        classes: int = 3,
        *,
        seed: int = 0,
        strength: float = 1.5,
        noise: float = 0.0,
        images_a_patient: int | None = None,
        weights: tuple[float, ...] | None = None,
        source: str = "model",
    ) -> Predictions:
        rng = np.random.default_rng(seed)
        truth = rng.choice(classes, n, p=weights)
        logits = rng.normal(size=(n, classes))
        logits[np.arange(n), truth] += strength
        logits += noise * np.random.default_rng([seed, 1]).normal(size=logits.shape)
        p = np.exp(logits)
        p /= p.sum(axis=1, keepdims=True)
        groups = None if images_a_patient is None else tuple(f"p{i // images_a_patient}" for i in range(n))
        ids = tuple(f"i{i}" for i in range(n))
        return Predictions(ids, truth, p, tuple("abcdefgh"[:classes]), source, groups)

    return make
