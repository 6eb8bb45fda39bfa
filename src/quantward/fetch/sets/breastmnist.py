"""BreastMNIST: ultrasound of the breast, malignant or not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from quantward.fetch.sets._medmnist import Medmnist


@dataclass(frozen=True)
class Breastmnist(Medmnist):
    """546 training, 78 validation and 156 test images."""

    name: ClassVar[str] = "breastmnist"
    title: ClassVar[str] = "BreastMNIST (MedMNIST v2)"
    classes: ClassVar[tuple[str, ...]] = ("malignant", "normal_or_benign")
    counts: ClassVar[Mapping[str, int]] = {"train": 546, "val": 78, "test": 156}
    md5: ClassVar[Mapping[str, str]] = {
        "28": "750601b1f35ba3300ea97c75c52ff8f6",
        "64": "742edef2a1fd1524b2efff4bd7ba9364",
        "128": "363e4b3f8d712e9b5de15470a2aaadf1",
        "224": "b56378a6eefa9fed602bb16d192d4c8b",
    }
