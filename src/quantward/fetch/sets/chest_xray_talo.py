"""Chest radiographs in three classes (Ozturk, Talo et al.): COVID-19, pneumonia, no findings; patients where known.

Two of the classes are NIH ChestX-ray14 files, whose names begin with the patient's number. The COVID-19 pictures are
those of Cohen's collection, whose list of patients is fetched too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import ClassVar

from quantward.core.errors import Refused
from quantward.fetch.sets._listing import read_listing
from quantward.fetch.trees import Tree
from quantward.fetch.values import File, Item

FOLDERS = {"covid19": "Covid-19", "no_findings": "No_findings", "pneumonia": "Pneumonia"}
NIH = re.compile(r"(\d{8})_\d{3}")
COHEN = "https://raw.githubusercontent.com/ieee8023/covid-chestxray-dataset"


@dataclass(frozen=True)
class ChestXrayTalo:
    """A folder a class; `group` is the patient, `nih_...` or `cohen_...`, else the image itself."""

    title: ClassVar[str] = "Chest X-ray images of DarkCovidNet"
    page: ClassVar[str] = "https://github.com/muhammedtalo/COVID-19"
    licence: ClassVar[str] = "not stated in the repository"
    citation: ClassVar[str] = (
        "T. Ozturk, M. Talo et al. Automated detection of COVID-19 cases using deep neural networks with X-ray images. "
        "Computers in Biology and Medicine 121:103792, 2020; J. P. Cohen et al. COVID-19 image data collection: "
        "prospective predictions are the future. arXiv:2006.11988, 2020."
    )
    files: ClassVar[tuple[File, ...]] = (
        File("chest-xray-talo.zip", "https://github.com/muhammedtalo/COVID-19/archive/ee3e2cf.zip"),
        File("metadata.csv", f"{COHEN}/6a4242344473ccb5ed0d2148d8c7bfb1691e4ed8/metadata.csv"),
    )
    classes: ClassVar[tuple[str, ...]] = tuple(FOLDERS)
    images: ClassVar[int] = 1124
    counts: ClassVar[Mapping[str, int]] = {"covid19": 124, "no_findings": 500, "pneumonia": 500}
    group: ClassVar[str] = "patient"
    note: ClassVar[str] = (
        "COVID-19 pictures come from papers and the web, the others from one hospital system: a model can learn the "
        "source in place of the disease."
    )

    def items(self, tree: Tree) -> Iterator[Item]:
        """Every radiograph with its patient. Raises Refused where the list of patients is missing."""
        listed = tree.named("metadata.csv")
        if listed is None:
            raise Refused(
                f"Expected metadata.csv, Cohen's list of patients, in the copy; it is not there. Put it there from "
                f"{self.files[1].address}."
            )
        patients = _patients(listed)
        for label, folder in FOLDERS.items():
            for name, path in tree.pictures(folder):
                stem = PurePosixPath(name).stem
                nih = NIH.fullmatch(stem)
                patient = f"nih_{nih[1]}" if nih else patients.get(stem.casefold(), f"image_{stem}")
                yield Item(f"{folder}/{name}", label, path, group=patient)


def _patients(listed: Path) -> dict[str, str]:
    """File name without its suffix -> patient."""
    rows = read_listing(listed, ("patientid", "filename"))
    return {PurePosixPath(row["filename"]).stem.casefold(): f"cohen_{row['patientid']}" for row in rows}
