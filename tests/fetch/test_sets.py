"""Every known set: its facts hang together, and a miniature of its layout becomes DATA that `check` takes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fetch_minis import Mini, mini, zipped
from PIL import Image

from quantward.core.errors import Refused
from quantward.data import check, open_dataset
from quantward.fetch import SETS, Source, fetch
from quantward.fetch.sets._listing import read_listing
from quantward.fetch.sets._sheet import read_sheet
from quantward.fetch.sets.cifar10 import read_batch
from quantward.fetch.trees import walk

NAMES = SETS.names()
DOCS = Path(__file__).resolve().parents[2] / "docs" / "datasets.md"
Offer = Callable[[str], Mini]
Put = Callable[[dict[str, bytes], Path], Path]


@pytest.mark.parametrize("name", NAMES)
def test_facts_hang_together(name: str) -> None:
    source: Source = SETS.make(name)
    assert source.page.startswith("https://") and source.title and source.licence and source.citation and source.note
    assert len(set(source.classes)) == len(source.classes) > (0 if name == "covid-hannover" else 1)
    assert not any(re.search(r"[,/\\]", label) for label in source.classes)
    names = [file.name for file in source.files]
    assert len({name.casefold() for name in names}) == len(names) > 0
    for file in source.files:
        assert file.address == "" or file.address.startswith("https://")
        assert file.checksum is None or re.fullmatch(r"md5:[0-9a-f]{32}|sha256:[0-9a-f]{64}", file.checksum)
        assert file.bytes is None or file.bytes > 100_000
    known = {*source.classes, "train", "val", "test"}
    assert {part for key in source.counts for part in key.split("/")} <= known
    for keys in (source.classes, ("train", "val", "test"), ("train", "test"), *_crossed(source)):
        if set(keys) == {key for key in source.counts if ("/" in key) == ("/" in keys[0]) and _kin(key, keys)}:
            assert sum(source.counts[key] for key in keys) == source.images


def _kin(key: str, keys: tuple[str, ...]) -> bool:
    """Whether a published number is of the same kind as these: of classes, of splits, or of both."""
    splits = ("train", "val", "test")
    return (key in splits) == (keys[0] in splits)


def _crossed(source: Source) -> tuple[tuple[str, ...], ...]:
    return (tuple(f"{split}/{label}" for split in ("train", "test") for label in source.classes),)


@pytest.mark.parametrize("name", NAMES)
def test_it_is_documented(name: str) -> None:
    text = DOCS.read_text(encoding="utf-8")
    source: Source = SETS.make(name)
    assert f"`{name}`" in text
    if not name.endswith("mnist"):
        assert f"{source.images:,}" in text and source.page in text


@pytest.mark.usefixtures("rar_tool")
@pytest.mark.parametrize("name", [*NAMES, "pathmnist:size=64", "chestmnist:size=128"])
def test_its_layout_becomes_data(name: str, offered: Offer, tmp_path: Path) -> None:
    small = offered(name)
    folder, record, fresh = fetch(name, tmp_path / "data", as_is=True)
    assert fresh and folder == tmp_path / "data"
    data = open_dataset(folder)
    assert dict(Counter(data.classes[k] for k in data.labels.tolist())) == small.labels
    assert set(data.classes) == set(SETS.make(name).classes)
    assert frozenset(data.splits or ()) == small.splits
    assert frozenset(data.groups or ()) == small.groups
    assert small.attributes <= set(data.attributes)
    assert record.images == len(data) == sum(small.labels.values())
    report = check(data)
    assert report.readable == report.n == len(data) and report.duplicates == 0
    assert not [flaw for flaw in report.errors if flaw.code != "split-group"], report.errors
    assert record.differs  # a miniature has not the published checksums and numbers
    assert sorted(p.name for p in tmp_path.iterdir() if p.name not in ("tools", "home")) == ["data"]


def made(name: str, tmp_path: Path, offered: Offer) -> tuple[Mini, Any]:
    """A set's miniature and the Dataset that came of it."""
    small = offered(name)
    return small, open_dataset(fetch(name, tmp_path / "data", as_is=True)[0])


