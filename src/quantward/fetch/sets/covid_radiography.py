"""COVID-19 Radiography Database: chest radiographs in four classes, collected from many sources (Chowdhury, Rahman)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from quantward.fetch.trees import Tree
from quantward.fetch.values import File, Item

FOLDERS = {
    "covid19": "COVID",
    "lung_opacity": "Lung_Opacity",
    "normal": "Normal",
    "viral_pneumonia": "Viral Pneumonia",
}


@dataclass(frozen=True)
class CovidRadiography:
    """A folder a class, with `images` and `masks` in it; the masks are left behind."""

    title: ClassVar[str] = "COVID-19 Radiography Database"
    page: ClassVar[str] = "https://www.kaggle.com/datasets/tawsifurrahman/covid19-radiography-database"
    licence: ClassVar[str] = "see the page (rights stay with the original authors)"
    citation: ClassVar[str] = (
        "M. E. H. Chowdhury et al. Can AI help in screening viral and COVID-19 pneumonia? IEEE Access 8:132665-132676, "
        "2020; T. Rahman et al. Exploring the effect of image enhancement techniques on COVID-19 detection using chest "
        "X-ray images. Computers in Biology and Medicine 132:104319, 2021."
    )
    files: ClassVar[tuple[File, ...]] = (File("archive.zip"),)
    classes: ClassVar[tuple[str, ...]] = tuple(FOLDERS)
    images: ClassVar[int] = 21165
    counts: ClassVar[Mapping[str, int]] = {
        "covid19": 3616,
        "lung_opacity": 6012,
        "normal": 10192,
        "viral_pneumonia": 1345,
    }
    group: ClassVar[str] = ""
    note: ClassVar[str] = (
        "No patient is named, and each class comes from other hospitals: a model can learn the source in place of the "
        "disease."
    )

    def items(self, tree: Tree) -> Iterator[Item]:
        """Every radiograph, one folder a class."""
        for label, folder in FOLDERS.items():
            for name, path in tree.pictures(folder):
                *between, last = name.split("/")
                if "masks" not in between:
                    yield Item(f"{folder}/{last}", label, path)
