"""Brain tumours in MRI, four classes (Bhuvaji et al.): the set of many papers, from its authors' repository.

251 of its 394 test images are also training images, pixel by pixel: make a split of your own (`--split auto` does).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from quantward.fetch.trees import Tree
from quantward.fetch.values import File, Item

FOLDERS = {
    "glioma": "glioma_tumor",
    "meningioma": "meningioma_tumor",
    "no_tumor": "no_tumor",
    "pituitary": "pituitary_tumor",
}
SPLITS = {"train": "Training", "test": "Testing"}
REPOSITORY = "https://github.com/SartajBhuvaji/Brain-Tumor-Classification-DataSet"


@dataclass(frozen=True)
class BrainMriSartaj:
    """Training and Testing folders with a folder a class; the Kaggle copy (archive.zip) is laid out the same."""

    title: ClassVar[str] = "Brain Tumor Classification (MRI)"
    page: ClassVar[str] = "https://www.kaggle.com/datasets/sartajbhuvaji/brain-tumor-classification-mri"
    licence: ClassVar[str] = "not stated in the repository"
    citation: ClassVar[str] = (
        "S. Bhuvaji, A. Kadam, P. Bhumkar, S. Dedge, S. Kanchan. Brain Tumor Classification (MRI). Kaggle, 2020."
    )
    files: ClassVar[tuple[File, ...]] = (
        File("brain-mri-sartaj.zip", f"{REPOSITORY}/archive/3ea9f4e.zip",
             also=(f"{REPOSITORY}/archive/refs/heads/master.zip",)),
    )  # fmt: skip
    classes: ClassVar[tuple[str, ...]] = tuple(FOLDERS)
    images: ClassVar[int] = 3264
    counts: ClassVar[Mapping[str, int]] = {
        "train/glioma": 826,
        "train/meningioma": 822,
        "train/no_tumor": 395,
        "train/pituitary": 827,
        "test/glioma": 100,
        "test/meningioma": 115,
        "test/no_tumor": 105,
        "test/pituitary": 74,
    }
    group: ClassVar[str] = ""
    note: ClassVar[str] = (
        "No patient is named; 251 of the 394 test images are copies of training images. Split on look-alikes."
    )

    def items(self, tree: Tree) -> Iterator[Item]:
        """Every picture under its original path."""
        for split, above in SPLITS.items():
            for label, folder in FOLDERS.items():
                for name, path in tree.pictures(above, folder):
                    yield Item(f"{above}/{folder}/{name}", label, path, split)
