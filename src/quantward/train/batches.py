"""Cached pixels to network inputs: shuffled, augmented, normalised, in the order that (seed, epoch) fixes.

The decoded images lie in one memory-mapped array, so a batch is a gather and three passes over 5 MB: no worker
processes, nothing to seed, nothing to wait for. An epoch can start at any batch, which is what resuming needs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch

from quantward.core.errors import Refused
from quantward.core.values import ImageArray, IntArray, Preprocess
from quantward.train.augment import Augment, apply
from quantward.train.spans import span


class Batch(NamedTuple):
    """Inputs (b, 3, size, size) float32, labels (b,) int64, and which images these are, (b,) int64."""

    inputs: torch.Tensor
    labels: torch.Tensor
    indices: torch.Tensor


@dataclass(frozen=True, eq=False)
class Batches:
    """The images `indices` of a pixel cache, in batches of at most `size`.

    `pixels` has shape (n, s, s, 3), uint8; `labels` shape (n,). The images are dealt evenly, so that no epoch ends in a
    batch of one image, whose batch statistics would be meaningless. With `balance` an epoch shows every class as often
    as the others: of a large class some images, all of a small one several times, each time in another random view.
    `known`, (n, f), stands in for the pixels where a part of the network has been asked about all of them.
    """

    pixels: ImageArray = field(repr=False)
    labels: IntArray = field(repr=False)
    indices: IntArray = field(repr=False)
    preprocess: Preprocess
    size: int = 32
    augment: Augment = field(default_factory=Augment)
    shuffle: bool = False
    seed: int = 0
    balance: bool = False
    known: torch.Tensor | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        shape = (len(self.labels), self.preprocess.size, self.preprocess.size, 3)
        if self.pixels.shape != shape or self.pixels.dtype != np.uint8:
            raise Refused(
                f"Expected pixels of shape {shape}, uint8; got {self.pixels.shape}, {self.pixels.dtype}. "
                "Decode the images anew with this preprocessing."
            )

    def __len__(self) -> int:
        return -(-len(self.indices) // self.size)

    def order(self, epoch: int) -> list[IntArray]:
        """What each batch of an epoch shows: draw d is image d mod n of the cache, shown for the (d div n)-th time."""
        indices = np.asarray(self.indices)
        chance = np.random.default_rng((self.seed, epoch))
        if self.balance:
            indices = self._balanced(indices, epoch, chance)
        if self.shuffle:
            indices = chance.permutation(indices)
        return np.array_split(indices, max(1, len(self))) if len(indices) else []

    def _balanced(self, indices: IntArray, epoch: int, chance: np.random.Generator) -> IntArray:
        """As many draws as images, shared by the classes; no image comes again before all of its class have come."""
        labels = np.asarray(self.labels)[indices]
        classes = np.unique(labels)
        share, rest = divmod(len(indices), len(classes))
        drawn = []
        for place, label in enumerate(classes):
            own = indices[labels == label]
            # What does not divide goes to other classes in every epoch.
            wanted = share + ((place - epoch) % len(classes) < rest)
            rounds = -(-wanted // len(own))
            often = [chance.permutation(own) + number * len(self.labels) for number in range(rounds)]
            drawn.append(np.concatenate(often)[:wanted] if often else own[:0])
        return np.concatenate(drawn)

    def epoch(
        self,
        epoch: int = 0,
        skip: int = 0,
        device: torch.device | str = "cpu",
        part: Callable[[IntArray], IntArray] = lambda images: images,
    ) -> Iterator[Batch]:
        """The batches of one epoch from number `skip` on, of each the `part` that is wanted, as inputs on `device`."""
        for images in self.order(epoch)[skip:]:
            yield self.batch(part(images), epoch, device)

    def batch(self, images: IntArray, epoch: int = 0, device: torch.device | str = "cpu") -> Batch:
        """Some draws (image numbers, see `order`) as network inputs; the random view depends on draw and epoch."""
        draws, images = images, np.asarray(images) % len(self.labels)
        labels = torch.from_numpy(np.asarray(self.labels[images], np.int64)).to(device)
        told = torch.from_numpy(np.asarray(images, np.int64))
        if self.known is not None:
            return Batch(self.known[told].to(device), labels, told)
        with span("data"):
            raw = torch.from_numpy(self.pixels[images]).to(device, non_blocking=True)
            # The cache is stored pixel by pixel, which is channels-last as it stands: no transpose is ever made.
            inputs = raw.permute(0, 3, 1, 2).to(torch.float32)
        with span("augment"):
            inputs = apply(inputs, self.augment, seed=self.seed, epoch=epoch, images=draws)
            inputs = normalise(inputs, self.preprocess)
        return Batch(inputs, labels, told)


@dataclass(frozen=True, eq=False)
class Images:
    """What a stage trains on: the pixel cache, labels, and which images are for weights and which for stopping."""

    pixels: ImageArray = field(repr=False)
    labels: IntArray
    train: IntArray
    tune: IntArray
    classes: tuple[str, ...]
    preprocess: Preprocess

    def to_train(self, size: int, augment: Augment, seed: int, *, balance: bool = False) -> Batches:
        """The training images, shuffled and augmented; with `balance`, every class as often as the others."""
        return Batches(self.pixels, self.labels, self.train, self.preprocess, size, augment, True, seed, balance)

    def to_tune(self, size: int = 64) -> Batches:
        """The tuning images as they are."""
        return Batches(self.pixels, self.labels, self.tune, self.preprocess, size)


def normalise(inputs: torch.Tensor, how: Preprocess) -> torch.Tensor:
    """(b, 3, h, w) float in 0..255 -> network input; to the bit what `core.preprocess.normalise` gives."""
    std = np.asarray(how.std, np.float32)
    scale = (1.0 / (255.0 * std)).astype(np.float32)
    shift = -np.asarray(how.mean, np.float32) / std
    return inputs.mul(_channels(scale, inputs)).add_(_channels(shift, inputs))


def _channels(values: np.ndarray[tuple[int, ...], np.dtype[np.float32]], like: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(values).to(like.device).view(1, -1, 1, 1)
