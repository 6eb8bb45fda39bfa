"""What the sets of MedMNIST v2 share: one .npz a size, read picture by picture, never as a whole and never a pickle."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from quantward.core.errors import Refused
from quantward.core.values import ImageArray
from quantward.fetch.trees import Tree
from quantward.fetch.values import File, Item

ZENODO = "https://zenodo.org/records/10519652"
SPLITS = ("train", "val", "test")
ORGANS = (
    "bladder",
    "femur_left",
    "femur_right",
    "heart",
    "kidney_left",
    "kidney_right",
    "liver",
    "lung_left",
    "lung_right",
    "pancreas",
    "spleen",
)
"""Of the three sets of abdominal organs, in the order of their label numbers."""


@dataclass(frozen=True)
class Medmnist:
    """A set of MedMNIST v2 at 28, 64, 128 or 224 pixels. `classes` stand in the order of its label numbers."""

    size: Literal["28", "64", "128", "224"] = "28"

    name: ClassVar[str]
    title: ClassVar[str]
    classes: ClassVar[tuple[str, ...]]
    counts: ClassVar[Mapping[str, int]]
    md5: ClassVar[Mapping[str, str]]
    licence: ClassVar[str] = "CC BY 4.0"
    page: ClassVar[str] = ZENODO
    citation: ClassVar[str] = (
        "J. Yang et al. MedMNIST v2: a large-scale lightweight benchmark for 2D and 3D biomedical image "
        "classification. Scientific Data 10:41, 2023. doi:10.5281/zenodo.10519652."
    )
    group: ClassVar[str] = ""
    note: ClassVar[str] = "No patient is named; the published split is kept."

    @property
    def images(self) -> int:
        """All three splits together."""
        return sum(self.counts[split] for split in SPLITS)

    @property
    def files(self) -> tuple[File, ...]:
        """The one archive of this size."""
        name = f"{self.name}.npz" if self.size == "28" else f"{self.name}_{self.size}.npz"
        return (File(name, f"{ZENODO}/files/{name}?download=1", None, f"md5:{self.md5[self.size]}"),)

    def items(self, tree: Tree) -> Iterator[Item]:
        """Every picture, numbered within its split as in the archive."""
        path = tree.named(self.files[0].name)
        if path is None:
            return
        side = int(self.size)
        for split in SPLITS:
            labels = _labels(path, split)
            for number, (numbers, picture) in enumerate(zip(labels, _pictures(path, split, side), strict=True)):
                label, facts = self.label_of(numbers, path)
                yield Item(f"{split}/{label}/{number:06d}.png", label, picture, split, attributes=facts)

    def label_of(self, numbers: npt.NDArray[np.int64], path: Path) -> tuple[str, Mapping[str, str]]:
        """The class, and any attributes, of one row of label numbers."""
        if numbers.size != 1 or not 0 <= numbers[0] < len(self.classes):
            raise Refused(
                f"Expected one label from 0 to {len(self.classes) - 1} an image in {path.name}; "
                f"got {numbers.tolist()}. Fetch the archive anew."
            )
        return self.classes[int(numbers[0])], {}


def _labels(path: Path, split: str) -> npt.NDArray[np.int64]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            found: npt.NDArray[np.int64] = np.asarray(archive[f"{split}_labels"], np.int64)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise _broken(path, error) from None
    return found.reshape(len(found), -1)


def _pictures(path: Path, split: str, side: int) -> Iterator[ImageArray]:
    """One picture at a time: the largest arrays are 16 GB when unpacked."""
    try:
        with zipfile.ZipFile(path) as archive, archive.open(f"{split}_images.npy") as stream:
            version = np.lib.format.read_magic(stream)
            read: Any = (
                np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            )
            shape, by_columns, kind = read(stream)
            one = shape[1:]
            if kind != np.uint8 or by_columns or one not in ((side, side), (side, side, 3)):
                raise ValueError(f"{split}_images is {kind} {shape}")
            count = int(np.prod(one))
            for _ in range(shape[0]):
                block = stream.read(count)
                if len(block) != count:
                    raise ValueError(f"{split}_images ends early")
                yield np.frombuffer(block, np.uint8).reshape(one)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise _broken(path, error) from None


def _broken(path: Path, error: Exception) -> Refused:
    return Refused(
        f"Expected an archive of 8-bit pictures of MedMNIST at {path}; it cannot be read ({error}). Fetch it anew."
    )
