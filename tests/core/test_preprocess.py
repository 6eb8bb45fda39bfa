"""Preprocessing against Pillow and NumPy by hand."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from quantward.core.preprocess import geometry, normalise
from quantward.core.values import Preprocess


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_centre_crop_of_the_resized_image() -> None:
    how = Preprocess(size=32, resize=40)
    image = picture(80, 120)
    expected = np.asarray(Image.fromarray(image).resize((60, 40), Image.Resampling.BILINEAR))[4:36, 14:46]
    assert np.array_equal(geometry(image, how), expected)


def test_squash_keeps_the_whole_image() -> None:
    how = Preprocess(size=32, resize=32, squash=True)
    image = picture(80, 120)
    assert np.array_equal(
        geometry(image, how), np.asarray(Image.fromarray(image).resize((32, 32), Image.Resampling.BILINEAR))
    )


@pytest.mark.parametrize(("height", "width"), [(32, 32), (1000, 33), (33, 1000), (20, 20)])
def test_shape_is_always_the_networks(height: int, width: int) -> None:
    assert geometry(picture(height, width), Preprocess(size=32, resize=36)).shape == (32, 32, 3)


def test_normalised_values() -> None:
    how = Preprocess(size=8, resize=8)
    pixels = picture(8, 8)[None]
    expected = (pixels / 255.0 - np.array(how.mean)) / np.array(how.std)
    got = normalise(pixels, how)
    assert got.dtype == np.float32 and got.shape == (1, 3, 8, 8)
    assert np.allclose(got, expected.transpose(0, 3, 1, 2), atol=1e-6)
