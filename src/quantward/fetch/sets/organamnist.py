"""OrganAMNIST: abdominal organs in axial CT slices, eleven (LiTS)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from quantward.fetch.sets._medmnist import ORGANS, Medmnist


@dataclass(frozen=True)
class Organamnist(Medmnist):
    """34,561 training, 6,491 validation and 17,778 test images."""

    name: ClassVar[str] = "organamnist"
    title: ClassVar[str] = "OrganAMNIST (MedMNIST v2)"
    classes: ClassVar[tuple[str, ...]] = ORGANS
    counts: ClassVar[Mapping[str, int]] = {"train": 34561, "val": 6491, "test": 17778}
    md5: ClassVar[Mapping[str, str]] = {
        "28": "68e3f8846a6bd62f0c9bf841c0d9eacc",
        "64": "2dcccc29b88e6da5a01161ef20cda288",
        "128": "eeae80d0a227a8d099027e1b3cfd3b60",
        "224": "50747347e05c87dd3aaf92c49f9f3170",
    }
