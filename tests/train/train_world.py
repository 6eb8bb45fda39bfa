"""Nets and pictures that train in a second, for the training room's tests."""

from __future__ import annotations

import numpy as np
import torch

from quantward.core.values import ImageArray

SIZE = 32


def bars(count: int = 72, classes: int = 3, seed: int = 0) -> tuple[ImageArray, np.ndarray]:
    """Noise with a bright bar whose height names the class."""
    chance = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    pixels = chance.integers(0, 70, (count, SIZE, SIZE, 3)).astype(np.uint8)
    for image, label in zip(pixels, labels, strict=True):
        image[4 + 9 * label : 10 + 9 * label, 4:28] += 150
    return pixels, labels


def tiny(classes: int = 3, seed: int = 0) -> torch.nn.Module:
    """Convolution, batch norm, dropout, linear: everything whose state a checkpoint must carry."""
    torch.manual_seed(seed)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 5, stride=4, bias=False),
        torch.nn.BatchNorm2d(8),
        torch.nn.ReLU6(inplace=True),
        torch.nn.Dropout2d(0.2),
        torch.nn.Flatten(),
        torch.nn.Linear(8 * 7 * 7, classes),
    )
