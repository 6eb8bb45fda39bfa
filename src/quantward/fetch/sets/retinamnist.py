"""RetinaMNIST: fundus photographs, five grades of diabetic retinopathy (DeepDRiD)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from quantward.fetch.sets._medmnist import Medmnist


@dataclass(frozen=True)
class Retinamnist(Medmnist):
    """1,080 training, 120 validation and 400 test images."""

    name: ClassVar[str] = "retinamnist"
    title: ClassVar[str] = "RetinaMNIST (MedMNIST v2)"
    classes: ClassVar[tuple[str, ...]] = ("grade_0", "grade_1", "grade_2", "grade_3", "grade_4")
    counts: ClassVar[Mapping[str, int]] = {"train": 1080, "val": 120, "test": 400}
    md5: ClassVar[Mapping[str, str]] = {
        "28": "bd4c0672f1bba3e3a89f0e4e876791e4",
        "64": "afda852cc34dcda56f86ad2b2457dbcc",
        "128": "e48e916a24454daf90583d4e6efb1a18",
        "224": "eae7e3b6f3fcbda4ae613ebdcbe35348",
    }
