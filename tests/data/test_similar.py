"""The perceptual hash against SciPy's DCT, and near pairs against brute force."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from scipy.fft import dctn

from quantward.core.values import ImageArray
from quantward.data._similar import distances, near_pairs, perceptual_hash, thumbnail


def scenes(count: int, side: int = 96) -> list[ImageArray]:
    """Smooth pictures that differ a lot."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
        found.append(np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC)))
    return found


def smalls(images: list[ImageArray]) -> np.ndarray:
    return np.stack([thumbnail(image) for image in images])


def test_hash_is_the_median_of_scipys_dct() -> None:
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (20, 32, 32), dtype=np.uint8)
    for image, value in zip(images, perceptual_hash(images), strict=True):
        # SciPy's DCT-II carries a factor 2 in each direction and no weight on the first row, as ours.
        low = dctn(image.astype(float), type=2)[:8, :8].ravel()
        bits = low > np.median(low[1:])
        assert int(value) == sum(1 << k for k, bit in enumerate(bits) if bit)


def test_distances_with_and_without_numpys_own_counter(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    a, b = rng.integers(0, 2**64, 7, dtype=np.uint64), rng.integers(0, 2**64, 5, dtype=np.uint64)
    expected = [[bin(int(x) ^ int(y)).count("1") for y in b] for x in a]
    assert distances(a, b).tolist() == expected
    monkeypatch.delattr(np, "bitwise_count", raising=False)
    assert distances(a, b).tolist() == expected


def test_reencoded_resized_and_dimmed_copies_are_near_and_others_are_not() -> None:
    images = scenes(30)
    jpeg = Image.fromarray(images[3]).resize((70, 70))
    dim = (images[5] * 0.8 + 5).astype(np.uint8)
    shifted = np.roll(images[7], 1, axis=1)
    pairs = near_pairs(smalls([*images, np.asarray(jpeg), dim, shifted]))
    assert pairs == [(3, 30), (5, 31), (7, 32)]


def test_constant_pictures_are_like_nothing() -> None:
    flat = [np.full((40, 40, 3), value, np.uint8) for value in (0, 0, 200)]
    assert near_pairs(smalls(flat)) == []


def test_blocks_do_not_lose_or_double_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    images = scenes(25) * 2
    whole = near_pairs(smalls(images))
    monkeypatch.setattr("quantward.data._similar.CELLS_AT_ONCE", 350)
    monkeypatch.setattr("quantward.data._similar.PAIRS_AT_ONCE", 3)
    assert sorted(near_pairs(smalls(images))) == sorted(whole) == [(i, i + 25) for i in range(25)]
