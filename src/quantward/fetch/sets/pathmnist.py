"""PathMNIST: tissue of colorectal cancer under the microscope, nine kinds (NCT-CRC-HE)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from quantward.fetch.sets._medmnist import Medmnist


@dataclass(frozen=True)
class Pathmnist(Medmnist):
    """89,996 training, 10,004 validation and 7,180 test images."""

    name: ClassVar[str] = "pathmnist"
    title: ClassVar[str] = "PathMNIST (MedMNIST v2)"
    classes: ClassVar[tuple[str, ...]] = (
        "adipose",
        "background",
        "debris",
        "lymphocytes",
        "mucus",
        "smooth_muscle",
        "normal_colon_mucosa",
        "cancer_associated_stroma",
        "colorectal_adenocarcinoma_epithelium",
    )
    counts: ClassVar[Mapping[str, int]] = {"train": 89996, "val": 10004, "test": 7180}
    md5: ClassVar[Mapping[str, str]] = {
        "28": "a8b06965200029087d5bd730944a56c1",
        "64": "55aa9c1e0525abe5a6b9d8343a507616",
        "128": "ac42d08fb904d92c244187169d1fd1d9",
        "224": "2c51a510bcdc9cf8ddb2af93af1eadec",
    }