def test_patients_of_chest_xray_talo(tmp_path: Path, offered: Offer) -> None:
    _, data = made("chest-xray-talo", tmp_path, offered)
    groups = dict(zip(data.ids, data.groups, strict=True))
    assert groups == {
        "Covid-19/auntminnie-a.jpg": "cohen_2",
        "Covid-19/nejmc2001573_f1a.jpeg": "cohen_4",
        "Covid-19/nobody.png": "image_nobody",
        "No_findings/00001280_004.png": "nih_00001280",
        "No_findings/00001281_000.png": "nih_00001281",
        "Pneumonia/00000032_037.png": "nih_00000032",
        "Pneumonia/00001280_005.png": "nih_00001280",
    }
    small = mini("chest-xray-talo")
    (tmp_path / "a.zip").write_bytes(small.files["chest-xray-talo.zip"])
    with pytest.raises(Refused, match=r"Expected metadata\.csv, Cohen's list of patients, in the copy"):
        fetch("chest-xray-talo", tmp_path / "other", given=[tmp_path / "a.zip"], as_is=True)


def test_lesions_of_ham10000(tmp_path: Path, offered: Offer, put: Put) -> None:
    small, data = made("ham10000", tmp_path, offered)
    at = data.ids.index("bcc/ISIC_0000008.jpg")
    assert (data.groups[at], data.attributes["age"][at], data.attributes["sex"][at]) == ("HAM_0000001", "58.0", "male")
    tabs = small.files["HAM10000_metadata.csv"].replace(b",", b"\t")
    part = zipped({f"ISIC_{i:07d}.jpg": b"x" for i in range(3)})
    twice = {f"{top}/ISIC_{i:07d}.jpg": b"x" for top in ("HAM10000_images_part_1", "ham10000_images_part_1")
             for i in range(3)}  # fmt: skip
    for files in ({"HAM10000_metadata.tab": tabs, "part.zip": part}, {"HAM10000_metadata.tab": tabs, **twice}):
        folder = put(files, tmp_path / f"copy{len(files)}")
        given = [folder, *folder.glob("*.zip")]
        got = fetch("ham10000", tmp_path / f"made{len(files)}", given=given, as_is=True)[1]
        assert got.images == 3
    with pytest.raises(Refused, match=r"Expected HAM10000_metadata\.csv, which names the lesions"):
        fetch("ham10000", tmp_path / "none", given=[folder / "ham10000_images_part_1"], as_is=True)
    put({"HAM10000_metadata.csv": b"image,dx\na,b\n"}, tmp_path / "bad")
    with pytest.raises(Refused, match="Expected a column 'lesion_id' in"):
        fetch("ham10000", tmp_path / "none", given=[tmp_path / "bad"], as_is=True)


@pytest.mark.usefixtures("rar_tool")
def test_measurements_of_cp_anemic(tmp_path: Path, offered: Offer, put: Put) -> None:
    _, data = made("cp-anemic", tmp_path, offered)
    at = data.ids.index("Non-anemic/Image_003.png")
    facts = {key: values[at] for key, values in data.attributes.items()}
    assert facts == {"subject": "Image_003", "hb_g_dl": "12.5", "severity": "Non-Anemic", "age_months": "24",
                     "sex": "Male", "hospital": "SDA Hospital", "region": "Bono"}  # fmt: skip
    bare = put({"CP/Anemic/Image_001.png": b"x", "CP/Non-Anemic/Image_002.png": b"y"}, tmp_path / "bare")
    folder, got, _ = fetch("cp-anemic", tmp_path / "bare-made", given=[bare], as_is=True)
    assert dict(got.counts) == {"anemic": 1, "non_anemic": 1}
    assert (folder / "images.csv").read_text().splitlines()[0] == "path,label"


def test_masks_of_covid_radiography_are_left_behind(tmp_path: Path, offered: Offer) -> None:
    _, data = made("covid-radiography", tmp_path, offered)
    assert data.ids[3] == "Lung_Opacity/Lung_Opacity-1.png"
    assert len(list((tmp_path / "data").rglob("*.png"))) == 12 and not list((tmp_path / "data").rglob("masks"))


def test_pixels_of_cifar10_are_those_of_the_records(tmp_path: Path, offered: Offer) -> None:
    made("cifar10", tmp_path, offered)
    record = np.random.default_rng(0).integers(0, 256, (10, 3073), np.uint8)[3]  # the first file's fourth record
    red, green, blue = (record[1 + 1024 * k : 1025 + 1024 * k].reshape(32, 32) for k in range(3))
    with Image.open(tmp_path / "data/train/cat/00003.png") as image:
        assert image.mode == "RGB"
        np.testing.assert_array_equal(np.asarray(image), np.stack([red, green, blue], -1))
    assert (tmp_path / "data/train/truck/00049.png").exists() and (tmp_path / "data/test/truck/00009.png").exists()


