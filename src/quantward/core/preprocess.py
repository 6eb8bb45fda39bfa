"""From an RGB image to a network input: one implementation for training, every runtime and the clinic.

Geometry (resize, centre crop) works on uint8 and gives uint8, so that its result can be cached on disk;
`normalise` turns that into the float input. Both are NumPy and Pillow only: a phone-side port has 20 lines to match.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

from quantward.core.values import ImageArray, Preprocess


def geometry(image: ImageArray, how: Preprocess) -> ImageArray:
    """Resize and centre-crop: (h, w, 3) uint8 -> (size, size, 3) uint8.

    >>> geometry(np.zeros((30, 50, 3), np.uint8), Preprocess(size=16, resize=20)).shape
    (16, 16, 3)
    """
    height, width = image.shape[:2]
    if how.squash:
        new_height = new_width = how.resize
    else:
        shorter = min(height, width)
        new_height = max(how.size, round(height * how.resize / shorter))
        new_width = max(how.size, round(width * how.resize / shorter))
    kind = Image.Resampling.BICUBIC if how.interpolation == "bicubic" else Image.Resampling.BILINEAR
    if (new_height, new_width) != (height, width):
        image = np.asarray(Image.fromarray(image).resize((new_width, new_height), kind))
    top = (new_height - how.size) // 2
    left = (new_width - how.size) // 2
    return np.ascontiguousarray(image[top : top + how.size, left : left + how.size])


def normalise(images: ImageArray, how: Preprocess) -> npt.NDArray[np.float32]:
    """Scale and normalise: (n, size, size, 3) uint8 -> (n, 3, size, size) float32."""
    scale = 1.0 / (255.0 * np.asarray(how.std, np.float32))
    shift = -np.asarray(how.mean, np.float32) / np.asarray(how.std, np.float32)
    batch = images.astype(np.float32) * scale.astype(np.float32) + shift
    return np.ascontiguousarray(batch.transpose(0, 3, 1, 2))
