"""OrganSMNIST: abdominal organs in sagittal CT slices, eleven (LiTS)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from quantward.fetch.sets._medmnist import ORGANS, Medmnist


@dataclass(frozen=True)
class Organsmnist(Medmnist):
    """13,932 training, 2,452 validation and 8,827 test images."""

    name: ClassVar[str] = "organsmnist"
    title: ClassVar[str] = "OrganSMNIST (MedMNIST v2)"
    classes: ClassVar[tuple[str, ...]] = ORGANS
    counts: ClassVar[Mapping[str, int]] = {"train": 13932, "val": 2452, "test": 8827}
    md5: ClassVar[Mapping[str, str]] = {
        "28": "9ab87b696fb54e2a387ebe992d6ed5f1",
        "64": "53a6d115339d874c25e309a994ff46d3",
        "128": "ded0c5fa01a95dc4978b956f613e9b8e",
        "224": "b354719e553fbbb2513d5533f52a4cb1",
    }
