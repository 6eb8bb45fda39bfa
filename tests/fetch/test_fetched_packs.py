"""The real sets, where copies are at hand: class names, splits, patients and numbers are what the converters say."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from quantward.data import open_dataset, subset
from quantward.data.table import read_rows
from quantward.fetch import SETS, Item, Source, fetch
from quantward.fetch.apart import shared
from quantward.fetch.build import differences
from quantward.fetch.sets._medmnist import _pictures
from quantward.fetch.trees import walk


def listed(pack: Path) -> dict[str, dict[str, str]]:
    """The rows of a pack's own list, by path."""
    return {row["path"]: row for _, row in read_rows(pack / "images.csv", required=("path", "label"))}


def converted(name: str, *places: Path) -> tuple[Source, dict[str, Item]]:
    """What the converter makes of a copy, by path."""
    source: Source = SETS.make(name)
    items = list(source.items(walk(*places)))
    assert len({item.path for item in items}) == len(items)
    return source, {item.path: item for item in items}


def test_brain_mri_sartaj_is_whole(shared_data: Path) -> None:
    pack = shared_data / "brain_mri_sartaj"
    source, items = converted("brain-mri-sartaj", pack)
    assert {path: (row["label"], row["split"]) for path, row in listed(pack).items()} == {
        path: (item.label, item.split) for path, item in items.items()
    }
    counts = Counter(f"{item.split}/{item.label}" for item in items.values())
    assert differences(counts, source.counts, source.images, len(items)) == ()


def test_brain_mri_sartaj_by_name_is_the_pack(shared_data: Path, tmp_path: Path) -> None:
    folder, record, fresh = fetch("brain-mri-sartaj", tmp_path / "brain", given=[shared_data / "brain_mri_sartaj"])
    assert fresh and record.differs == () and record.images == 3264
    mine, pack = listed(folder), listed(shared_data / "brain_mri_sartaj")
    assert {path: (row["label"], row["split"]) for path, row in mine.items()} == {
        path: (row["label"], row["split"]) for path, row in pack.items()
    }
    one = next(iter(mine))
    assert (folder / one).read_bytes() == (shared_data / "brain_mri_sartaj" / one).read_bytes()


def test_brain_mri_external_is_a_part_of_nickparvar(shared_data: Path) -> None:
    pack = shared_data / "brain_mri_external"
    _, items = converted("brain-mri-nickparvar", pack)
    assert {path: row["label"] for path, row in listed(pack).items()} == {
        path: item.label for path, item in items.items()
    }


def test_covid_radiography_pack_is_a_part(shared_data: Path) -> None:
    pack = shared_data / "chest_xray_covid_radiography"
    _, items = converted("covid-radiography", pack)
    assert {path: row["label"] for path, row in listed(pack).items()} == {
        path: item.label for path, item in items.items()
    }


def test_patients_of_chest_xray_talo(shared_data: Path, tmp_path: Path) -> None:
    """The list of patients is made from the pack's own groups; those of the NIH are in the names."""
    pack = shared_data / "chest_xray_talo"
    rows = listed(pack)
    cohen = [f"{row['group'].removeprefix('cohen_')},{Path(path).name}\n" for path, row in rows.items()
             if row["group"].startswith("cohen_")]  # fmt: skip
    (tmp_path / "metadata.csv").write_text("patientid,filename\n" + "".join(cohen))
    source, items = converted("chest-xray-talo", pack, tmp_path / "metadata.csv")
    assert dict(Counter(item.label for item in items.values())) == source.counts
    assert {path: row["label"] for path, row in rows.items()} == {path: item.label for path, item in items.items()}
    known = {path for path, row in rows.items() if row["group"].startswith(("cohen_", "nih_"))}
    assert len(known) > 1100
    assert {path: rows[path]["group"] for path in known} == {path: items[path].group for path in known}


def test_patients_of_covid_hannover(shared_data: Path, tmp_path: Path) -> None:
    """The table is made of the pack's own groups and attributes, in the source's columns."""
    pack = shared_data / "chest_xray_hannover_covid"
    rows = listed(pack)
    extra = {row["path"]: row for _, row in read_rows(pack / "extra.csv", required=("path",))}
    table = ["patient_id,image_id,sex,admission_offset,modality,projection"]
    for path, row in rows.items():
        also = extra[path]
        table.append(",".join([row["group"], Path(path).stem, also["sex"], also["admission_offset"],
                               also["modality"], also["projection"]]))  # fmt: skip
    (tmp_path / "data.csv").write_text("\n".join(table))
    source, items = converted("covid-hannover", pack, tmp_path / "data.csv")
    assert len(items) == source.images == len(rows)
    assert len({item.group for item in items.values()}) == 71
    for path, row in rows.items():
        item = items[f"covid19/{Path(path).name}"]
        assert (item.group, item.split, item.attributes["sex"]) == (row["group"], "external", extra[path]["sex"])


