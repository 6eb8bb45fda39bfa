"""HAM10000: dermatoscopic pictures of pigmented skin lesions in seven classes, with the lesion each shows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import ClassVar

from quantward.core.errors import Refused
from quantward.fetch.sets._listing import read_listing
from quantward.fetch.trees import Tree
from quantward.fetch.values import File, Item

DATAVERSE = "https://dataverse.harvard.edu/api/access/datafile"
COLUMNS = ("lesion_id", "image_id", "dx")
ATTRIBUTES = ("dx_type", "age", "sex", "localization", "dataset")


@dataclass(frozen=True)
class Ham10000:
    """Two archives of pictures and a table; the Kaggle copies, which hold every picture twice, are understood too."""

    title: ClassVar[str] = "HAM10000, the training set of ISIC 2018 task 3"
    page: ClassVar[str] = "https://dataverse.harvard.edu/dataset.xhtml?persistentId=doi:10.7910/DVN/DBW86T"
    licence: ClassVar[str] = "CC BY-NC 4.0"
    citation: ClassVar[str] = (
        "P. Tschandl, C. Rosendahl, H. Kittler. The HAM10000 dataset, a large collection of multi-source dermatoscopic "
        "images of common pigmented skin lesions. Scientific Data 5:180161, 2018. doi:10.7910/DVN/DBW86T."
    )
    files: ClassVar[tuple[File, ...]] = (
        File("HAM10000_metadata.csv", f"{DATAVERSE}/4338392?format=original", 690_218,
             "md5:8f85fb1aa29d80a2797247e434deb79d"),
        File("HAM10000_images_part_1.zip", f"{DATAVERSE}/3172585", 1_366_522_108,
             "md5:4639bfa73ab251610530a97c898e6e46"),
        File("HAM10000_images_part_2.zip", f"{DATAVERSE}/3172584", 1_403_566_547,
             "md5:da43d6cc50f6613013be07e8986b384b"),
    )  # fmt: skip
    classes: ClassVar[tuple[str, ...]] = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
    images: ClassVar[int] = 10015
    counts: ClassVar[Mapping[str, int]] = {
        "akiec": 327,
        "bcc": 514,
        "bkl": 1099,
        "df": 115,
        "mel": 1113,
        "nv": 6705,
        "vasc": 142,
    }
    group: ClassVar[str] = "lesion"
    note: ClassVar[str] = "7,470 lesions: several pictures of one lesion must stay on one side of a split."

    def items(self, tree: Tree) -> Iterator[Item]:
        """Every picture that the table lists. Raises Refused where there is no such table."""
        table = tree.named("HAM10000_metadata.csv", "HAM10000_metadata.tab", "HAM10000_metadata")
        if table is None:
            raise Refused(
                f"Expected HAM10000_metadata.csv, which names the lesions, in the copy; it is not there. "
                f"Get it from {self.page}."
            )
        pictures: dict[str, Path] = {}
        for name, path in tree.pictures():
            pictures.setdefault(PurePosixPath(name).stem, path)
        for row in read_listing(table, COLUMNS):
            picture = pictures.get(row["image_id"])
            if picture is not None:
                facts = {key: row.get(key, "") for key in ATTRIBUTES}
                place = f"{row['dx']}/{row['image_id']}{picture.suffix.lower()}"
                yield Item(place, row["dx"], picture, group=row["lesion_id"], attributes=facts)
