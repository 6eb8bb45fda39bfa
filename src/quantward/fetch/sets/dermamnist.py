"""DermaMNIST: the pigmented skin lesions of HAM10000, seven classes; without its lesion ids."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from quantward.fetch.sets._medmnist import Medmnist


@dataclass(frozen=True)
class Dermamnist(Medmnist):
    """7,007 training, 1,003 validation and 2,005 test images."""

    name: ClassVar[str] = "dermamnist"
    title: ClassVar[str] = "DermaMNIST (MedMNIST v2)"
    licence: ClassVar[str] = "CC BY-NC 4.0"
    classes: ClassVar[tuple[str, ...]] = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
    counts: ClassVar[Mapping[str, int]] = {"train": 7007, "val": 1003, "test": 2005}
    md5: ClassVar[Mapping[str, str]] = {
        "28": "0744692d530f8e62ec473284d019b0c7",
        "64": "b70a2f5635c6199aeaa28c31d7202e1f",
        "128": "2defd784463fa5243564e855ed717de1",
        "224": "8974907d8e169bef5f5b96bc506ae45d",
    }
    note: ClassVar[str] = (
        "HAM10000's lesions lie on both sides of its published split: fetch ham10000 for results that hold."
    )
