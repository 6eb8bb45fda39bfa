"""CP-AnemiC: photographs of children's conjunctivas with their haemoglobin, from ten hospitals in Ghana."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import ClassVar

from quantward.fetch.sets._listing import read_listing
from quantward.fetch.sets._sheet import read_sheet
from quantward.fetch.trees import Tree
from quantward.fetch.values import File, Item

FOLDERS = {"anemic": "Anemic", "non_anemic": "Non-anemic"}
ATTRIBUTES = {
    "hb_g_dl": "hb_level",
    "severity": "severity",
    "age_months": "age(months)",
    "sex": "gender",
    "hospital": "hospital",
    "region": "region",
}
SHEETS = (
    "Anemia_Data_Collection_Sheet.xlsx",
    "Anemia_Data_Collection_Sheet.csv",
    "CP-Anemic_Data_Collection_Sheet.xlsx",
)


@dataclass(frozen=True)
class CpAnemic:
    """A RAR with a folder a class and a sheet of what was measured, which becomes attributes."""

    title: ClassVar[str] = "CP-AnemiC, conjunctival pallor from Ghana"
    page: ClassVar[str] = "https://data.mendeley.com/datasets/m53vz6b7fx/1"
    licence: ClassVar[str] = "CC BY 4.0 (its authors add: academic use, with citation)"
    citation: ClassVar[str] = (
        "J. W. Asare, P. Appiahene, E. T. Donkoh, G. Dimauro. CP-AnemiC: a conjunctival pallor dataset and benchmark "
        "for anemia detection in children. Medicine in Novel Technology and Devices 18:100244, 2023. "
        "doi:10.17632/m53vz6b7fx.1."
    )
    files: ClassVar[tuple[File, ...]] = (
        File(
            "CP-AnemiC dataset.rar",
            "https://data.mendeley.com/public-files/datasets/m53vz6b7fx/files/"
            "904a85cb-aa4b-4060-9064-3405f279ce65/file_downloaded",
            None,
            "sha256:78d7c2eca49d250f3208b7cf384238d0793f5e772d33153e6ee7d73294cd319c",
        ),
    )
    classes: ClassVar[tuple[str, ...]] = tuple(FOLDERS)
    images: ClassVar[int] = 710
    counts: ClassVar[Mapping[str, int]] = {"anemic": 424, "non_anemic": 286}
    group: ClassVar[str] = ""
    note: ClassVar[str] = (
        "485 different pictures: one photograph is filed under up to eleven children. Every image has a child of its "
        "own in the sheet, so copies are linked by their pixels when a split is made."
    )

    def items(self, tree: Tree) -> Iterator[Item]:
        """Every photograph with what the sheet says of it (nothing, in copies without the sheet)."""
        measured = _sheet(tree)
        for label, folder in FOLDERS.items():
            for name, path in tree.pictures(folder):
                stem = PurePosixPath(name).stem
                row = measured.get(stem.casefold(), {})
                facts = {key: row.get(column, "").strip() for key, column in ATTRIBUTES.items()}
                yield Item(f"{folder}/{name}", label, path, attributes={"subject": stem, **facts} if measured else {})


def _sheet(tree: Tree) -> dict[str, dict[str, str]]:
    path = tree.named(*SHEETS)
    if path is None:
        return {}
    rows = read_listing(path, ("image_id",)) if path.suffix == ".csv" else read_sheet(path)
    return {row.get("image_id", "").strip().casefold(): row for row in rows}
