"""A tiny picture world for the training room: three classes of bright bars, decoded already, a second an epoch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from train_world import SIZE, bars

from quantward.core.values import Dataset, Fold, ImageArray, Preprocess
from quantward.train.batches import Images

REAL_WEIGHTS = Path(__file__).resolve().parents[2] / "../shared/data/weights"


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Nets this small only wait for each other's threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def images() -> Images:
    pixels, labels = bars()
    order = np.random.default_rng(1).permutation(len(labels))
    how = Preprocess(size=SIZE, resize=SIZE, squash=True)
    return Images(pixels, labels, order[:48], order[48:], ("low", "middle", "high"), how)


@pytest.fixture
def world(images: Images) -> tuple[Dataset, Fold, ImageArray]:
    """The same pictures as a Dataset and a Fold."""
    pixels = images.pixels
    ids = tuple(f"image {i}" for i in range(len(pixels)))
    dataset = Dataset("bars", images.classes, ids, images.labels, "f1", lambda i: pixels[i])
    none = np.zeros(0, np.int64)
    return dataset, Fold(0, 1, 0, "f1", images.train, images.tune, none, none, none), pixels


@pytest.fixture
def real_weights() -> Path:
    """The folder of ImageNet weights beside the repository."""
    if not REAL_WEIGHTS.is_dir():
        pytest.skip("the folder of pretrained weights is not here")
    return REAL_WEIGHTS
