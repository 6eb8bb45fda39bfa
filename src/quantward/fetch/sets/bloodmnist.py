"""BloodMNIST: blood cells under the microscope, eight kinds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from quantward.fetch.sets._medmnist import Medmnist


@dataclass(frozen=True)
class Bloodmnist(Medmnist):
    """11,959 training, 1,712 validation and 3,421 test images."""

    name: ClassVar[str] = "bloodmnist"
    title: ClassVar[str] = "BloodMNIST (MedMNIST v2)"
    classes: ClassVar[tuple[str, ...]] = (
        "basophil",
        "eosinophil",
        "erythroblast",
        "immature_granulocyte",
        "lymphocyte",
        "monocyte",
        "neutrophil",
        "platelet",
    )
    counts: ClassVar[Mapping[str, int]] = {"train": 11959, "val": 1712, "test": 3421}
    md5: ClassVar[Mapping[str, str]] = {
        "28": "7053d0359d879ad8a5505303e11de1dc",
        "64": "2b94928a2ae4916078ca51e05b6b800b",
        "128": "adace1e0ed228fccda1f39692059dd4c",
        "224": "b718ff6835fcbdb22ba9eacccd7b2601",
    }
