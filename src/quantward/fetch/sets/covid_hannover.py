"""COVID-19 radiographs of Hannover Medical School with their patients: positives only, an external test of recall."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import ClassVar

from quantward.core.errors import Refused
from quantward.fetch.sets._listing import read_listing
from quantward.fetch.trees import Tree
from quantward.fetch.values import File, Item

ATTRIBUTES = ("sex", "projection", "modality", "admission_offset")


@dataclass(frozen=True)
class CovidHannover:
    """A folder of pictures and a table of patients, from a fixed commit of the clinic's repository."""

    title: ClassVar[str] = "COVID-19 Image Repository of Hannover Medical School"
    page: ClassVar[str] = "https://github.com/ml-workgroup/covid-19-image-repository"
    licence: ClassVar[str] = "CC BY 3.0"
    citation: ClassVar[str] = (
        "H. B. Winther et al. COVID-19 image repository. Institute for Diagnostic and Interventional Radiology, "
        "Hannover Medical School, 2020. doi:10.6084/m9.figshare.12275009."
    )
    files: ClassVar[tuple[File, ...]] = (
        File(
            "covid-hannover.zip",
            "https://github.com/ml-workgroup/covid-19-image-repository/archive/ad7ab09.zip",
        ),
    )
    classes: ClassVar[tuple[str, ...]] = ("covid19",)
    images: ClassVar[int] = 243
    counts: ClassVar[Mapping[str, int]] = {"covid19": 243}
    group: ClassVar[str] = "patient"
    note: ClassVar[str] = "One class only: what can be measured on it is sensitivity."

    def items(self, tree: Tree) -> Iterator[Item]:
        """Every radiograph that the table lists. Raises Refused where there is no table."""
        table = tree.named("data.csv")
        if table is None:
            raise Refused(
                f"Expected data.csv, which names the patients, in the copy; it is not there. Get it from {self.page}."
            )
        pictures = {PurePosixPath(name).stem: path for name, path in tree.pictures("png")}
        for row in read_listing(table, ("patient_id", "image_id")):
            picture = pictures.get(row["image_id"])
            if picture is not None:
                facts = {key: row.get(key, "") for key in ATTRIBUTES}
                yield Item(f"covid19/{picture.name}", "covid19", picture, "external", row["patient_id"], facts)
