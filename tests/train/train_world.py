"""Nets and pictures that train in a second, for the training room's tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch

from quantward.core.values import ImageArray, Model, Preprocess
from quantward.train import loop
from quantward.train.distillation import Teacher

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


def smooth(classes: int = 3, seed: int = 0) -> torch.nn.Module:
    """A net without kinks for 8 x 8 images, so that differences of it are its derivatives."""
    torch.manual_seed(seed)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3, padding=1, bias=False),
        torch.nn.BatchNorm2d(4),
        torch.nn.GELU(),
        torch.nn.Flatten(),
        torch.nn.Linear(4 * 8 * 8, 6),
        torch.nn.Tanh(),
        torch.nn.Linear(6, classes),
    )


def teacher_of(net: torch.nn.Module, size: int = 8, classes: int = 3) -> Teacher:
    """A network as a teacher of a student with the same images and classes."""
    how = Preprocess(size=size, resize=size, squash=True)
    double = net.double().eval().requires_grad_(False)
    return Teacher(Model("teacher", double, how, tuple("abcd"[:classes])), how, tuple(range(classes)))


class Killed(Exception):
    """Stands for a power cut in the middle of a step."""


@contextmanager
def cut_after(steps: int) -> Iterator[None]:
    """Every step is saved, and step `steps` of the whole stage kills the run."""
    plain, init, done = loop._Run._step, loop._Run.__init__, 0

    def step(self: Any, batch: Any) -> None:
        nonlocal done
        done += 1
        if done > steps:
            raise Killed
        plain(self, batch)

    def eager(self: Any, *given: Any) -> None:
        init(self, *given)
        self.save_every = 0.0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop._Run, "_step", step)
        patch.setattr(loop._Run, "__init__", eager)
        yield
