"""Folders of class folders: what counts, what is refused, what is passed over."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from quantward.core.errors import Refused
from quantward.core.values import ImageArray
from quantward.data import open_dataset

Save = Callable[[Path, ImageArray], Path]
Picture = Callable[[int], ImageArray]


def test_class_folders(tree: Path, picture: Picture) -> None:
    data = open_dataset(tree)
    assert data.name == "data"
    assert data.classes == ("benign", "malign")
    assert data.ids == ("benign/0.png", "benign/2.png", "benign/4.png", "malign/1.png", "malign/3.png", "malign/5.png")
    assert data.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert data.splits is None and data.groups is None
    assert np.array_equal(data.read(1), picture(2))


@pytest.mark.parametrize(
    ("train", "test"), [("train", "test"), ("Training", "Testing"), ("TRAIN", "Test"), ("train", "validation")]
)
def test_split_folders(tmp_path: Path, save: Save, picture: Picture, train: str, test: str) -> None:
    for k in range(8):
        save(tmp_path / (train, test)[k % 2] / "ab"[k // 4] / f"{k}.png", picture(k))
    data = open_dataset(tmp_path)
    other = "val" if test == "validation" else "test"
    assert data.classes == ("a", "b")
    assert data.splits is not None and sorted(data.splits) == sorted(["train"] * 4 + [other] * 4)


def test_a_class_that_one_split_lacks_is_kept(tmp_path: Path, save: Save, picture: Picture) -> None:
    save(tmp_path / "train/a/1.png", picture(1))
    save(tmp_path / "train/b/2.png", picture(2))
    save(tmp_path / "test/a/3.png", picture(3))
    (tmp_path / "test/b").mkdir()
    assert open_dataset(tmp_path).classes == ("a", "b")


def test_empty_class_is_refused(tree: Path) -> None:
    (tree / "unclear").mkdir()
    with pytest.raises(Refused, match="'unclear' has none"):
        open_dataset(tree)


def test_empty_folder_and_absent_folder(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="no images in sub-folders"):
        open_dataset(tmp_path)
    with pytest.raises(Refused, match="there is nothing"):
        open_dataset(tmp_path / "none")


def test_images_outside_class_folders_are_refused(tree: Path, save: Save, picture: Picture) -> None:
    save(tree / "stray.png", picture(9))
    with pytest.raises(Refused, match=r"stray\.png"):
        open_dataset(tree)


def test_a_folder_beside_the_splits_is_refused(tmp_path: Path, save: Save, picture: Picture) -> None:
    for k, top in enumerate(("train", "test", "conflicts")):
        save(tmp_path / top / "a" / "1.png", picture(k))
    with pytest.raises(Refused, match="'conflicts'"):
        open_dataset(tmp_path)


def test_foreign_files_are_passed_over_or_refused_never_guessed(tree: Path) -> None:
    for name in ("readme.txt", ".DS_Store", "Thumbs.db"):
        (tree / "benign" / name).write_text("x", encoding="utf-8")
    assert len(open_dataset(tree)) == 6
    (tree / "benign/scan.heic").write_bytes(b"x")
    with pytest.raises(Refused, match=r"benign/scan\.heic"):
        open_dataset(tree)


def test_masks_are_no_images(tree: Path, save: Save, picture: Picture) -> None:
    save(tree / "masks/benign/0.png", picture(1))
    save(tree / "benign/Masks/0.png", picture(1))
    assert len(open_dataset(tree)) == 6


def test_links_to_the_outside_are_refused(tree: Path, tmp_path: Path, save: Save, picture: Picture) -> None:
    outside = save(tmp_path / "other/secret.png", picture(1))
    (tree / "benign/link.png").symlink_to(outside)
    with pytest.raises(Refused, match=r"link\.png is a link to the outside"):
        open_dataset(tree)
    (tree / "benign/link.png").unlink()
    (tree / "benign/more").symlink_to(tree / "malign")
    with pytest.raises(Refused, match="count twice"):
        open_dataset(tree)


def test_a_linked_root_is_fine(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tree)
    assert open_dataset(tmp_path / "link").fingerprint == open_dataset(tree).fingerprint


def test_two_spellings_of_a_class_are_refused(tmp_path: Path, save: Save, picture: Picture) -> None:
    save(tmp_path / "train/Glioma/1.png", picture(1))
    save(tmp_path / "test/glioma/2.png", picture(2))
    with pytest.raises(Refused, match="'Glioma' and 'glioma'"):
        open_dataset(tmp_path)


def test_unicode_blanks_and_very_deep_folders(tmp_path: Path, save: Save, picture: Picture) -> None:
    save(tmp_path / "глиома ö/ 病 1.png", picture(1))
    save(tmp_path / "b" / "c.png", picture(2))
    here = os.open(tmp_path / "b", os.O_RDONLY)
    for _ in range(1100):
        os.mkdir("d", dir_fd=here)
        inner = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)
    deep = "b/" + "d/" * 1100 + "e.png"
    (tmp_path / deep).write_bytes((tmp_path / "b/c.png").read_bytes())
    data = open_dataset(tmp_path)
    pictures = [data.read(i).shape for i in range(3)]
    # Python's own removal recurses and would leave the deep folder behind.
    subprocess.run(["rm", "-rf", str(tmp_path / "b")], check=True)
    assert set(data.ids) == {"глиома ö/ 病 1.png", "b/c.png", deep}
    assert pictures == [(24, 20, 3)] * 3


def test_fingerprint_changes_with_content_name_label_order_and_background(
    tree: Path, save: Save, picture: Picture
) -> None:
    first = open_dataset(tree).fingerprint
    assert open_dataset(tree).fingerprint == first
    assert open_dataset(tree, background=(255, 255, 255)).fingerprint != first
    (tree / "benign/0.png").rename(tree / "benign/9.png")
    renamed = open_dataset(tree).fingerprint
    assert renamed != first
    (tree / "benign/9.png").rename(tree / "benign/0.png")
    assert open_dataset(tree).fingerprint == first
    save(tree / "benign/0.png", picture(77))
    changed = open_dataset(tree).fingerprint
    (tree / "benign/0.png").rename(tree / "malign/0.png")
    assert len({first, renamed, changed, open_dataset(tree).fingerprint}) == 4
