"""CIFAR-10 from its binary version: the one for Python is a pickle, which could run anything, so it is not touched."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from quantward.core.errors import Refused
from quantward.core.values import ImageArray
from quantward.fetch.trees import Tree
from quantward.fetch.values import File, Item

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
BATCHES = {"train": tuple(f"data_batch_{k}.bin" for k in range(1, 6)), "test": ("test_batch.bin",)}
SIDE = 32
RECORD = 1 + 3 * SIDE * SIDE


@dataclass(frozen=True)
class Cifar10:
    """Five training files and one test file of 10,000 records; each picture becomes a PNG of 32 x 32."""

    title: ClassVar[str] = "CIFAR-10"
    page: ClassVar[str] = "https://www.cs.toronto.edu/~kriz/cifar.html"
    licence: ClassVar[str] = "not stated"
    citation: ClassVar[str] = (
        "A. Krizhevsky. Learning multiple layers of features from tiny images. Technical report, University of "
        "Toronto, 2009."
    )
    files: ClassVar[tuple[File, ...]] = (
        File("cifar-10-binary.tar.gz", "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz", 170_052_171,
             "md5:c32a1d4ab5d03f1284b67883e8d87530"),
    )  # fmt: skip
    classes: ClassVar[tuple[str, ...]] = CLASSES
    images: ClassVar[int] = 60000
    counts: ClassVar[Mapping[str, int]] = {
        "train": 50000,
        "test": 10000,
        **{f"train/{name}": 5000 for name in CLASSES},
        **{f"test/{name}": 1000 for name in CLASSES},
    }
    group: ClassVar[str] = ""
    note: ClassVar[str] = "Not medical. About 3 % of the test images are near copies of training images."

    def items(self, tree: Tree) -> Iterator[Item]:
        """Every picture under its number in the official order."""
        for split, names in BATCHES.items():
            number = 0
            for name in names:
                path = tree.named(name)
                if path is None:
                    continue
                labels, pictures = read_batch(path)
                for label, picture in zip(labels, pictures, strict=True):
                    yield Item(f"{split}/{label}/{number:05d}.png", label, picture, split)
                    number += 1


def read_batch(path: Path) -> tuple[list[str], ImageArray]:
    """Class names and pictures (n, 32, 32, 3) of one file: a record is one label byte, then 1,024 bytes of red, of
    green and of blue, row by row. Raises Refused for a file that is not made of such records."""
    data = np.fromfile(path, np.uint8)
    if not data.size or data.size % RECORD or data[::RECORD].max() >= len(CLASSES):
        raise Refused(
            f"Expected records of {RECORD:,} bytes with labels 0 to 9 in {path.name}; got {data.size:,} bytes that are "
            "none. Fetch the binary version anew."
        )
    records = data.reshape(-1, RECORD)
    pictures = records[:, 1:].reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1)
    return [CLASSES[k] for k in records[:, 0].tolist()], np.ascontiguousarray(pictures)
