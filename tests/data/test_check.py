"""`check` finds what was planted, counts it right, and is silent about sound data."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from quantward.core.store import plain
from quantward.core.values import Dataset, ImageArray
from quantward.data import Flaw, Report, check, make_toy, open_dataset

Memory = Callable[..., Dataset]
Save = Callable[[Path, ImageArray], Path]


def codes(report: Report) -> dict[str, int]:
    return {flaw.code: flaw.count for flaw in report.flaws}


def flaw(report: Report, code: str) -> Flaw:
    return next(flaw for flaw in report.flaws if flaw.code == code)


def test_sound_data_have_no_flaws(memory: Memory) -> None:
    report = check(memory([0, 1] * 25))
    assert report.flaws == ()
    assert (report.n, report.readable, report.distinct, report.duplicates) == (50, 50, 50, 0)
    assert report.counts == {"all": {"a": 25, "b": 25}}


def test_copies_across_splits(memory: Memory) -> None:
    splits = ["train"] * 30 + ["val"] * 10 + ["test"] * 20
    # 45 and 46 copy training images, 50 copies 45 (so training too), 55 copies 56 inside test, 35 copies 36 inside val.
    report = check(memory([0, 1] * 30, splits=splits, same={45: 1, 46: 2, 50: 0, 51: 1, 55: 57, 36: 34}))
    across = flaw(report, "split-duplicate")
    assert across.level == "error"
    assert across.count == 4
    assert across.text == "4 of the 20 test images are pixel-identical to training images."
    assert across.cases[0] == ("i0045", "i0001")
    assert report.duplicates == 6
    assert flaw(report, "duplicate").text.startswith("6 of 60 images")
    assert set(codes(report)) == {"split-duplicate", "duplicate"}


def test_one_picture_with_two_labels(memory: Memory) -> None:
    report = check(memory([0, 1] * 25, same={7: 2, 9: 1}))
    conflict = flaw(report, "label-conflict")
    assert (conflict.level, conflict.count, conflict.cases) == ("error", 1, (("i0002", "i0007"),))


def test_a_patient_in_two_splits(memory: Memory) -> None:
    data = memory([0, 1] * 25, groups=["p"] * 2 + [f"q{i}" for i in range(48)], splits=["train", "test"] * 25)
    report = check(data)
    assert flaw(report, "split-group").cases == (("p",),)
    assert flaw(report, "split-group").level == "error"


def test_a_picture_under_two_patients(memory: Memory) -> None:
    data = memory([0, 1] * 25, groups=[f"p{i}" for i in range(50)], same={4: 2})
    assert flaw(check(data), "group-duplicate").cases == (("i0002", "i0004"),)


def test_fewer_groups_than_folds(memory: Memory) -> None:
    data = memory([0] * 30 + [1] * 30, groups=[f"p{i}" for i in range(30)] + [f"q{i % 4}" for i in range(30)])
    assert flaw(check(data, folds=5), "few-groups").text == "Class 'b' has 4 groups: too few for 5 folds."
    assert "few-groups" not in codes(check(data, folds=4))


def test_classes_rare_absent_and_alone(memory: Memory) -> None:
    report = check(memory([0] * 250 + [1] * 19, splits=["train"] * 249 + ["test"] * 20))
    assert set(codes(report)) == {"class-imbalance", "few-images", "class-absent"}
    assert flaw(report, "class-absent").cases == (("train", "b"),)
    assert "'a' has 250 images and 'b' 19" in flaw(report, "class-imbalance").text
    assert set(codes(check(memory([0] * 30)))) == {"one-class"}


def test_unreadable_files_are_listed_and_counted(tree: Path) -> None:
    (tree / "benign/0.png").write_bytes(b"")
    (tree / "malign/3.png").write_bytes((tree / "malign/3.png").read_bytes()[:200])
    report = check(open_dataset(tree))
    torn = flaw(report, "unreadable")
    assert (torn.level, torn.count) == ("error", 2)
    assert [case[0] for case in torn.cases] == ["benign/0.png", "malign/3.png"]
    assert "zero bytes" in torn.text
    assert (report.n, report.readable, report.distinct) == (6, 4, 4)
    assert "duplicate" not in codes(report)


def test_constant_converted_and_private(tree: Path, save: Save) -> None:
    save(tree / "benign/flat.png", np.full((24, 20, 3), 7, np.uint8))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.fromarray(np.random.default_rng(99).integers(0, 256, (24, 20, 3), dtype=np.uint8)).save(
        tree / "benign/turned.png", exif=exif
    )
    report = check(open_dataset(tree))
    assert flaw(report, "constant").cases == (("benign/flat.png",),)
    assert flaw(report, "converted").text == "1 image: turned as its EXIF says."


def test_look_alikes_and_the_switch_that_saves_their_search(tmp_path: Path, save: Save) -> None:
    rng = np.random.default_rng(4)
    for k in range(12):
        coarse = Image.fromarray(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8))
        image = coarse.resize((64, 64), Image.Resampling.BICUBIC)
        save(tmp_path / ("train", "test")[k % 2] / "ab"[k // 6] / f"{k}.png", np.asarray(image))
    with Image.open(tmp_path / "train/a/0.png") as first:
        first.save(tmp_path / "test/a/again.jpg", quality=80)
        first.save(tmp_path / "test/b/other.jpg", quality=70)
    data = open_dataset(tmp_path)
    report = check(data, folds=2)
    assert flaw(report, "near-duplicate").count == 3
    assert flaw(report, "near-conflict").count == 2
    assert flaw(report, "split-near-duplicate").text == "2 further test images look almost the same as training images."
    assert not {"near-duplicate", "near-conflict"} & set(codes(check(data, near=False)))


def test_size_that_tells_the_class(memory: Memory) -> None:
    data = memory([0, 1] * 40)

    def shaped(i: int, height: int, width: int) -> ImageArray:
        return np.random.default_rng(i).integers(0, 256, (height, width, 3), dtype=np.uint8)

    two_scanners = replace(data, reader=lambda i: shaped(i, 20 + 4 * (i % 2), 24))
    said = flaw(check(two_scanners), "size-tells-class").text
    assert said.startswith("The image size alone gives the class of 100% of the images (the commonest class: 50%)")
    all_different = replace(data, reader=lambda i: shaped(i, 20 + i, 200))
    assert set(codes(check(all_different))) == {"size-spread"}
    own_size_each = replace(two_scanners, groups=tuple(f"p{i % 2}" for i in range(80)))
    assert "size-tells-class" not in codes(check(own_size_each))


def test_errors_stand_before_warnings_and_all_is_plain_data(memory: Memory) -> None:
    report = check(memory([0, 1] * 25, same={7: 2}))
    assert [item.level for item in report.flaws] == sorted(item.level for item in report.flaws)
    assert report.errors + report.warnings == report.flaws
    assert json.loads(json.dumps(plain(report)))["flaws"][0]["code"] == "label-conflict"


@pytest.mark.parametrize("read_by", ["auto", "folders"])
def test_the_toys_planted_faults(tmp_path: Path, read_by: str) -> None:
    make_toy(tmp_path / "toy", n=120, classes=2, size=(32, 40), leaks=5, truncated=3, conflicts=2)
    report = check(open_dataset(tmp_path / "toy", labels_from=read_by))  # type: ignore[arg-type]
    assert codes(report)["unreadable"] == 3
    assert codes(report)["label-conflict"] == 2
    assert report.duplicates == 7
    assert codes(report).get("split-duplicate") == (5 if read_by == "auto" else None)


def test_progress_is_told(memory: Memory) -> None:
    told: list[tuple[str, int | None]] = []

    def track(items, label, total=None):  # type: ignore[no-untyped-def]
        told.append((label, total))
        yield from items

    check(memory([0, 1] * 25), track=track)
    assert told == [("checking images", 50)]
