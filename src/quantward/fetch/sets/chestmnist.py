"""ChestMNIST: chest radiographs of NIH ChestX-ray14: any of fourteen findings, or none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from quantward.core.errors import Refused
from quantward.fetch.sets._medmnist import Medmnist

FINDINGS = (
    "atelectasis",
    "cardiomegaly",
    "effusion",
    "infiltration",
    "mass",
    "nodule",
    "pneumonia",
    "pneumothorax",
    "consolidation",
    "edema",
    "emphysema",
    "fibrosis",
    "pleural",
    "hernia",
)


@dataclass(frozen=True)
class Chestmnist(Medmnist):
    """Fourteen findings can stand together, so the class is whether there is one; each is an attribute."""

    name: ClassVar[str] = "chestmnist"
    title: ClassVar[str] = "ChestMNIST (MedMNIST v2)"
    classes: ClassVar[tuple[str, ...]] = ("finding", "no_finding")
    counts: ClassVar[Mapping[str, int]] = {"train": 78468, "val": 11219, "test": 22433}
    md5: ClassVar[Mapping[str, str]] = {
        "28": "02c8a6516a18b556561a56cbdd36c4a8",
        "64": "9de6cd0b934ebb5b7426cfba5efbae16",
        "128": "db107e5590b27930b62dbaf558aebee3",
        "224": "45bd33e6f06c3e8cdb481c74a89152aa",
    }

    def label_of(self, numbers: npt.NDArray[np.int64], path: Path) -> tuple[str, Mapping[str, str]]:
        """`finding` where any of the fourteen is marked."""
        if numbers.size != len(FINDINGS) or not np.isin(numbers, (0, 1)).all():
            raise Refused(
                f"Expected fourteen marks, 0 or 1, an image in {path.name}; got {numbers.tolist()}. "
                "Fetch the archive anew."
            )
        marks = {name: "yes" if mark else "no" for name, mark in zip(FINDINGS, numbers.tolist(), strict=True)}
        return "finding" if numbers.any() else "no_finding", marks
