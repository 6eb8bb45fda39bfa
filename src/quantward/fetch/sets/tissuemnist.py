"""TissueMNIST: cells of the kidney cortex under the microscope, eight kinds (BBBC051)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from quantward.fetch.sets._medmnist import Medmnist


@dataclass(frozen=True)
class Tissuemnist(Medmnist):
    """165,466 training, 23,640 validation and 47,280 test images."""

    name: ClassVar[str] = "tissuemnist"
    title: ClassVar[str] = "TissueMNIST (MedMNIST v2)"
    classes: ClassVar[tuple[str, ...]] = (
        "collecting_duct_or_connecting_tubule",
        "distal_convoluted_tubule",
        "glomerular_endothelial_cell",
        "interstitial_endothelial_cell",
        "leukocyte",
        "podocyte",
        "proximal_tubule_segment",
        "thick_ascending_limb",
    )
    counts: ClassVar[Mapping[str, int]] = {"train": 165466, "val": 23640, "test": 47280}
    md5: ClassVar[Mapping[str, str]] = {
        "28": "ebe78ee8b05294063de985d821c1c34b",
        "64": "123ece2eba09d0aa5d698fda57103344",
        "128": "61b955355d7425a89687b06cca3ce0c2",
        "224": "b077128c4a949f0a4eb01517f9037b9c",
    }