def test_cp_anemic_pack_is_whole(shared_data: Path) -> None:
    pack = shared_data / "conjunctiva_cp_anemic"
    source, items = converted("cp-anemic", pack)
    assert {path: row["label"] for path, row in listed(pack).items()} == {
        path: item.label for path, item in items.items()
    }
    assert dict(Counter(item.label for item in items.values())) == source.counts


def test_lesions_of_ham10000(shared_data: Path, tmp_path: Path) -> None:
    """The pack knows HAM10000's lesions for some of its pictures: a table made of these gives them back."""
    pack = shared_data / "skin_isic9"
    extra = {row["path"]: row for _, row in read_rows(pack / "extra.csv", required=("path",))}
    rows = {path: row for path, row in listed(pack).items()
            if extra[path]["ham10000_dx"] and Path(path).stem == extra[path]["isic_id"]}  # fmt: skip
    table = ["lesion_id,image_id,dx,dx_type,age,sex,localization"]
    for path, row in rows.items():
        also = extra[path]
        table.append(",".join([row["group"], also["isic_id"], also["ham10000_dx"], also["ham10000_dx_type"],
                               also["age"], also["sex"], also["localization"]]))  # fmt: skip
    (tmp_path / "HAM10000_metadata.csv").write_text("\n".join(table))
    source, items = converted("ham10000", pack, tmp_path / "HAM10000_metadata.csv")
    assert len(items) == len(rows) > 1000 and {item.label for item in items.values()} <= set(source.classes)
    for path, row in rows.items():
        mine = items[f"{extra[path]['ham10000_dx']}/{extra[path]['isic_id']}.jpg"]
        assert (mine.group, mine.attributes["age"]) == (row["group"], extra[path]["age"])


def test_cifar10_records_become_the_published_pictures(shared_data: Path, tmp_path: Path) -> None:
    """4,000 real pictures, packed as records, come back under the same names with the same pixels."""
    pack = shared_data / "cifar10_png"
    names = sorted((pack / "train").rglob("*.png"), key=lambda p: p.stem)[:500]
    classes = SETS.make("cifar10").classes
    records = []
    for path in names:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
        records.append(bytes([classes.index(path.parent.name)]) + pixels.transpose(2, 0, 1).tobytes())
    (tmp_path / "data_batch_1.bin").write_bytes(b"".join(records))
    _, items = converted("cifar10", tmp_path)
    assert [int(path.stem) for path in names[:3]] == [0, 1, 2]
    for number, path in enumerate(names):
        item = items[f"train/{path.parent.name}/{number:05d}.png"]
        with Image.open(path) as image:
            np.testing.assert_array_equal(np.asarray(item.content), np.asarray(image.convert("RGB")))


def test_pneumoniamnist_pack(shared_data: Path) -> None:
    pack = shared_data / "pneumoniamnist_28"
    source, items = converted("pneumoniamnist", pack)
    counts = Counter(item.split for item in items.values())
    assert differences(counts, source.counts, source.images, len(items)) == ()
    whole = open_dataset(pack / "pneumoniamnist.npz", classes=source.classes)
    for i in range(0, len(whole), 97):
        split, number = whole.ids[i].split("/")
        item = items[f"{split}/{whole.classes[whole.labels[i]]}/{number}.png"]
        np.testing.assert_array_equal(np.stack([item.content] * 3, -1), whole.read(i))


def test_pictures_come_one_at_a_time(shared_data: Path) -> None:
    import tracemalloc

    tracemalloc.start()
    try:
        for number, _ in enumerate(_pictures(shared_data / "pneumoniamnist_28" / "pneumoniamnist.npz", "train", 28)):
            if number == 1000:
                break
        assert tracemalloc.get_traced_memory()[1] < 1_000_000  # the whole array has 3.7 MB
    finally:
        tracemalloc.stop()


def test_the_external_pack_was_made_apart(shared_data: Path) -> None:
    """What the pack of external images was freed of by hand, `--apart` finds none of; put in, it is found."""
    external = open_dataset(shared_data / "brain_mri_external")
    brain = open_dataset(shared_data / "brain_mri_sartaj")
    some = subset(brain, np.arange(0, len(brain), 10))
    assert shared(subset(external, np.arange(0, len(external), 20)), some) == []
    again = subset(brain, np.arange(0, len(brain), 200))
    assert shared(again, some) == list(range(len(again)))


@pytest.mark.parametrize("name", SETS.names())
def test_nothing_is_found_in_another_set(name: str, shared_data: Path) -> None:
    """A copy of something else is refused, not converted into an empty or a wrong set."""
    other = walk(shared_data / "skin_ph2")
    try:
        assert list(SETS.make(name).items(other)) == []
    except Exception as error:
        assert "Expected" in str(error)
