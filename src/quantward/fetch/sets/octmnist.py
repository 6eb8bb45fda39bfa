"""OCTMNIST: optical coherence tomograms of the retina, four classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from quantward.fetch.sets._medmnist import Medmnist


@dataclass(frozen=True)
class Octmnist(Medmnist):
    """97,477 training, 10,832 validation and 1,000 test images."""

    name: ClassVar[str] = "octmnist"
    title: ClassVar[str] = "OCTMNIST (MedMNIST v2)"
    classes: ClassVar[tuple[str, ...]] = ("choroidal_neovascularization", "diabetic_macular_edema", "drusen", "normal")
    counts: ClassVar[Mapping[str, int]] = {"train": 97477, "val": 10832, "test": 1000}
    md5: ClassVar[Mapping[str, str]] = {
        "28": "c68d92d5b585d8d81f7112f81e2d0842",
        "64": "e229e9440236b774d9f0dfef9d07bdaf",
        "128": "0a97e76651ace45c5d943ee3f65b63ae",
        "224": "abc493b6d529d5de7569faaef2773ba3",
    }
