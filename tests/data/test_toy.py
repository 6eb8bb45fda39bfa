"""The toy hospital: reproducible, imbalanced, grouped by patient, learnable only from the picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from quantward.core.errors import Refused, UsageError
from quantward.data import check, make_toy, open_dataset, split, verify_fold


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_toy(tmp_path_factory.mktemp("toy") / "data", n=300, size=(40, 56))


def test_what_is_in_it(toy: Path) -> None:
    data = open_dataset(toy)
    assert len(data) == 300
    assert data.classes == ("healthy", "nodule", "ring", "spiculated")
    assert data.groups is not None and data.splits is None
    assert set(data.attributes) == {"sex", "mask"}
    counts = np.bincount(data.labels)
    assert counts[3] < counts.max() / 2
    sides = {data.read(i).shape[0] for i in range(300)}
    assert min(sides) >= 40 and max(sides) <= 56 and len(sides) > 5
    scans = np.unique(data.groups, return_counts=True)[1]
    assert scans.min() >= 1 and scans.max() == 4


def test_a_patient_has_one_kind_one_sex_one_size(toy: Path) -> None:
    data = open_dataset(toy)
    facts: dict[str, set[tuple[object, ...]]] = {}
    for i, group in enumerate(data.groups or ()):
        facts.setdefault(group, set()).add((data.labels[i], data.attributes["sex"][i], data.read(i).shape))
    assert all(len(kinds) == 1 for kinds in facts.values())


def test_it_is_sound_and_splits_well(toy: Path) -> None:
    data = open_dataset(toy)
    report = check(data, near=False)
    assert report.flaws == ()
    assert verify_fold(data, split(data)) == ()


def test_masks_show_where_the_lesion_is(toy: Path) -> None:
    data = open_dataset(toy)
    inside, outside = [], []
    for i in range(len(data)):
        mask = np.asarray(Image.open(toy / data.attributes["mask"][i])) > 0
        image = data.read(i)[:, :, 0].astype(float)
        assert mask.shape == image.shape
        assert mask.any() == (data.classes[data.labels[i]] != "healthy")
        if data.classes[data.labels[i]] == "nodule":
            inside.append(image[mask].mean())
            outside.append(np.median(image[image > 40]))
    assert np.mean(np.array(inside) > np.array(outside)) > 0.8


def test_folders_alone_are_enough(toy: Path) -> None:
    assert open_dataset(toy, labels_from="folders").classes == open_dataset(toy).classes


def test_the_same_arguments_give_the_same_bytes(tmp_path: Path) -> None:
    first, again, other = (
        open_dataset(make_toy(tmp_path / name, n=40, size=(32, 34), seed=seed))
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert first.fingerprint == again.fingerprint
    assert first.fingerprint != other.fingerprint


def test_a_finished_toy_is_left_alone_and_other_folders_are_refused(tmp_path: Path) -> None:
    folder = make_toy(tmp_path / "a", n=40, size=(32, 34))
    before = (folder / "images.csv").stat().st_mtime_ns
    assert make_toy(folder, n=40, size=(32, 34)) == folder
    assert (folder / "images.csv").stat().st_mtime_ns == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("x", encoding="utf-8")
    with pytest.raises(Refused, match="an empty folder"):
        make_toy(tmp_path / "mine")
    with pytest.raises(Refused, match="an empty folder"):
        make_toy(folder, n=48, size=(32, 34))


@pytest.mark.parametrize("wrong", [{"classes": 1}, {"classes": 9}, {"n": 10}, {"size": (90, 40)}, {"size": (8, 9)}])
def test_numbers_without_sense(tmp_path: Path, wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="Expected 2 to 6 classes"):
        make_toy(tmp_path / "t", **wrong)  # type: ignore[arg-type]


def test_every_kind_appears_however_small_the_set(tmp_path: Path) -> None:
    data = open_dataset(make_toy(tmp_path / "t", n=60, classes=6, size=(32, 33)))
    assert np.bincount(data.labels).min() >= 3
