"""OrganCMNIST: abdominal organs in coronal CT slices, eleven (LiTS)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from quantward.fetch.sets._medmnist import ORGANS, Medmnist


@dataclass(frozen=True)
class Organcmnist(Medmnist):
    """12,975 training, 2,392 validation and 8,216 test images."""

    name: ClassVar[str] = "organcmnist"
    title: ClassVar[str] = "OrganCMNIST (MedMNIST v2)"
    classes: ClassVar[tuple[str, ...]] = ORGANS
    counts: ClassVar[Mapping[str, int]] = {"train": 12975, "val": 2392, "test": 8216}
    md5: ClassVar[Mapping[str, str]] = {
        "28": "b9ceb9546e10131b32923c5bbeaea2b1",
        "64": "3ce34a8724ea6f548e6db4744d03b6a9",
        "128": "773c1f009daa3fe5d9a2a201b2a7ed94",
        "224": "050f5e875dc056f6768abf94ec9995d1",
    }
