"""Random views of training images, drawn from (seed, epoch, image) alone.

No generator is carried along: the view of image 17 in epoch 3 is the same whatever the batch size, the number of
workers or the point at which a killed run went on. One affine resampling does flip, rotation, scale and shift.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from quantward.core.errors import UsageError, suggestion
from quantward.core.values import IntArray

_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_STEP = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Augment:
    """How far a training image may be moved.

    `flip` is the chance of a left-right mirror, `rotate` the largest angle in degrees, `scale` and `shift` the largest
    change of size and position as a share of the image, `brightness` and `contrast` the largest relative change.
    """

    flip: float = 0.0
    rotate: float = 0.0
    scale: float = 0.0
    shift: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0


AUGMENTS = {
    "none": Augment(),
    "light": Augment(flip=0.5, rotate=5, shift=0.03, brightness=0.1),
    "standard": Augment(flip=0.5, rotate=12, scale=0.1, shift=0.05, brightness=0.15, contrast=0.15),
    "published": Augment(flip=0.5, rotate=15, brightness=0.2),
}
"""By name. `published` is what the INT8 reliability study used: flips, +-15 degrees, brightness 0.8 to 1.2."""


def augment_named(name: str) -> Augment:
    """The augmentation called `name`. Raises UsageError for an unknown one."""
    if name not in AUGMENTS:
        raise UsageError(f"Expected an augmentation; got {name!r}. {suggestion(name, AUGMENTS)}")
    return AUGMENTS[name]


def uniforms(seed: int, epoch: int, images: IntArray, count: int) -> npt.NDArray[np.float64]:
    """`count` numbers in [0, 1) for each image: shape (n, count), a pure function of the arguments.

    The splitmix64 finaliser (Steele, Lea and Flood, 2014) is applied to a chain of (seed, epoch, image, column).

    >>> whole = uniforms(1, 2, np.array([5, 6, 7]), 3)
    >>> bool((uniforms(1, 2, np.array([7]), 3) == whole[2:]).all()), whole.shape
    (True, (3, 3))
    """
    state = np.zeros((len(images), count), np.uint64)
    columns = np.arange(count, dtype=np.uint64)[None, :]
    with np.errstate(over="ignore"):
        for part in (seed, epoch, np.asarray(images, np.int64).astype(np.uint64)[:, None], columns):
            word = np.uint64(part % 2**64) if isinstance(part, int) else part
            state = (state ^ word) + _STEP
            state = (state ^ (state >> np.uint64(30))) * _MIX[0]
            state = (state ^ (state >> np.uint64(27))) * _MIX[1]
            state = state ^ (state >> np.uint64(31))
    return (state >> np.uint64(11)).astype(np.float64) * 2.0**-53


def apply(batch: torch.Tensor, how: Augment, *, seed: int, epoch: int, images: IntArray) -> torch.Tensor:
    """Move and tint a batch of images: (b, 3, s, s) float in 0..255 -> the same shape, on the same device.

    `images` are the images' own numbers, shape (b,); they choose the random view. Outside the image its edge goes on.
    """
    if how == Augment():
        return batch
    draw = uniforms(seed, epoch, images, 7)
    signed = 2.0 * draw - 1.0
    if how.flip or how.rotate or how.scale or how.shift:
        theta = _affine(draw, signed, how)
        grid = torch.nn.functional.affine_grid(
            torch.from_numpy(theta).to(batch.device, batch.dtype), list(batch.shape), align_corners=False
        )
        moved = torch.nn.functional.grid_sample(
            batch, grid, mode="bilinear", padding_mode="border", align_corners=False
        )
        batch = moved.contiguous(memory_format=torch.channels_last)
    if how.brightness or how.contrast:
        gain = torch.from_numpy(1.0 + how.contrast * signed[:, 5]).to(batch.device, batch.dtype).view(-1, 1, 1, 1)
        light = torch.from_numpy(1.0 + how.brightness * signed[:, 6]).to(batch.device, batch.dtype).view(-1, 1, 1, 1)
        middle = batch.mean(dim=(1, 2, 3), keepdim=True)
        batch = batch.mul(gain * light).add_((1.0 - gain) * light * middle).clamp_(0.0, 255.0)
    return batch


def _affine(draw: npt.NDArray[np.float64], signed: npt.NDArray[np.float64], how: Augment) -> npt.NDArray[np.float64]:
    """Maps from output to input coordinates, (b, 2, 3), in the [-1, 1] square that torch samples in."""
    mirror = np.where(draw[:, 0] < how.flip, -1.0, 1.0)
    angle = signed[:, 1] * math.radians(how.rotate)
    zoom = 1.0 / (1.0 + how.scale * signed[:, 2])
    theta = np.empty((len(draw), 2, 3))
    theta[:, 0, 0] = mirror * zoom * np.cos(angle)
    theta[:, 0, 1] = -mirror * zoom * np.sin(angle)
    theta[:, 1, 0] = zoom * np.sin(angle)
    theta[:, 1, 1] = zoom * np.cos(angle)
    theta[:, 0, 2] = 2.0 * how.shift * signed[:, 3]
    theta[:, 1, 2] = 2.0 * how.shift * signed[:, 4]
    return theta