@pytest.mark.parametrize("content", [b"", b"\0" * 3072, b"\x0a" + b"\0" * 3072, b"\x80\x04\x95" * 2049])
def test_cifar10_files_that_hold_no_records(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "data_batch_1.bin").write_bytes(content)
    with pytest.raises(Refused, match="Expected records of 3,073 bytes with labels 0 to 9"):
        read_batch(tmp_path / "data_batch_1.bin")


def test_pixels_and_labels_of_medmnist(tmp_path: Path, offered: Offer) -> None:
    small, data = made("bloodmnist", tmp_path, offered)
    (tmp_path / "bloodmnist.npz").write_bytes(small.files["bloodmnist.npz"])
    whole = open_dataset(tmp_path / "bloodmnist.npz", classes=SETS.make("bloodmnist").classes)
    place = {(data.splits[i], int(Path(name).stem)): i for i, name in enumerate(data.ids)}
    for i, name in enumerate(whole.ids):
        split, number = name.split("/")
        mine = place[split, int(number)]
        np.testing.assert_array_equal(data.read(mine), whole.read(i))
        assert data.classes[data.labels[mine]] == whole.classes[whole.labels[i]]


def test_findings_of_chestmnist(tmp_path: Path, offered: Offer) -> None:
    _, data = made("chestmnist", tmp_path, offered)
    for i, k in enumerate(data.labels.tolist()):
        marked = {key for key, values in data.attributes.items() if values[i] == "yes"}
        assert marked == ({"cardiomegaly", "hernia"} if data.classes[k] == "finding" else set())
        assert {values[i] for values in data.attributes.values()} <= {"yes", "no"}
    assert len(data.attributes) == 14


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"train_images": np.zeros((16, 28, 28, 3), np.float32)}, "train_images is float32"),
        ({"train_images": np.zeros((16, 64, 64, 3), np.uint8)}, r"train_images is uint8 \(16, 64"),
        ({"train_images": np.array([{}] * 16, object)}, "cannot be read|allow_pickle|is object"),
        ({"train_labels": np.array([[{}]] * 16, object)}, "cannot be read.*allow_pickle"),
        ({"train_labels": np.full((16, 1), 8)}, r"Expected one label from 0 to 7 .*; got \[8\]"),
        ({"train_labels": np.zeros((16, 2), int)}, "Expected one label"),
        ({"train_labels": None}, "cannot be read"),
    ],
)
def test_medmnist_files_that_are_not(tmp_path: Path, change: dict[str, Any], match: str) -> None:
    path = tmp_path / "bloodmnist.npz"
    path.write_bytes(mini("bloodmnist").files["bloodmnist.npz"])
    with np.load(path) as archive:
        arrays = {key: value for key, value in ({**archive, **change}).items() if value is not None}
    np.savez(path, allow_pickle=True, **arrays)
    with pytest.raises(Refused, match=match):
        list(SETS.make("bloodmnist").items(walk(path)))


def test_medmnist_arrays_that_end_early(tmp_path: Path) -> None:
    path = tmp_path / "bloodmnist.npz"
    path.write_bytes(b"PK\x05\x06" + bytes(18))
    with pytest.raises(Refused, match="cannot be read"):
        list(SETS.make("bloodmnist").items(walk(path)))


def test_sheets_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "a.xlsx"
    bomb = b'<!DOCTYPE x [<!ENTITY a "aaaa">]><worksheet>&a;</worksheet>'
    for content in (b"", b"IMAGE_ID,HB", zipped({"a": b""}), zipped({"xl/worksheets/sheet1.xml": b"<a"}),
                    zipped({"xl/worksheets/sheet1.xml": bomb})):  # fmt: skip
        path.write_bytes(content)
        with pytest.raises(Refused, match=r"Expected an \.xlsx workbook at .*Save its sheet as CSV beside it"):
            read_sheet(path)


def test_listings_are_read_generously(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b'\xef\xbb\xbfA, B ,C\r\n1,"2,3"\r\n\r\n4,5,6,7\r\n')
    assert read_listing(path, ("a", "b")) == [{"a": "1", "b": "2,3", "c": ""}, {"a": "4", "b": "5", "c": "6"}]
    path.write_bytes(b"")
    with pytest.raises(Refused, match="Expected a column 'a'"):
        read_listing(path, ("a",))
