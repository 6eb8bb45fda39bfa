"""Pictures that look alike: a 64-bit perceptual hash finds candidates, the correlation of thumbnails confirms.

The hash alone calls half of all radiographs alike, for they share one layout; correlation alone costs n^2 long
products. Together they are quick and strict.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

from quantward.core.values import ImageArray

SIDE = 32
BITS_APART = 10
CORRELATION = 0.97
CELLS_AT_ONCE = 1 << 22
PAIRS_AT_ONCE = 1 << 14

_ONES = np.array([bin(byte).count("1") for byte in range(256)], np.uint8)


def thumbnail(image: ImageArray) -> ImageArray:
    """Grey 32 x 32 reduction of an RGB image, by averaging, whatever its aspect."""
    grey = Image.fromarray(image).convert("L")
    return np.asarray(grey.resize((SIDE, SIDE), Image.Resampling.BOX))


def perceptual_hash(thumbnails: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint64]:
    """64 bits for each thumbnail, (n, 32, 32) -> (n,): which low frequencies exceed their median.

    C = D X D^T with D the first 8 rows of the DCT-II matrix; bit 8 u + v is C[u, v] > median of C without C[0, 0]
    (Zauner, "Implementation and benchmarking of perceptual image hash functions", 2010).

    >>> a = np.random.default_rng(0).integers(0, 64, (1, 32, 32), dtype=np.uint8)
    >>> bool(perceptual_hash(a) == perceptual_hash(3 * a + 9))  # contrast and brightness do not matter
    True
    """
    k, i = np.arange(8)[:, None], np.arange(SIDE)[None, :]
    dct = np.cos(np.pi * k * (2 * i + 1) / (2 * SIDE))
    low = (dct @ thumbnails.astype(np.float64) @ dct.T).reshape(len(thumbnails), 64)
    bits = low > np.median(low[:, 1:], axis=1, keepdims=True)
    return np.packbits(bits, axis=1, bitorder="little").view(np.uint64)[:, 0]


def near_pairs(
    thumbnails: npt.NDArray[np.uint8], bits_apart: int = BITS_APART, correlation: float = CORRELATION
) -> list[tuple[int, int]]:
    """All pairs i < j whose hashes differ in at most `bits_apart` bits and whose thumbnails correlate.

    Correlation is Pearson's over the 1,024 pixels; a constant thumbnail is like nothing. O(n^2) popcounts, in blocks
    of bounded memory: about a second for 10,000 images.
    """
    count = len(thumbnails)
    hashes = perceptual_hash(thumbnails)
    rows = max(1, CELLS_AT_ONCE // max(count, 1))
    pairs: list[tuple[int, int]] = []
    for start in range(0, count, rows):
        apart = distances(hashes[start : start + rows], hashes[start:])
        left, right = np.nonzero(apart <= bits_apart)
        ahead = right > left
        left, right = left[ahead] + start, right[ahead] + start
        for k in range(0, len(left), PAIRS_AT_ONCE):
            a, b = left[k : k + PAIRS_AT_ONCE], right[k : k + PAIRS_AT_ONCE]
            alike = np.einsum("ij,ij->i", _unit(thumbnails[a]), _unit(thumbnails[b])) >= correlation
            pairs += zip(a[alike].tolist(), b[alike].tolist(), strict=True)
    return pairs


def _unit(thumbnails: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Each thumbnail as a vector of mean 0 and length 1 (of length 0 where it is constant)."""
    flat = thumbnails.reshape(len(thumbnails), -1).astype(np.float32)
    flat -= flat.mean(1, keepdims=True)
    flat /= np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), np.float32(1e-6))
    return flat


def distances(left: npt.NDArray[np.uint64], right: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint8]:
    """Number of differing bits of every pair, (a,), (b,) -> (a, b).

    >>> distances(np.array([0b1011], np.uint64), np.array([0b0001, 0b1011], np.uint64)).tolist()
    [[2, 0]]
    """
    differ = left[:, None] ^ right[None, :]
    if hasattr(np, "bitwise_count"):
        return np.asarray(np.bitwise_count(differ), np.uint8)
    return np.asarray(_ONES[differ.view(np.uint8).reshape(*differ.shape, 8)].sum(2), np.uint8)
