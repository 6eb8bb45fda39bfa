"""PneumoniaMNIST: children's chest radiographs, pneumonia or normal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from quantward.fetch.sets._medmnist import Medmnist


@dataclass(frozen=True)
class Pneumoniamnist(Medmnist):
    """4,708 training, 524 validation and 624 test images."""

    name: ClassVar[str] = "pneumoniamnist"
    title: ClassVar[str] = "PneumoniaMNIST (MedMNIST v2)"
    classes: ClassVar[tuple[str, ...]] = ("normal", "pneumonia")
    counts: ClassVar[Mapping[str, int]] = {"train": 4708, "val": 524, "test": 624}
    md5: ClassVar[Mapping[str, str]] = {
        "28": "28209eda62fecd6e6a2d98b1501bb15f",
        "64": "8f4eceb4ccffa70c672198ea285246c6",
        "128": "05b46931834c231683c68f40c47b2971",
        "224": "d6a3c71de1b945ea11211b03746c1fe1",
    }
