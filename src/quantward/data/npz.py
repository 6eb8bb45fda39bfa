"""MedMNIST's layout: one .npz with `train_images`, `train_labels`, and the same for val and test."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from quantward.core.errors import Refused
from quantward.core.store import digest_file
from quantward.core.values import Dataset, ImageArray
from quantward.data._files import class_names, fingerprint

SPLITS = ("train", "val", "test")
MAX_BYTES = 1 << 34


@dataclass(frozen=True)
class NpzReader:
    """Reads image i; a split's array is unpacked when the first of its images is asked for."""

    path: Path
    starts: tuple[tuple[str, int], ...]
    loaded: dict[str, ImageArray] = field(default_factory=dict, compare=False, repr=False)

    def __call__(self, i: int) -> ImageArray:
        split, start = next(pair for pair in reversed(self.starts) if pair[1] <= i)
        if split not in self.loaded:
            with np.load(self.path, allow_pickle=False) as archive:
                self.loaded[split] = archive[f"{split}_images"]
        image = self.loaded[split][i - start]
        if image.ndim == 2 or image.shape[2] == 1:
            image = np.repeat(image.reshape(*image.shape[:2], 1), 3, axis=2)
        return np.ascontiguousarray(image)


def read_npz(path: Path, *, name: str, classes: Sequence[str] | None = None) -> Dataset:
    """A MedMNIST-style archive as a Dataset. Label k is called `classes[k]`, or "k" where no names are given.

    Raises Refused for pickled content, several labels an image, or pixels that are not 8-bit.
    """
    labels: list[npt.NDArray[np.int64]] = []
    splits: list[str] = []
    starts: list[tuple[str, int]] = []
    try:
        with zipfile.ZipFile(path) as packed:
            shapes = {info.filename.removesuffix(".npy"): _header(packed, info) for info in packed.infolist()}
        with np.load(path, allow_pickle=False) as archive:
            for split in SPLITS:
                if f"{split}_images" in shapes:
                    count = _check_images(shapes[f"{split}_images"], f"{path}, {split}_images")
                    starts.append((split, len(splits)))
                    labels.append(_check_labels(archive, f"{split}_labels", count, path))
                    splits += [split] * count
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise Refused(
            f"Expected a .npz of plain arrays at {path}; got: {error}. Save it anew without pickled objects."
        ) from None
    if not splits:
        raise Refused(
            f"Expected train_images and train_labels in {path}; got {', '.join(shapes) or 'nothing'}. "
            "Save the arrays under MedMNIST's names."
        )
    numbers = np.concatenate(labels)
    names = tuple(classes) if classes is not None else tuple(str(k) for k in range(int(numbers.max()) + 1))
    if numbers.max() >= len(names):
        raise Refused(f"Expected labels below {len(names)} in {path}; got {numbers.max()}. Name every class.")
    words = [names[k] for k in numbers]
    class_names(words, names, name)
    order = np.arange(len(splits)) - np.repeat([s for _, s in starts], np.diff([*(s for _, s in starts), len(splits)]))
    ids = tuple(f"{split}/{k:06d}" for split, k in zip(splits, order.tolist(), strict=True))
    return Dataset(
        name=name,
        classes=names,
        ids=ids,
        labels=numbers,
        fingerprint=fingerprint([digest_file(path)] * len(ids), ids, words, None),
        reader=NpzReader(path, tuple(starts)),
        splits=tuple(splits),
    )


def _header(packed: zipfile.ZipFile, info: zipfile.ZipInfo) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type of one array without unpacking it."""
    if info.file_size > MAX_BYTES:
        raise ValueError(f"{info.filename} unpacks to {info.file_size >> 30} GiB")
    with packed.open(info) as stream:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(stream)
    if dtype.hasobject:
        raise ValueError(f"{info.filename} holds pickled objects")
    return shape, dtype


def _check_images(header: tuple[tuple[int, ...], np.dtype[Any]], where: str) -> int:
    shape, dtype = header
    grey_or_rgb = len(shape) == 3 or (len(shape) == 4 and shape[3] in (1, 3))
    if dtype != np.uint8 or not grey_or_rgb:
        raise Refused(
            f"Expected uint8 images of shape (n, height, width[, 3]) in {where}; got {dtype} {shape}. Convert them."
        )
    return int(shape[0])


def _check_labels(archive: Any, key: str, count: int, path: Path) -> npt.NDArray[np.int64]:
    if key not in archive:
        raise Refused(f"Expected {key} in {path}; it is not there. Save the labels too.")
    labels = archive[key]
    if labels.size != count or not np.issubdtype(labels.dtype, np.integer) or (labels.size and labels.min() < 0):
        raise Refused(
            f"Expected {count} whole numbers from 0 in {path}, {key}; got {labels.dtype} {labels.shape}. "
            "Give one label an image."
        )
    return np.asarray(labels.reshape(-1), np.int64)
