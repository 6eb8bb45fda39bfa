"""Brain tumours in MRI, four classes (Nickparvar): the external set for models trained on brain-mri-sartaj.

It was collected from three others, brain-mri-sartaj among them; `--apart` leaves out what overlaps.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from quantward.fetch.trees import Tree
from quantward.fetch.values import File, Item

FOLDERS = {"glioma": "glioma", "meningioma": "meningioma", "no_tumor": "notumor", "pituitary": "pituitary"}
SPLITS = {"train": "Training", "test": "Testing"}


@dataclass(frozen=True)
class BrainMriNickparvar:
    """Version 1 of the Kaggle set (version 2, of 2026, has 7,200 images); classes are called as in brain-mri-sartaj."""

    title: ClassVar[str] = "Brain Tumor MRI Dataset"
    page: ClassVar[str] = "https://www.kaggle.com/datasets/masoudnickparvar/brain-tumor-mri-dataset/versions/1"
    licence: ClassVar[str] = "see the page"
    citation: ClassVar[str] = "M. Nickparvar. Brain Tumor MRI Dataset. Kaggle, 2021. doi:10.34740/kaggle/dsv/2645886."
    files: ClassVar[tuple[File, ...]] = (File("archive.zip"),)
    classes: ClassVar[tuple[str, ...]] = tuple(FOLDERS)
    images: ClassVar[int] = 7023
    counts: ClassVar[Mapping[str, int]] = {"train": 5712, "test": 1311}
    group: ClassVar[str] = ""
    note: ClassVar[str] = (
        "No patient is named. About two fifths of it are images of brain-mri-sartaj: fetch it --apart from that set "
        "before it serves as an external one."
    )

    def items(self, tree: Tree) -> Iterator[Item]:
        """Every picture under its original path."""
        for split, above in SPLITS.items():
            for label, folder in FOLDERS.items():
                for name, path in tree.pictures(above, folder):
                    yield Item(f"{above}/{folder}/{name}", label, path, split)
