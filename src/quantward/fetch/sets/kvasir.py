"""Kvasir v2: endoscopic pictures of the gastrointestinal tract in eight balanced classes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from quantward.fetch.trees import Tree
from quantward.fetch.values import File, Item

CLASSES = (
    "dyed-lifted-polyps",
    "dyed-resection-margins",
    "esophagitis",
    "normal-cecum",
    "normal-pylorus",
    "normal-z-line",
    "polyps",
    "ulcerative-colitis",
)


@dataclass(frozen=True)
class Kvasir:
    """A folder a class, 1,000 pictures each."""

    title: ClassVar[str] = "Kvasir v2"
    page: ClassVar[str] = "https://datasets.simula.no/kvasir/"
    licence: ClassVar[str] = "research and education only, with citation"
    citation: ClassVar[str] = (
        "K. Pogorelov et al. KVASIR: a multi-class image dataset for computer aided gastrointestinal disease "
        "detection. Proc. 8th ACM Multimedia Systems Conference, 164-169, 2017. doi:10.1145/3083187.3083212."
    )
    files: ClassVar[tuple[File, ...]] = (
        File("kvasir-dataset-v2.zip", "https://datasets.simula.no/downloads/kvasir/kvasir-dataset-v2.zip",
             2_489_312_085),
    )  # fmt: skip
    classes: ClassVar[tuple[str, ...]] = CLASSES
    images: ClassVar[int] = 8000
    counts: ClassVar[Mapping[str, int]] = dict.fromkeys(CLASSES, 1000)
    group: ClassVar[str] = ""
    note: ClassVar[str] = (
        "No patient is named, though frames of one examination look alike: they are linked when a split is made."
    )

    def items(self, tree: Tree) -> Iterator[Item]:
        """Every picture, one folder a class."""
        for label in CLASSES:
            for name, path in tree.pictures(label):
                yield Item(f"{label}/{name}", label, path)
