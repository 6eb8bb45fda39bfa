"""Maps from answers alone, of a session that looks at one known place."""

from __future__ import annotations

import numpy as np
import pytest

from quantward.core.contracts import Batch
from quantward.core.errors import UsageError
from quantward.explain.occlusion import occlusion, rise


def corner(batch: Batch) -> Batch:
    """Class 1 is the brightness of the square (2..6, 8..12); class 0 is nothing."""
    seen = batch[:, :, 2:6, 8:12].mean((1, 2, 3))
    return np.stack([np.zeros_like(seen), 4 * seen], axis=1).astype(np.float32)


IMAGES = np.ones((2, 3, 16, 16), np.float32)


def test_occlusion_finds_the_place() -> None:
    found = occlusion(corner, IMAGES, np.array([1, 1]), patch=4)
    top, left = np.unravel_index(found[0].argmax(), found[0].shape)
    assert 2 <= top < 6 and 8 <= left < 12
    assert found[0, 12:, :6].max() == 0
    assert found[0, 3, 9] == pytest.approx(4 * (1 + 0.5 + 0.5 + 0.25) / 4)


def test_a_class_that_nothing_speaks_for_has_an_empty_map() -> None:
    assert not occlusion(corner, IMAGES, np.array([0, 0]), patch=4).any()


def test_rise_finds_the_place_and_repeats_itself() -> None:
    found = rise(corner, IMAGES[:1], np.array([1]), masks=400, cells=4, seed=3)
    assert found[0, 2:6, 8:12].mean() > 4 * found[0, 10:, :6].mean()
    assert np.array_equal(found, rise(corner, IMAGES[:1], np.array([1]), masks=400, cells=4, seed=3))


@pytest.mark.parametrize("patch", [1, 17, -3])
def test_a_patch_that_fits_nowhere(patch: int) -> None:
    with pytest.raises(UsageError, match="patch of 2 to 16"):
        occlusion(corner, IMAGES, np.array([1, 1]), patch=patch)
